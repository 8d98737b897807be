import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import threephase_ray
from threephase_ray.storage import connect
from threephase_ray.training import nodes

MARKS = "preflight-x"


def examined(store: Path, name: str = nodes.DRIVER, gpus: bool = False) -> nodes.Report:
    return nodes.examine(str(store), str(store.with_name("scratch")), MARKS, name, gpus)


def test_a_sound_node(tmp_path: Path) -> None:
    driver, other = examined(tmp_path / "store"), examined(tmp_path / "store", "b")
    assert (driver.refusal, driver.sees_driver, other.refusal, other.sees_driver) == ("", True, "", True)
    assert driver.disk == driver.store == str(tmp_path / "store")
    assert driver.free > 0
    assert sorted(path.name for path in (tmp_path / "store" / MARKS).iterdir()) == ["b", "driver"]


def test_a_folder_that_is_not_the_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ARRIVAL", 0.1)
    examined(tmp_path / "store")
    other = examined(tmp_path / "other", "b")
    assert (other.refusal, other.sees_driver) == ("", False)
    assert not nodes.arrived(connect(str(tmp_path / "store")), f"{MARKS}/b", time.monotonic())


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = examined(tmp_path / "file" / "store")
    assert report.refusal.startswith(f"store: {tmp_path}/file/store/{MARKS}/driver cannot be read or written: Not a directory; repair it")
    assert not report.sees_driver
    assert report.free > 0  # of the folder that is there


def test_scratch_is_what_fills_up_where_the_store_is_no_folder(tmp_path: Path) -> None:
    report = nodes.examine("memory://bucket/store", str(tmp_path / "scratch"), MARKS, nodes.DRIVER, False)
    assert report.disk == str(tmp_path / "scratch")
    assert report.refusal == ""


def test_a_mark_is_removed_and_the_time_told(tmp_path: Path) -> None:
    examined(tmp_path / "store")
    before = time.time()
    assert before <= nodes.leave(str(tmp_path / "store"), MARKS, nodes.DRIVER) <= time.time()
    assert list((tmp_path / "store").iterdir()) == []


def test_versions_are_those_that_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = nodes.versions()
    assert found["torch"] == torch.__version__
    assert found["threephase_ray"].startswith(f"{threephase_ray.__version__} (code ")
    (tmp_path / "deepspeed-9.9.9.dist-info").mkdir()
    (tmp_path / "deepspeed-9.9.9.dist-info" / "METADATA").write_text("Name: deepspeed\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {name for name, version in nodes.versions().items() if found[name] != version} == {"deepspeed"}


def test_other_code_has_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__init__.py").write_text("")
    before = nodes.versions()["threephase_ray"]
    monkeypatch.setattr(threephase_ray, "__file__", str(tmp_path / "__init__.py"))
    changed = nodes.versions()["threephase_ray"]
    (tmp_path / "module.py").write_text("x = 1\n")
    assert len({before, changed, nodes.versions()["threephase_ray"]}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_torch_is_asked_for_gpus_in_a_process_of_its_own(tmp_path: Path) -> None:
    report = examined(tmp_path / "store", gpus=True)
    reason = "it is built without CUDA" if torch.version.cuda is None else f"it is built for CUDA {torch.version.cuda} and finds no driver"
    assert (report.gpus, report.blindness) == (0, reason)


def test_the_tasks_need_neither_ray_nor_torch(root: Path) -> None:
    program = "import sys, threephase_ray.training.nodes; print(*{'ray', 'torch', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
