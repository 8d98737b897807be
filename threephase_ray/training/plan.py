"""What workers are told, and what they have at hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.results import Store
from threephase_ray.storage import connect
from threephase_ray.training.loop import Report


@dataclass(frozen=True)
class PhaseJob:
    """One phase to train: `name` as `phases.build` knows it; `result` and `previous` are names in the store."""

    name: str
    key: str
    result: str
    previous: str | None


@dataclass(frozen=True)
class Prediction:
    """One classifier to run over a split: `model` a finished phase's name in the store, `predictions` the file to write."""

    phase: str
    model: str
    predictions: str
    split: str = "test"


@dataclass(frozen=True)
class Probe:
    """What embeddings are worth on validation: of a finished phase, `model` its name in the store, or of the pretrained encoder (None).

    `result`: the JSON file to write; some of the embeddings lie beside it.
    """

    model: str | None
    result: str


@dataclass(frozen=True)
class Plan:
    """All that workers are told, as plain JSON, so that a run can be replayed anywhere."""

    config: dict[str, Any]
    data: str  # name in the store
    run: str  # name in the store
    stage: int
    engine: str  # "deepspeed" or "plain"
    phases: list[dict[str, Any]]
    tests: list[dict[str, Any]]
    probes: list[dict[str, Any]] = field(default_factory=list)


def told(config: Config) -> dict[str, Any]:
    """The configuration for a plan: Ray Train has workers in folders of their own, where the driver's relative paths lead elsewhere."""
    made = config.model_dump(mode="json") | {"store": connect(config.store).uri}
    if (folder := Path(config.encoder.path)).is_dir():
        made["encoder"] |= {"path": str(folder.absolute())}
    return made


@dataclass(frozen=True)
class Desk:
    """What a worker has at hand for all of a plan."""

    plan: Plan
    config: Config
    store: Store
    data: DataSet
    device: torch.device
    stop: Callable[[], bool]  # whether to save and stop
    report: Report
    past: Callable[[], bytes]  # the events so far
