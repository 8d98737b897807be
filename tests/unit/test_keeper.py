"""Checkpoints in a real store: a phase that is cut short anywhere ends as if it had not been."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit import tiny_models
from threephase_ray import phases
from threephase_ray.config import Encoder
from threephase_ray.errors import JobError
from threephase_ray.loader import DataSet
from threephase_ray.lock import Lock
from threephase_ray.machine import Checkpoint
from threephase_ray.phases.spec import Phase
from threephase_ray.results import MANIFEST, Store, facts
from threephase_ray.training import loop
from threephase_ray.training.keeper import Keeper

NAME = "phase-0123456789abcdef"


class Killed(Exception):
    """Stands for a kill: nothing is saved on the way out."""


@dataclass
class Bench:
    """A store, and what an attempt reports."""

    store: Store
    events: list[dict[str, Any]] = field(default_factory=list)

    def keeper(self, stop: Callable[[], bool] = lambda: False, **knobs: Any) -> Keeper:
        lock = Lock(self.store.storage, f"phases/{NAME}")
        assert lock.try_acquire()
        return Keeper(self.store, NAME, Checkpoint(**{"steps": 1} | knobs), lock, self.events.append, stop)

    def checkpoints(self) -> list[str]:
        return sorted({name.split("/")[2] for name in self.store.storage.sizes(f"progress/{NAME}") if name.endswith(MANIFEST)})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, DataSet]:
    folder = tmp_path_factory.mktemp("keeper")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    return encoder, tiny_models.prepared(folder, encoder)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Store(str(tmp_path / "store"), str(tmp_path / "scratch")))


def built(place: tuple[Encoder, DataSet], name: str) -> Phase:
    """Eight steps, four validations."""
    return phases.build(name, tiny_models.configured(place[0], **{name: {"steps": 8, "validations": 4}}), place[1])


def attempt(phase: Phase, bench: Bench, keeper: Keeper, last_step: int = 0) -> tuple[loop.Course, nn.Module]:
    """Train from the newest checkpoint on, and fall dead after `last_step`."""
    torch.manual_seed(5)
    model = phase.model(None)
    setting = tiny_models.setting(phase, model, keeper=keeper)

    def report(event: dict[str, Any]) -> None:
        bench.events.append(event)
        if event["event"] == "step" and event["step"] == last_step:
            raise Killed

    course = keeper.restore(setting.engine)
    bench.events.append({"event": "resume", "step": course.step})
    try:
        loop.train(tiny_models.setting(phase, model, keeper=keeper, report=report, engine=setting.engine), course)
    finally:
        keeper.close(finished=False)
        keeper._lock.release()
    return course, model


def same(one: tuple[loop.Course, nn.Module], other: tuple[loop.Course, nn.Module]) -> bool:
    """Whether two attempts ended alike, bit by bit."""
    states = one[1].state_dict(), other[1].state_dict()
    weights = one[0].weights, other[0].weights
    return one[0].state() == other[0].state() and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in (states, weights)
    )


@pytest.fixture(scope="module", params=["dae", "contrastive", "joint", "finetune"])
def uninterrupted(place: tuple[Encoder, DataSet], request: pytest.FixtureRequest) -> tuple[str, tuple[loop.Course, nn.Module]]:
    phase = built(place, request.param)
    torch.manual_seed(5)
    model, course = phase.model(None), loop.Course()
    loop.train(tiny_models.setting(phase, model), course)
    return request.param, (course, model)


def test_cut_short_anywhere_it_ends_with_the_same_bits(place: tuple[Encoder, DataSet], bench: Bench, uninterrupted: Any) -> None:
    name, reference = uninterrupted
    for last_step in (3, 4, 7):
        with pytest.raises(Killed):
            attempt(built(place, name), bench, bench.keeper(), last_step)
    assert same(attempt(built(place, name), bench, bench.keeper()), reference)
    started = [event["step"] for event in bench.of("resume")]
    assert started[0] == 0
    assert all(step > 0 for step in started[1:])
    assert started == sorted(started)


@pytest.mark.parametrize("uninterrupted", ["finetune"], indirect=True)
def test_a_stop_saves_the_very_step(place: tuple[Encoder, DataSet], bench: Bench, uninterrupted: Any) -> None:
    name, reference = uninterrupted
    calls = iter([False, False, False, True])
    course, _ = attempt(built(place, name), bench, bench.keeper(stop=lambda: next(calls), steps=100))
    assert course.step == 4
    assert bench.checkpoints() == ["000000004-0001"]
    assert same(attempt(built(place, name), bench, bench.keeper()), reference)
    assert bench.of("resume")[-1]["step"] == 4


def test_only_the_newest_are_kept_and_a_finished_phase_keeps_none(place: tuple[Encoder, DataSet], bench: Bench) -> None:
    keeper = bench.keeper(steps=2)
    attempt(built(place, "finetune"), bench, keeper)
    taken = [event["step"] for event in bench.of("committed")]
    assert set(taken) <= {2, 3, 4, 5, 6, 7}
    assert [int(name.split("-")[0]) for name in bench.checkpoints()] == taken[-2:]
    assert bench.store.damage(f"progress/{NAME}/{bench.checkpoints()[-1]}", deep=True) is None
    keeper.close(finished=True)
    assert bench.store.storage.sizes(f"progress/{NAME}") == {}


def files_of_the_newest(bench: Bench) -> list[Path]:
    assert bench.store.storage.folder is not None
    folder = bench.store.storage.folder / "progress" / NAME / bench.checkpoints()[-1]
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "receipts" not in path.parts]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def interrupted(place: tuple[Encoder, DataSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two whole checkpoints of a phase that fell dead."""
    folder = tmp_path_factory.mktemp("interrupted")
    bench = Bench(Store(str(folder / "store"), str(folder / "scratch")))
    with pytest.raises(Killed):
        attempt(built(place, "finetune"), bench, bench.keeper(steps=2), 7)
    return folder


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flip", "remove"])
def test_damage_costs_one_checkpoint_and_is_told(
    place: tuple[Encoder, DataSet], interrupted: Path, bench: Bench, harm: Callable[[Path], None], number: int
) -> None:
    assert bench.store.storage.folder is not None
    shutil.copytree(interrupted / "store", bench.store.storage.folder)
    whole, victim = bench.checkpoints(), files_of_the_newest(bench)[number]
    harm(victim)
    phase = built(place, "finetune")
    course = bench.keeper().restore(tiny_models.setting(phase, phase.model(None)).engine)
    assert len(whole) == 2
    assert f"{course.step:09d}" == whole[0].split("-")[0]
    (told,) = bench.of("passed_over")
    assert told["checkpoint"].endswith(whole[1])
    assert victim.name in told["reason"] or "manifest" in told["reason"]


def bomb(marker: Path) -> object:
    """Something whose unpickling makes a file."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    return Bomb()


def test_a_pickle_in_place_of_a_shard_is_never_executed(place: tuple[Encoder, DataSet], bench: Bench, tmp_path: Path) -> None:
    phase, marker = built(place, "finetune"), tmp_path / "executed"
    with pytest.raises(Killed):
        attempt(phase, bench, bench.keeper(steps=2), 7)
    shard = next(path for path in files_of_the_newest(bench) if path.name == "rank-0.safetensors")
    torch.save(bomb(marker), shard)
    attempt(phase, bench, bench.keeper())
    assert bench.of("passed_over")
    assert not marker.exists()


def test_a_pickle_with_a_manifest_that_fits_is_never_executed(place: tuple[Encoder, DataSet], bench: Bench, tmp_path: Path) -> None:
    phase, marker = built(place, "finetune"), tmp_path / "executed"
    with pytest.raises(Killed):
        attempt(phase, bench, bench.keeper(steps=2), 7)
    files = {path.name: path for path in files_of_the_newest(bench)}
    shard, manifest = files["rank-0.safetensors"], files[MANIFEST]
    torch.save(bomb(marker), shard)
    content = json.loads(manifest.read_text())
    content["files"][shard.name] = facts(shard)
    manifest.write_text(json.dumps(content))
    course, _ = attempt(phase, bench, bench.keeper())
    assert course.step == 8
    assert "not a whole safetensors file" in bench.of("passed_over")[0]["reason"]
    assert not marker.exists()


def test_an_unwritable_store_ends_with_the_last_good_step(place: tuple[Encoder, DataSet], bench: Bench) -> None:
    phase = built(place, "finetune")
    with pytest.raises(Killed):
        attempt(phase, bench, bench.keeper(steps=2), 3)
    assert bench.store.storage.folder is not None
    progress = bench.store.storage.folder / "progress" / NAME
    keeper = bench.keeper()
    model = phase.model(None)
    setting = tiny_models.setting(phase, model, keeper=keeper)
    course = keeper.restore(setting.engine)
    assert course.step == 2
    moved = progress.with_name("moved")
    progress.rename(moved)
    progress.write_text("a file where a folder should be: nothing can be written below")
    with pytest.raises(JobError, match=r"(?s)checkpoint could not be written.*go on from step 2"):
        loop.train(setting, course)
    keeper._lock.release()


def test_young_s_interval() -> None:
    knobs = Checkpoint(minutes="young", mtbf_hours=6.0)
    keeper = Keeper.__new__(Keeper)
    keeper._knobs, keeper._stall = knobs, 0.0
    assert keeper._interval() == 60.0
    keeper._stall = 3.0
    assert keeper._interval() == pytest.approx((2 * 3.0 * 6 * 3600) ** 0.5)
    keeper._knobs = Checkpoint(minutes=2.5)
    assert keeper._interval() == 150.0
