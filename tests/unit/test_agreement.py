from dataclasses import replace
from pathlib import Path

import pytest

from threephase_ray.errors import ResourceError
from threephase_ray.training import agreement
from threephase_ray.training.agreement import Node, problems, skew
from threephase_ray.training.nodes import Report

VERSIONS = {"python": "3.11.7", "torch": "2.13.0"}
SOUND = Report(VERSIONS, "/shared/store", "", True, "/shared/store", 10**9, 0, "")


def node(number: int = 2, report: Report | None = SOUND, **facts: object) -> Node:
    return replace(Node(f"10.0.0.{number}", report, arrived=True), **facts)


def found(*nodes: Node, driver: Report = SOUND, needed: int = 10**8, gpus: bool = False) -> list[str]:
    return problems(driver, nodes, needed, gpus)


def test_nodes_that_agree_have_no_problem() -> None:
    assert found(node(2), node(3)) == []


def test_a_node_without_an_answer() -> None:
    (line,) = found(node(2), node(3, None, silence="no answer within 5 s"))
    assert line == "10.0.0.3: no answer within 5 s; repair the node, or take it out of the cluster"


def test_a_store_that_refuses_keeps_its_own_remedy() -> None:
    (line,) = found(node(report=replace(SOUND, refusal="store: no permission for /x; allow it", sees_driver=False), arrived=False))
    assert line == "10.0.0.2: store: no permission for /x; allow it"


@pytest.mark.parametrize(("sees", "arrived"), [(False, True), (True, False), (False, False)])
def test_a_folder_that_only_looks_shared(sees: bool, arrived: bool) -> None:
    (line,) = found(node(report=replace(SOUND, store="/other/store", sees_driver=sees), arrived=arrived))
    assert line.startswith("10.0.0.2: store: /shared/store is not the driver's there (/other/store)")
    assert "a folder that all nodes share" in line


def test_a_store_that_the_driver_cannot_use_is_told_once() -> None:
    (line,) = found(node(report=replace(SOUND, sees_driver=False)), driver=replace(SOUND, refusal="store: is full; free space"))
    assert line == "the driver's node: store: is full; free space"


def test_other_versions_are_told_together_and_for_all_nodes_alike_at_once() -> None:
    other = replace(SOUND, versions={"python": "3.12.1"})
    (line,) = found(node(2, other), node(3), node(4, other))
    assert line.startswith("10.0.0.2, 10.0.0.4: versions: python 3.12.1 instead of 3.11.7, torch none instead of 2.13.0; install what")


def test_a_disk_without_room_is_told_of_every_node_and_the_driver() -> None:
    full = replace(SOUND, free=99_999_999)
    lines = found(node(2, full), node(3, replace(full, free=100_000_000)), driver=full)
    assert len(lines) == 1
    assert lines[0].startswith("the driver's node, 10.0.0.2: disk: /shared/store has 100.0 MB free, and the job writes about 100.0 MB")


@pytest.mark.parametrize(("off", "word"), [(60.0, "60 s ahead of"), (-7.4, "7 s behind")])
def test_a_clock_that_is_off(off: float, word: str) -> None:
    assert found(node(skew=5.0), node(skew=-5.0)) == []
    (line,) = found(node(skew=off))
    assert f"clock: {word} the driver's, 5 s are allowed" in line


def test_a_clock_is_believed_as_far_as_the_question_allows() -> None:
    assert skew(sent=100.0, told=100.5, received=101.0) == 0.0
    assert skew(sent=100.0, told=108.0, received=101.0) == 7.0
    assert skew(sent=100.0, told=93.0, received=101.0) == -7.0
    assert skew(sent=100.0, told=108.0, received=110.0) == 0.0  # it took ten seconds: nothing is sure


def test_gpus_that_torch_does_not_see_count_where_they_are_wanted() -> None:
    blind = node(report=replace(SOUND, blindness="it is built without CUDA"), gpus=4.0)
    assert found(blind) == []
    (line,) = found(blind, gpus=True)
    assert line.startswith("10.0.0.2: GPU: Ray counts 4 there, and torch sees 0 (it is built without CUDA); install a torch")
    assert found(node(report=replace(SOUND, gpus=4), gpus=4.0), gpus=True) == []


def test_many_nodes_make_a_short_line() -> None:
    lines = found(*(node(number, None, silence="no answer") for number in range(2, 102)))
    assert lines == ["10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5 and 96 more: no answer; repair the node, or take it out of the cluster"]


def test_all_problems_are_refused_at_once() -> None:
    agreement.refuse([])
    with pytest.raises(ResourceError, match=r"^a: b; c$"):
        agreement.refuse(["a: b; c"])
    with pytest.raises(ResourceError) as caught:
        agreement.refuse(["a", "b"])
    assert str(caught.value).splitlines() == ["2 problems, and nothing was started", "- a", "- b"]
    assert caught.value.code == 4


def test_space_grows_with_all_that_is_written() -> None:
    assert agreement.space(0, 2, 3) == agreement.MARGIN
    assert agreement.space(10**6, 2, 3) - agreement.MARGIN == 10**6 * (3 * 12 + (3 + 2) * 4)


def test_summary_says_where_the_least_space_is() -> None:
    lines = agreement.summary(SOUND, [node(report=replace(SOUND, free=5_000_000, disk="/scratch"), skew=-1.25)], False)
    assert "5.0 MB free in /scratch" in lines[2]
    assert "1.2 s apart" in lines[3]


def test_storage_alone_is_checked_without_workers(tmp_path: Path) -> None:
    agreement.check_storage(str(tmp_path / "store"), str(tmp_path / "scratch"))
    assert list((tmp_path / "store").iterdir()) == []  # nothing is left behind
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"the driver's node: store: .*file/store.* cannot be read or written"):
        agreement.check_storage(str(tmp_path / "file" / "store"), str(tmp_path / "scratch"))
