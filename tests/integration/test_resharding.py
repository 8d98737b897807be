"""A checkpoint continues training to the last bit, also with gradients accumulated; with other workers or another stage, to rounding."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.integration.resume import Task
from threephase_ray.training.checkpoint import Shards

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
WAYS = [(engine, stage) for engine, stage in [("plain", 0), *(("deepspeed", stage) for stage in range(4))]]
SPLITS = [(workers, micros) for workers in (1, 2) for micros in (1, 2)]
HALF, END = 3, 6
# (engine, stage, workers) of each third of the course
JOURNEYS = [
    [("deepspeed", 1, 2), ("deepspeed", 1, 1), ("deepspeed", 1, 2)],
    [("deepspeed", 3, 2), ("deepspeed", 3, 1), ("deepspeed", 3, 2)],
    [("deepspeed", 1, 2), ("deepspeed", 3, 2), ("deepspeed", 0, 2)],
    [("plain", 0, 2), ("deepspeed", 2, 2), ("plain", 0, 1)],
]
SIZES = {
    "embed.weight": 91, "norm.weight": 7, "norm.bias": 7, "inner.weight": 49, "inner.bias": 7, "out.bias": 13, "scale": 1, "sometimes": 3
}  # fmt: skip
PLAIN = {"workers": 1, "micros": 1, "engine": "plain", "stage": 0}


def tasks() -> list[Task]:
    """All that is to be trained, in an order that changes the number of workers seldom."""
    each: dict[int, list[Task]] = {1: [Task(name="whole", start=0, stop=END, **PLAIN)], 2: []}
    for engine, stage in WAYS:
        for workers, micros in SPLITS:
            how: dict[str, Any] = {"engine": engine, "stage": stage, "workers": workers, "micros": micros}
            name = f"{engine}{stage}-{workers}x{micros}"
            source = (f"straight-{name}", HALF, workers)
            each[workers] += [
                Task(name=f"straight-{name}", start=0, stop=END, save=HALF, dropout=0.3, **how),
                Task(name=f"second-{name}", start=HALF, stop=END, source=source, same_random_states=True, dropout=0.3, **how),
                Task(name=f"discarded-{name}", start=0, stop=END, leave_out={"1": "nan", "4": "finite"}, **how),
                Task(name=f"unseen-{name}", start=0, stop=END, leave_out={"1": "unseen", "4": "unseen"}, **how),
            ]
    journeys = [task for number, journey in enumerate(JOURNEYS) for task in travel(number, journey)]
    journeys.sort(key=lambda task: (task.start, task.workers if task.start == END // 3 else -task.workers))
    return each[1] + each[2] + journeys


def travel(number: int, journey: list[tuple[str, int, int]]) -> list[Task]:
    """The thirds of a journey, each from the checkpoint of the one before."""
    third = END // 3
    return [
        Task(
            name=f"journey-{number}-{part}", engine=engine, stage=stage, workers=workers, micros=2 // workers,
            start=part * third, stop=(part + 1) * third,
            source=(f"journey-{number}-{part - 1}", part * third, journey[part - 1][2]) if part else None,
        )
        for part, (engine, stage, workers) in enumerate(journey)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """What all tasks have written."""
    folder = tmp_path_factory.mktemp("resharding")
    (folder / "tasks.json").write_text(json.dumps([asdict(task) for task in tasks()]))
    script = root / "tests" / "integration" / "resume.py"
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, cwd=root, check=False, timeout=220)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def state(folder: Path, name: str, step: int, workers: int) -> list[dict[str, Tensor]]:
    """What each worker saved after `step`."""
    return [load_file(folder / f"{name}-{step}-{rank}.safetensors") for rank in range(workers)]


def assert_same(folder: Path, one: str, other: str, workers: int) -> None:
    """Two tasks ended with the same weights, moments, and random states, to the last bit."""
    for mine, theirs in zip(state(folder, one, END, workers), state(folder, other, END, workers), strict=True):
        assert mine.keys() == theirs.keys()
        assert not [key for key in mine if not torch.equal(mine[key], theirs[key])]
    mine, theirs = (load_file(folder / f"{name}-weights.safetensors") for name in (one, other))
    assert not [key for key in mine if not torch.equal(mine[key], theirs[key])]


@pytest.mark.parametrize(("engine", "stage"), WAYS)
@pytest.mark.parametrize(("workers", "micros"), SPLITS)
def test_a_restored_run_ends_as_the_unbroken_one(folder: Path, engine: str, stage: int, workers: int, micros: int) -> None:
    name = f"{engine}{stage}-{workers}x{micros}"
    assert_same(folder, f"straight-{name}", f"second-{name}", workers)
    halves, ends = (state(folder, f"straight-{name}", step, workers) for step in (HALF, END))
    assert not [
        key for half, end in zip(halves, ends, strict=True) for key in half if "rng|" not in key and torch.equal(half[key], end[key])
    ]


@pytest.mark.parametrize(("engine", "stage"), WAYS)
@pytest.mark.parametrize(("workers", "micros"), SPLITS)
def test_a_discarded_step_leaves_no_trace(folder: Path, engine: str, stage: int, workers: int, micros: int) -> None:
    name = f"{engine}{stage}-{workers}x{micros}"
    assert_same(folder, f"discarded-{name}", f"unseen-{name}", workers)
    said = [json.loads((folder / f"discarded-{name}-{rank}.json").read_text()) for rank in range(workers)]
    assert [all(answers) for answers in zip(*said, strict=True)] == [True, False, True, True, True, True]


@pytest.mark.parametrize(("engine", "stage"), WAYS)
@pytest.mark.parametrize("workers", [1, 2])
def test_each_trained_number_is_saved_once(folder: Path, engine: str, stage: int, workers: int) -> None:
    sizes: dict[str, int] = {}
    for worker in state(folder, f"straight-{engine}{stage}-{workers}x1", END, workers):
        for key, tensor in worker.items():
            if key.endswith("|weight"):
                name = key.split("|")[1]
                sizes[name] = sizes.get(name, 0) + len(tensor)
    assert sizes == SIZES


@pytest.mark.parametrize("number", range(len(JOURNEYS)))
def test_other_workers_and_stages_go_on_within_rounding(folder: Path, number: int) -> None:
    last, workers = f"journey-{number}-2", JOURNEYS[number][-1][2]
    there = [folder / f"{last}-{END}-{rank}.safetensors" for rank in range(workers)]
    with Shards(there) as mine, Shards([folder / f"whole-{END}-0.safetensors"]) as reference:
        for name, size in SIZES.items():
            for kind in ("weight", "exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(mine.read(name, kind, 0, size), reference.read(name, kind, 0, size), atol=1e-6, rtol=0)
    mine, theirs = (load_file(folder / f"{name}-weights.safetensors") for name in (last, "whole"))
    for key in theirs:
        torch.testing.assert_close(mine[key], theirs[key], atol=1e-6, rtol=0)
