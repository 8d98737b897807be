"""A head that is fitted to the embeddings, before the first step or in place of all steps."""

import numpy as np
from torch import nn

from threephase_ray.loader import Split
from threephase_ray.phases.spec import Ints, Phase
from threephase_ray.training import evaluate
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.plan import Desk
from threephase_ray.training.probing import labelled


def fit_head(phase: Phase, model: nn.Module, desk: Desk) -> None:
    """Let the phase set the head of `model` by the embeddings of both splits; every worker calls it."""
    assert phase.fit is not None
    assert phase.embed is not None
    settings = Settings(stage=0, precision=desk.config.compute.precision, clip=1.0, epsilon=1e-8, micros=1)
    engine, sides = PlainEngine(model, [], desk.device, settings), []
    for split in (phase.train, phase.validation):
        rows = rows_to_fit(phase, split, desk.config.seed)
        embeddings = evaluate.per_row(phase.embed, phase, engine, desk.device, split, desk.config.compute.micro_batch, rows)
        sides.append((embeddings, split.labels[rows, -1]))
    phase.fit(model, *sides)


def rows_to_fit(phase: Phase, split: Split, seed: int) -> Ints:
    """All rows, or where steps follow some thousands of those with a label, as a probe takes them: that is start enough."""
    return labelled(split, seed) if phase.trains else np.arange(len(split))
