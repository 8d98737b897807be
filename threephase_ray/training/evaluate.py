"""What a model says without training: validation, and a function over all rows of a split."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray import losses, sampling
from threephase_ray.loader import Split
from threephase_ray.phases.spec import Batch, Ints, Phase
from threephase_ray.training.engine import Engine, total, world


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
    function: Callable[[nn.Module, Batch], Tensor],
    phase: Phase,
    engine: Engine,
    device: torch.device,
    split: Split,
    size: int,
    rows: Ints | None = None,
) -> NDArray[np.float32]:
    """`function`'s rows [n, c] for `rows` of `split`, or all, in order, on every worker. Texts of like length are passed together."""
    rank, workers = world()
    engine.train(False)
    parts, rows = [], np.arange(len(split)) if rows is None else rows
    order = np.argsort(split.lengths[rows], kind="stable")
    for step in sampling.in_order(rows[order], size * workers):
        (visits,) = sampling.share(step, rank, workers, size)
        values = engine.apply(function, to_device(phase.collate(split, visits, step, -1), device)).float()
        everyone = losses.gather(values)
        parts.append(everyone[: len(step)].cpu().numpy())
    found = np.concatenate(parts)
    return found[np.argsort(order)]
