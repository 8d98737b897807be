"""The one training loop: steps, validation, best weights, early stop. It names no phase."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray import losses, sampling
from threephase_ray.config import JobError, Training
from threephase_ray.loader import Split
from threephase_ray.phases.spec import Batch, Ints, Phase
from threephase_ray.training.engine import Engine, total, world

Report = Callable[[dict[str, Any]], None]


class Diverged(JobError):
    """The loss is no longer a number."""


@dataclass
class Outcome:
    """What training gave: the best weights (on rank 0), their figures, and the course."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)


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


def train(phase: Phase, engine: Engine, model: nn.Module, device: torch.device, micro: int, report: Report) -> Outcome:
    """Train `phase` to its end or its early stop, and return the best weights by validation.

    Raises:
        Diverged: a loss or a figure is not finite.
    """
    training = phase.training
    assert training.batch is not None
    outcome = Outcome()
    epoch, steps = 0, phase.steps(0)
    outcome.steps = count = step_count(training, len(steps))
    micros = micro_batches(training.batch, phase.unit, world()[1], micro)
    points, best, stale, start = validation_points(count, training.validations), None, 0, 0
    for step in range(count):
        if step - start == len(steps):
            epoch, start = epoch + 1, step
            steps = phase.steps(epoch)
        visits = steps[step - start]
        loss = take_step(phase, engine, device, visits, epoch, (micro, micros), factor(step, count, training.warmup_share))
        refuse_nonsense(phase, {"the loss": loss}, f"at step {step + 1} of {count}")
        outcome.losses.append(loss)
        report({"event": "step", "step": step + 1, "steps": count, "loss": loss})
        if step + 1 in points:
            scores = validate(phase, engine, device, micro)
            refuse_nonsense(phase, scores, f"in the validation after step {step + 1} of {count}")
            outcome.validations.append({"step": step + 1, **scores})
            report({"event": "validation", "step": step + 1, "steps": count, **scores})
            stale += 1
            if best is None or phase.rank(scores) > best:
                best, stale = phase.rank(scores), 0
                outcome.scores, outcome.best_step = scores, step + 1
                outcome.weights = engine.weights(phase.hand_over(model))
            if training.patience is not None and stale >= training.patience and step + 1 >= training.min_steps:
                outcome.steps = step + 1
                break
    return outcome


def refuse_nonsense(phase: Phase, figures: dict[str, float], where: str) -> None:
    """Raise `Diverged` where a figure is not finite: nothing that follows would mean anything."""
    for name, value in figures.items():
        if not math.isfinite(value):
            raise Diverged(f"{phase.name}: {name} is {value} {where}\n  lower {phase.name}.learning_rate or .clip")


def take_step(
    phase: Phase, engine: Engine, device: torch.device, visits: Ints, epoch: int, micro: tuple[int, int], rate_factor: float
) -> float:
    """One optimiser step over `visits`, of which this worker does its share; the loss of the whole step."""
    rank, workers = world()
    size, count = micro
    engine.train(True)
    parts = sampling.share(visits, rank, workers, size, phase.unit)
    parts += [np.repeat(sampling.PADDING, phase.unit, axis=0)] * (count - len(parts))
    batches = [to_device(phase.collate(phase.train, part, visits, epoch), device) for part in parts]
    if phase.whole_step is not None and phase.embed is not None and len(batches) > 1:
        embed = phase.embed
        batches = phase.whole_step(lambda batch: engine.apply(embed, batch), batches)
    values = []
    for batch in batches:
        loss = engine.apply(phase.loss, batch)
        engine.backward(loss)
        values.append(loss.detach().double())
    engine.step(rate_factor)
    return float(total(torch.stack(values).sum()))


@torch.no_grad()
def validate(phase: Phase, engine: Engine, device: torch.device, micro: int) -> dict[str, float]:
    """The phase's figures on validation: counts are summed over all workers, whatever their shares."""
    engine.train(False)
    counts = torch.zeros(1, dtype=torch.float64, device=device)
    for part, step in own_checks(phase, micro):
        batch = to_device(phase.collate(phase.validation, part, step, -1), device)
        counts = counts + engine.apply(phase.statistics, batch)
    return phase.score(total(counts).cpu().numpy())


def own_checks(phase: Phase, micro: int) -> list[tuple[Ints, Ints]]:
    """This worker's part of the validation steps, each with the whole step; equally many on all workers, for ZeRO 3's sake."""
    rank, workers = world()
    steps = phase.checks()
    if not phase.gathers:
        return [(part, step) for step in steps for part in sampling.share(step, rank, workers, micro)]
    mine = steps[rank::workers]
    idle = -(-len(steps) // workers) - len(mine)
    return [(step, step) for step in mine] + [(np.repeat(sampling.PADDING, 2, axis=0), steps[0])] * idle


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch's tensors, nested ones too, on `device`."""
    return {
        name: to_device(value, device) if isinstance(value, dict) else value.to(device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


@torch.no_grad()
def per_row(
    function: Callable[[nn.Module, Batch], Tensor], phase: Phase, engine: Engine, device: torch.device, split: Split, size: int
) -> NDArray[np.float32]:
    """`function`'s rows [n, c] for all rows of `split` in order, on every worker."""
    rank, workers = world()
    engine.train(False)
    parts = []
    for step in sampling.in_order(len(split), size * workers):
        (visits,) = sampling.share(step, rank, workers, size)
        rows = engine.apply(function, to_device(phase.collate(split, visits, step, -1), device)).float()
        everyone = losses.gather(rows)
        parts.append(everyone[: len(step)].cpu().numpy())
    return np.concatenate(parts)
