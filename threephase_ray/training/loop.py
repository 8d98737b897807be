"""The one training loop: steps, validation, best weights, early stop. It names no phase."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from threephase_ray import sampling
from threephase_ray.config import Training
from threephase_ray.errors import JobError
from threephase_ray.phases.spec import Ints, Phase
from threephase_ray.training.engine import Engine, total, world
from threephase_ray.training.evaluate import to_device, validate
from threephase_ray.training.together import everyone

Report = Callable[[dict[str, Any]], None]
_NAMED = 8  # rows that a message lists


class Diverged(JobError):
    """A loss, a gradient or a figure is no longer a number."""


@dataclass
class Course:
    """How far training is and what it gave so far: all of the loop's own state, so that a checkpoint holds it as JSON, `weights` apart."""

    step: int = 0  # steps done
    steps: int = 0  # steps in all
    epoch: int = 0
    epoch_start: int = 0  # step at which the epoch began
    best_step: int = 0
    stale: int = 0  # validations since the best one
    scores: dict[str, float] = field(default_factory=dict)  # of the best validation
    losses: list[float] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)  # steps left out, for their loss or gradient was not finite
    weights: dict[str, Tensor] = field(default_factory=dict)  # the best ones, on rank 0

    def state(self) -> dict[str, Any]:
        """Everything but the weights, as plain JSON."""
        return {name: value for name, value in vars(self).items() if name != "weights"}


class Keeper(Protocol):
    """Who saves the course in the middle of a phase."""

    def wishes(self) -> tuple[bool, bool, bool]:
        """This worker's view before a step ends: a stop was asked for, a checkpoint is due, the last one is still on its way."""

    def save(self, engine: Engine, course: Course, last: bool) -> None:
        """Take a checkpoint; the `last` one is whole in the store when this returns."""


@dataclass(frozen=True)
class Setting:
    """What stays the same all along a phase."""

    name: str  # as the knobs call the phase: also "baseline"
    phase: Phase
    engine: Engine
    model: nn.Module
    device: torch.device
    micro: int  # texts in a forward pass of a worker
    report: Report
    keeper: Keeper
    skip_nonfinite: int = 0  # steps that may be left out


def step_count(training: Training, steps_in_epoch: int) -> int:
    """Optimiser steps of a phase."""
    if training.steps is not None:
        return training.steps
    return max(1, math.ceil(round(training.epochs * steps_in_epoch, 6)))  # 1.1 * 10 is a little more than 11


def micro_batches(training_batch: int, unit: int, workers: int, micro: int) -> int:
    """Micro-batches that each worker passes in a step of `training_batch` visits times `unit`."""
    own = -(-training_batch // workers) * unit
    return -(-own // max(unit, micro // unit * unit))


def factor(step: int, steps: int, warmup_share: float) -> float:
    """The learning rate's factor at step 0 ... steps - 1: linear warm-up from 0, then linear decay to 0."""
    warmup = math.ceil(warmup_share * steps)
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / (steps - warmup)


def validation_points(steps: int, validations: int) -> set[int]:
    """The numbers of finished steps after which validation comes: evenly spaced, the last step among them."""
    return {round(steps * (i + 1) / validations) for i in range(validations)} - {0}


def train(setting: Setting, course: Course) -> bool:
    """Train to the phase's end or its early stop, from wherever `course` is; false if a stop was asked for before that.

    Raises:
        Diverged: a loss, a gradient or a figure is not finite, more often than may be skipped.
    """
    phase = setting.phase
    visits = phase.steps(course.epoch)
    if course.steps == 0:
        course.steps = step_count(phase.training, len(visits))
    points = validation_points(course.steps, phase.training.validations) | ({0} if phase.fit else set())  # what was fitted may be the best
    _validate_if_due(setting, course, points)  # a stop may have come between a step and its validation
    while course.step < course.steps:
        if course.step - course.epoch_start == len(visits):
            course.epoch, course.epoch_start = course.epoch + 1, course.step
            visits = phase.steps(course.epoch)
        stop, due = take_step(setting, course, visits[course.step - course.epoch_start])
        if stop:
            setting.keeper.save(setting.engine, course, last=True)
            return False
        _validate_if_due(setting, course, points)
        if due and course.step < course.steps:
            setting.keeper.save(setting.engine, course, last=False)
    return True


def _validate_if_due(setting: Setting, course: Course, points: set[int]) -> None:
    """Validate after the steps that call for it, keep the best weights, and end the course when nothing got better for long."""
    phase, training, at = setting.phase, setting.phase.training, {"step": course.step}
    if course.step not in points or (course.validations and course.validations[-1]["step"] == course.step):
        return
    scores = validate(phase, setting.engine, setting.device, setting.micro)
    refuse_nonsense(setting.name, scores, f"in the validation after step {course.step} of {course.steps}")
    setting.report({"event": "validation", "steps": course.steps, **at, **scores})
    course.validations.append(at | scores)
    course.stale += 1
    if not course.scores or phase.rank(scores) > phase.rank(course.scores):
        course.scores, course.best_step, course.stale = scores, course.step, 0
        course.weights = setting.engine.weights(phase.hand_over(setting.model))
    if training.patience is not None and course.stale >= training.patience and course.step >= training.min_steps:
        course.steps = course.step


def refuse_nonsense(name: str, figures: dict[str, float], where: str) -> None:
    """Raise `Diverged` where a figure is not finite: nothing that follows would mean anything."""
    for figure, value in figures.items():
        if not math.isfinite(value):
            raise Diverged(f"{name}: {figure} is {value} {where}\n  lower {name}.learning_rate or .clip")


def take_step(setting: Setting, course: Course, visits: Ints) -> tuple[bool, bool]:
    """One optimiser step over `visits`, of which this worker does its share; whether all workers are to stop, and to save, after it."""
    phase, engine = setting.phase, setting.engine
    parts = own_parts(phase, visits, setting.micro)
    engine.train(True)
    values = accumulate(setting, parts, visits, course.epoch)
    odd = [part for part, value in zip(parts, values, strict=True) if not torch.isfinite(value)]
    if not odd and not engine.finite():
        odd = parts  # which text the gradient broke at cannot be told any more
    # One sum over the workers carries the loss and all that they have to agree on.
    news = [torch.stack(values).sum(), *(torch.as_tensor(float(wish)) for wish in (bool(odd), *setting.keeper.wishes()))]
    loss, broken, stop, due, busy = total(torch.stack([item.double().to(setting.device) for item in news])).tolist()
    course.step += 1
    if broken:
        _leave_out(setting, course, loss, odd)
    else:
        engine.step(factor(course.step - 1, course.steps, phase.training.warmup_share))
        course.losses.append(loss)
        setting.report({"event": "step", "step": course.step, "steps": course.steps, "loss": loss})
    return stop > 0, due > 0 and not busy


def accumulate(setting: Setting, parts: list[Ints], visits: Ints, epoch: int) -> list[Tensor]:
    """Gradients of this worker's micro-batches, and their losses."""
    phase, engine = setting.phase, setting.engine
    batches = [to_device(phase.collate(phase.train, part, visits, epoch), setting.device) for part in parts]
    if phase.whole_step is not None and phase.embed is not None and len(batches) > 1:
        embed = phase.embed
        batches = phase.whole_step(lambda batch: engine.apply(embed, batch), batches)
    values = []
    for batch in batches:
        loss = engine.apply(phase.loss, batch)
        engine.backward(loss)
        values.append(loss.detach().double())
    return values


def _leave_out(setting: Setting, course: Course, loss: float, odd: list[Ints]) -> None:
    """Forget a step whose loss or gradient is not finite, or raise `Diverged` with its rows when there were too many."""
    rows = sorted({row for some in everyone([int(row) for part in odd for row in part.reshape(-1, 2)[:, 0] if row >= 0]) for row in some})
    ids = [int(setting.phase.train.ids[row]) for row in rows]
    named = ", ".join(map(str, ids[:_NAMED])) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
    what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not finite"
    if len(course.skipped) >= setting.skip_nonfinite:
        raise Diverged(
            f"{setting.name}: {what} at step {course.step} of {course.steps}, with the texts of rows {named}\n"
            f"  lower {setting.name}.learning_rate or .clip, look at these rows, or leave out a few such steps with --skip_nonfinite"
        )
    setting.engine.discard()
    course.skipped.append(course.step)
    setting.report({"event": "skipped", "step": course.step, "steps": course.steps, "reason": what, "rows": ids[:_NAMED]})


def own_parts(phase: Phase, visits: Ints, micro: int) -> list[Ints]:
    """This worker's micro-batches of a step, filled up with padding so that all workers pass equally many."""
    rank, workers = world()
    assert phase.training.batch is not None
    parts = sampling.share(visits, rank, workers, micro, phase.unit)
    missing = micro_batches(phase.training.batch, phase.unit, workers, micro) - len(parts)
    return parts + [np.repeat(sampling.PADDING, phase.unit, axis=0)] * missing
