"""What every worker does: the phases of a plan one after another, then the test split. It needs a process group, but no Ray."""

import contextlib
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from threephase_ray import models, phases, pretrained, store
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.models import Classifier
from threephase_ray.phases.spec import Batch, Phase
from threephase_ray.training import loop
from threephase_ray.training.engine import DeepSpeedEngine, Engine, PlainEngine, Settings, world


@dataclass(frozen=True)
class PhaseJob:
    """One phase to train: `name` as `phases.build` knows it; `previous` the finished folder to start from."""

    name: str
    key: str
    folder: str
    previous: str | None


@dataclass(frozen=True)
class Prediction:
    """One classifier to run over the test split: `model` a finished folder, `predictions` the file to write."""

    phase: str
    model: str
    predictions: str


@dataclass(frozen=True)
class Plan:
    """All that workers are told, as plain JSON, so that a run can be replayed anywhere."""

    config: dict[str, Any]
    data: str
    events: str
    stage: int
    engine: str  # "deepspeed" or "plain"
    phases: list[dict[str, Any]]
    tests: list[dict[str, Any]]


def work(plan: Plan, device: torch.device) -> None:
    """Do the plan's phases, then its tests, on `device`. Every worker calls it; rank 0 writes."""
    pretrained.quiet()
    config, data = Config(**plan.config), DataSet(Path(plan.data))
    with _reporter(Path(plan.events)) as report:
        for job in plan.phases:
            train_phase(PhaseJob(**job), config, data, device, plan, report)
        for test in plan.tests:
            predict_test(Prediction(**test), config, data, device, report)


def train_phase(job: PhaseJob, config: Config, data: DataSet, device: torch.device, plan: Plan, report: loop.Report) -> None:
    """Train one phase and commit its folder."""
    rank, workers = world()
    torch.manual_seed(int(job.key, 16) % 2**31 + rank)
    phase = phases.build(job.name, config, data)
    started, micro = time.perf_counter(), config.compute.micro_batch
    report({"event": "phase", "phase": job.name, "key": job.key, "workers": workers, "stage": plan.stage})
    model = _model(phase, job, config)
    engine = _engine(phase, model, device, plan, config)
    if phase.fit is None:
        outcome = loop.train(phase, engine, model, device, micro, lambda event: report({"phase": job.name, **event}))
    else:
        outcome = _fit(phase, engine, model, device, micro)
    facts = _facts(engine, model, device, started) | {"phase": phase.name, "key": job.key, "stage": plan.stage, "engine": plan.engine}
    engine.close()
    if rank == 0:
        folder = store.begin(Path(job.folder))
        models.save(phase.hand_over(model), outcome.weights, folder)
        course = {name: value for name, value in vars(outcome).items() if name != "weights"}
        store.write_json(folder / "metrics.json", course | facts)
        store.write_json(folder / "config.json", plan.config)
        store.commit(folder)
    _wait_for_all()
    report({"event": "phase_end", "phase": job.name, "key": job.key, "seconds": facts["seconds"], "steps": outcome.steps, **outcome.scores})


def predict_test(job: Prediction, config: Config, data: DataSet, device: torch.device, report: loop.Report) -> None:
    """Class probabilities for the test split, as Parquet: row, label, predicted, probabilities."""
    split, phase = data.split("test"), phases.build(job.phase, config, data)
    model = models.restore(Path(job.model)).to(device)
    assert isinstance(model, Classifier)
    report({"event": "test", "phase": job.phase, "rows": len(split)})
    settings = Settings(stage=0, precision=config.compute.precision, clip=1.0, epsilon=1e-8, micros=1)
    probabilities = loop.per_row(_probabilities, phase, PlainEngine(model, [], device, settings), device, split, config.compute.micro_batch)
    if world()[0] == 0:
        names = np.array(data.label_names, dtype=object)
        columns = {"row": split.ids, "label": names[split.labels[:, -1]], "predicted": names[probabilities.argmax(axis=1)]}
        table = pa.table({**columns, "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), data.classes)})
        pq.write_table(table, job.predictions)
    _wait_for_all()


def _probabilities(model: nn.Module, batch: Batch) -> Tensor:
    """Class probabilities [b, k]."""
    return torch.softmax(model(batch["ids"], batch["mask"]).float(), dim=-1)


def _model(phase: Phase, job: PhaseJob, config: Config) -> nn.Module:
    """The phase's model, the same on all workers: rank 0's initial weights count."""
    model = phase.model(None if job.previous is None else Path(job.previous))
    if config.compute.gradient_checkpointing:
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.gradient_checkpointing_enable()
    if dist.is_initialized():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)
    return model


def _engine(phase: Phase, model: nn.Module, device: torch.device, plan: Plan, config: Config) -> Engine:
    """The engine that the plan asks for; a closed form needs neither gradients nor shards."""
    batch = phase.training.batch
    assert batch is not None
    settings = Settings(
        stage=plan.stage,
        precision=config.compute.precision,
        clip=phase.training.clip,
        epsilon=phase.training.epsilon,
        micros=loop.micro_batches(batch, phase.unit, world()[1], config.compute.micro_batch),
    )
    if phase.fit is not None:
        return PlainEngine(model, [], device, settings)
    kind = DeepSpeedEngine if plan.engine == "deepspeed" else PlainEngine
    return kind(model.to(device), phase.groups(model), device, settings)


def _fit(phase: Phase, engine: Engine, model: nn.Module, device: torch.device, micro: int) -> loop.Outcome:
    """Compute the head in closed form from the embeddings of both splits, then validate it."""
    assert phase.fit is not None
    assert phase.embed is not None
    sides = []
    for split in (phase.train, phase.validation):
        embeddings = loop.per_row(phase.embed, phase, engine, device, split, micro)
        sides.append((embeddings, split.labels[:, -1]))
    phase.fit(model, *sides)
    scores = loop.validate(phase, engine, device, micro)
    return loop.Outcome(weights=engine.weights(phase.hand_over(model)), scores=scores, validations=[{"step": 0, **scores}])


def _facts(engine: Engine, model: nn.Module, device: torch.device, started: float) -> dict[str, Any]:
    """Cost and size of a phase: seconds, memory, parameters, and each worker's bytes as the engine holds them."""
    held: list[Any] = [engine.memory()]
    if dist.is_initialized():
        held = [None] * world()[1]
        dist.all_gather_object(held, engine.memory())
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - started
    count = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())
    return {
        "seconds": seconds,
        "worker_seconds": seconds * len(held),
        "peak_memory": peak,
        "parameters": count,
        "workers": len(held),
        "held_bytes": held,
    }


@contextlib.contextmanager
def _reporter(path: Path) -> Iterator[loop.Report]:
    """Append events to `path` as JSON lines, on rank 0."""
    if world()[0] != 0:
        yield lambda event: None
        return
    with path.open("a") as file:

        def report(event: dict[str, Any]) -> None:
            file.write(json.dumps({"time": time.time(), **event}) + "\n")
            file.flush()

        yield report


def _wait_for_all() -> None:
    """A barrier, where there are several workers."""
    if dist.is_initialized():
        dist.barrier()
