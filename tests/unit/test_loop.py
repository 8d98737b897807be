import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit import tiny_models
from tests.unit.tiny_models import CPU
from threephase_ray import phases, sampling
from threephase_ray.config import Encoder, FineTune
from threephase_ray.loader import DataSet
from threephase_ray.phases.spec import Phase
from threephase_ray.training import evaluate, loop
from threephase_ray.training.engine import Engine, PlainEngine, Settings

SETTINGS = Settings(stage=0, precision="fp32", clip=1.0, epsilon=1e-8, micros=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, DataSet]:
    """A tiny checkpoint and a data set with 40 training rows."""
    folder = tmp_path_factory.mktemp("loop")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    return encoder, tiny_models.prepared(folder, encoder)


def built(place: tuple[Encoder, DataSet], name: str = "finetune", **knobs: Any) -> Phase:
    """A phase of the tiny configuration, four steps of ten texts an epoch."""
    return phases.build(name, tiny_models.configured(place[0], **{name: {"patience": None} | knobs}), place[1])


def run(phase: Phase, **changes: Any) -> tuple[loop.Course, nn.Module, list[dict[str, Any]]]:
    """Train a phase from a fixed start."""
    events: list[dict[str, Any]] = []
    torch.manual_seed(0)
    model, course = phase.model(None), loop.Course()
    assert loop.train(tiny_models.setting(phase, model, report=events.append, **changes), course)
    return course, model, events


def scripted(phase: Phase, losses: Iterable[float]) -> Phase:
    """The phase with these figures on its validations, the smallest loss being the best."""
    figures = iter(losses)
    return replace(phase, score=lambda counts: {"loss": next(figures)}, rank=lambda scores: (-scores["loss"],))


def test_learning_rate_rises_and_falls_linearly() -> None:
    assert [loop.factor(step, 10, 0.2) for step in range(10)] == pytest.approx([1 / 3, 2 / 3, *(i / 8 for i in range(8, 0, -1))])
    assert [loop.factor(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [loop.factor(step, 4, 1.0) for step in range(4)] == [0.2, 0.4, 0.6, 0.8]
    assert loop.factor(0, 1, 0.1) == 0.5


@pytest.mark.parametrize(("steps", "share"), list(itertools.product([1, 2, 7, 100], [0.0, 0.1, 0.5, 1.0])))
def test_learning_rate_is_never_zero_nor_above_its_peak(steps: int, share: float) -> None:
    assert all(0 < loop.factor(step, steps, share) <= 1 for step in range(steps))


@pytest.mark.parametrize(
    ("steps", "validations", "points"),
    [(10, 5, {2, 4, 6, 8, 10}), (10, 3, {3, 7, 10}), (10, 1, {10}), (2, 5, {1, 2}), (1, 10, {1})],
)
def test_validation_points(steps: int, validations: int, points: set[int]) -> None:
    assert loop.validation_points(steps, validations) == points


@pytest.mark.parametrize(
    ("knobs", "expected"), [({"steps": 7}, 7), ({"epochs": 2.5}, 25), ({"epochs": 1.1}, 11), ({"epochs": 1.01}, 11), ({"epochs": 0.01}, 1)]
)
def test_steps_of_a_phase(knobs: dict[str, Any], expected: int) -> None:
    assert loop.step_count(FineTune(**knobs), steps_in_epoch=10) == expected


@pytest.mark.parametrize(
    ("batch", "unit", "workers", "micro", "expected"), [(32, 1, 2, 8, 2), (33, 1, 2, 8, 3), (16, 2, 2, 5, 4), (4, 2, 1, 1, 4)]
)
def test_micro_batches(batch: int, unit: int, workers: int, micro: int, expected: int) -> None:
    assert loop.micro_batches(batch, unit, workers, micro) == expected


@pytest.mark.parametrize(("batch", "unit", "workers", "micro"), list(itertools.product([1, 7, 32], [1, 2], [1, 3], [1, 5, 64])))
def test_no_step_needs_more_micro_batches_than_are_announced(batch: int, unit: int, workers: int, micro: int) -> None:
    visits = sampling.first_visits(np.arange(batch * unit))
    announced = loop.micro_batches(batch, unit, workers, micro)
    assert {len(sampling.share(visits, rank, workers, micro, unit)) for rank in range(workers)} == {announced}


def test_the_weights_of_the_best_validation_are_kept(place: tuple[Encoder, DataSet]) -> None:
    phase = scripted(built(place, steps=8, validations=4), [0.5, 0.2, 0.2, 0.9])
    seen: list[dict[str, Tensor]] = []

    def statistics(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return torch.zeros(1, dtype=torch.float64)

    outcome, model, events = run(replace(phase, statistics=statistics))
    assert (outcome.best_step, outcome.steps, outcome.scores) == (4, 8, {"loss": 0.2})  # of two equals the first
    assert outcome.validations == [{"step": step, "loss": loss} for step, loss in zip((2, 4, 6, 8), (0.5, 0.2, 0.2, 0.9), strict=True)]
    assert len(seen) == 4
    assert all(torch.equal(outcome.weights[name], tensor) for name, tensor in seen[1].items())
    assert not all(torch.equal(outcome.weights[name], tensor) for name, tensor in model.state_dict().items())
    assert [event["loss"] for event in events if event["event"] == "step"] == outcome.losses
    assert [event["step"] for event in events if event["event"] == "validation"] == [2, 4, 6, 8]


@pytest.mark.parametrize(("patience", "floor", "stop"), [(1, 0, 3), (2, 0, 4), (3, 0, 8), (2, 6, 7), (2, 8, 8), (None, 0, 8)])
def test_early_stopping(place: tuple[Encoder, DataSet], patience: int | None, floor: int, stop: int) -> None:
    phase = scripted(built(place, steps=8, validations=8, patience=patience, min_steps=floor), [1.0, 0.5, 0.6, 0.7, 0.4, 0.6, 0.6, 0.6])
    outcome, *_ = run(phase)
    assert outcome.steps == len(outcome.losses) == len(outcome.validations) == stop
    assert outcome.best_step == (2 if stop < 5 else 5)


def test_a_loss_that_is_no_number_ends_the_phase(place: tuple[Encoder, DataSet]) -> None:
    phase, calls = built(place, steps=4), itertools.count(1)

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return phase.loss(model, batch) * (math.nan if next(calls) == 3 else 1.0)

    with pytest.raises(loop.Diverged, match=r"finetune: the loss is nan at step 3 of 4, with the texts of rows \d+, .* and \d more"):
        run(replace(phase, loss=loss))


def test_a_gradient_that_is_no_number_ends_the_phase(place: tuple[Encoder, DataSet]) -> None:
    phase, calls = built(place, steps=4), itertools.count(1)

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        value: Tensor = phase.loss(model, batch)
        odd = sum(parameter.sum() for parameter in model.parameters()) * 0.0
        return value + torch.sqrt(odd) if next(calls) == 2 else value  # the root's slope at 0 is infinite

    with pytest.raises(loop.Diverged, match="finetune: the gradient is not finite at step 2 of 4"):
        run(replace(phase, loss=loss))


def test_a_few_such_steps_may_be_left_out(place: tuple[Encoder, DataSet]) -> None:
    phase, calls = built(place, steps=6, validations=2), itertools.count(1)

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return phase.loss(model, batch) * (math.nan if next(calls) in (2, 5) else 1.0)

    course, model, events = run(replace(phase, loss=loss), skip_nonfinite=2)
    assert (course.step, course.skipped, len(course.losses)) == (6, [2, 5], 4)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    told = [event for event in events if event["event"] == "skipped"]
    assert [event["step"] for event in told] == [2, 5]
    assert all(0 < len(event["rows"]) <= 8 for event in told)
    calls = itertools.count(1)
    with pytest.raises(loop.Diverged, match="at step 5 of 6"):
        run(replace(phase, loss=loss), skip_nonfinite=1)


class Recorder:
    """A keeper that asks for checkpoints after some steps, and for a stop after one, and notes what it is given."""

    def __init__(self, due: set[int], stop: int = 0, busy: set[int] | None = None) -> None:
        self.due, self.stop, self.busy, self.step = due, stop, busy if busy is not None else set(), 0
        self.saved: list[tuple[int, bool]] = []

    def wishes(self) -> tuple[bool, bool, bool]:
        self.step += 1
        return self.step == self.stop, self.step in self.due, self.step in self.busy

    def save(self, engine: Engine, course: loop.Course, last: bool) -> None:
        assert course.step == self.step
        self.saved.append((course.step, last))


def test_checkpoints_are_taken_when_due_unless_the_last_one_is_on_its_way(place: tuple[Encoder, DataSet]) -> None:
    keeper = Recorder(due={2, 3, 5, 8}, busy={3})
    run(built(place, steps=8), keeper=keeper)
    assert keeper.saved == [(2, False), (5, False)]  # none after the last step: the phase is about to be finished


def test_a_stop_saves_before_anything_else(place: tuple[Encoder, DataSet]) -> None:
    keeper, course = Recorder(due=set(), stop=4), loop.Course()
    phase = built(place, steps=8, validations=4)
    model = phase.model(None)
    assert not loop.train(tiny_models.setting(phase, model, keeper=keeper), course)
    assert keeper.saved == [(4, True)]
    assert [row["step"] for row in course.validations] == [2]
    assert loop.train(tiny_models.setting(phase, model), course)
    assert [row["step"] for row in course.validations] == [2, 4, 6, 8]  # the one that was put off is made up for


def test_figures_that_are_no_numbers_end_the_phase(place: tuple[Encoder, DataSet]) -> None:
    with pytest.raises(loop.Diverged, match=r"finetune: .* is nan in the validation after step 4 of 4"):
        run(scripted(built(place, steps=4, validations=2), [0.5, math.nan]))


@pytest.mark.parametrize("size", [1, 7, 40, 64])
def test_rows_come_back_in_order(place: tuple[Encoder, DataSet], size: int) -> None:
    phase, split = built(place), place[1].split("train")
    assert phase.embed is not None
    torch.manual_seed(0)
    model = phase.model(None)
    found = evaluate.per_row(phase.embed, phase, PlainEngine(model, [], CPU, SETTINGS), CPU, split, size)
    assert found.shape == (40, 16)
    with torch.no_grad():
        for row in range(0, 40, 3):
            padded = split.padded(np.array([row]))
            alone = model.embedder(torch.from_numpy(padded.tokens), torch.from_numpy(padded.present))
            np.testing.assert_allclose(found[row], alone[0].numpy(), atol=1e-5)


def test_every_epoch_reads_all_rows_in_an_order_of_its_own(place: tuple[Encoder, DataSet]) -> None:
    phase = built(place, steps=8)
    read: list[tuple[int, list[int]]] = []

    def collate(split: Any, visits: Any, step: Any, epoch: int) -> dict[str, Any]:
        read.extend([(epoch, visits[:, 0].tolist())] if epoch >= 0 else [])
        return phase.collate(split, visits, step, epoch)

    run(replace(phase, collate=collate))
    assert [epoch for epoch, _ in read] == [0] * 4 + [1] * 4
    first, second = ([row for epoch, rows in read if epoch == number for row in rows] for number in (0, 1))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


@pytest.mark.parametrize("name", ["dae", "contrastive", "finetune"])
def test_training_twice_gives_the_same_bits(place: tuple[Encoder, DataSet], name: str) -> None:
    (first, *_), (second, *_) = (run(built(place, name)) for _ in range(2))
    assert len(first.losses) == 3
    assert first.losses == second.losses
    assert first.validations == second.validations
    assert first.weights.keys() == second.weights.keys()
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_nested_batches_move_whole() -> None:
    batch = {"ids": torch.ones(2), "total": 3, "noisy": {"ids": torch.zeros(2), "total": 4}}
    moved = evaluate.to_device(batch, torch.device("meta"))
    assert moved["ids"].device.type == moved["noisy"]["ids"].device.type == "meta"
    assert (moved["total"], moved["noisy"]["total"]) == (3, 4)
