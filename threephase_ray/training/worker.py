"""What every worker does: the phases of a plan one after another, then the test split. It needs a process group, but no Ray."""

import contextlib
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from threephase_ray import models, phases, pretrained
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.phases.spec import Phase
from threephase_ray.results import Store
from threephase_ray.training import accounting, evaluate, events, loop
from threephase_ray.training.engine import DeepSpeedEngine, Engine, PlainEngine, Settings, world
from threephase_ray.training.keeper import Keeper
from threephase_ray.training.plan import Desk, PhaseJob, Plan, Prediction
from threephase_ray.training.stop import Stop
from threephase_ray.training.testing import predict_test
from threephase_ray.training.together import everyone, first
from threephase_ray.training.turn import Turn


def work(plan: Plan, device: torch.device) -> bool:
    """Do the plan's phases, then its tests, on `device`; false if a stop was asked for before all was done. Every worker calls it."""
    pretrained.quiet()
    config = Config(**plan.config)
    store = Store(config.store, config.scratch)
    data = DataSet(store.fetch(plan.data))
    with _log(store, plan) as (report, past), Stop(store, plan.run) as stop:
        desk = Desk(plan, config, store, data, device, stop, report, past)
        for job in plan.phases:
            if not train_phase(PhaseJob(**job), desk):
                report({"event": "stopped"})
                return False
        for test in plan.tests:
            predict_test(Prediction(**test), desk)
    return True


def train_phase(job: PhaseJob, desk: Desk) -> bool:
    """Train one phase from where it stands, and commit its result; false if a stop was asked for before that."""
    with Turn(desk.store, job.result, desk.report) as turn:
        if turn.done:
            return True
        desk.report({"event": "phase", "phase": job.name, "key": job.key, "workers": world()[1], "stage": desk.plan.stage})
        keeper = Keeper(
            desk.store, Path(job.result).name, desk.config.checkpoint, turn.lock, _named(desk.report, job.name), desk.stop.wanted
        )
        finished = False
        try:
            finished = _train(job, desk, turn, keeper)
        finally:
            keeper.close(finished)
    return finished


def _train(job: PhaseJob, desk: Desk, turn: Turn, keeper: Keeper) -> bool:
    """Train the phase while the turn is this worker group's."""
    torch.manual_seed(int(job.key, 16) % 2**31 + world()[0])
    phase, report = phases.build(job.name, desk.config, desk.data), _named(desk.report, job.name)
    model = _model(phase, job, desk)
    engine = _engine(phase, model, desk)
    if phase.fit is None:
        course = keeper.restore(engine)
        report({"event": "resume", "step": course.step, "steps": course.steps})
        _account(desk, job, -2)
        setting = loop.Setting(
            job.name, phase, engine, model, desk.device, desk.config.compute.micro_batch, report, keeper, desk.config.skip_nonfinite
        )
        if not loop.train(setting, course):
            report({"event": "saved", "step": course.step, "steps": course.steps})
            return False
    else:
        course = _fit(phase, engine, model, desk)
    figures = _figures(engine, model, desk) | {"phase": phase.name, "key": job.key, "stage": desk.plan.stage, "engine": desk.plan.engine}
    weights = course.weights
    engine.close()
    first(lambda: _commit(job, desk, turn, phase.hand_over(model), weights, course.state() | figures))
    report({"event": "phase_end", "key": job.key, "steps": course.steps, **course.scores})
    _account(desk, job, -1)
    return True


def _commit(job: PhaseJob, desk: Desk, turn: Turn, model: nn.Module, weights: dict[str, Tensor], figures: dict[str, Any]) -> None:
    """Write the phase's result and mark it as finished."""
    folder = desk.store.attempt(job.result, turn.lock.token)
    models.save(model, weights, folder)
    made = accounting.attempts(accounting.parse(desk.past()), job.key)
    seconds = sum(attempt.end - attempt.start for attempt in made)
    cost = {"seconds": seconds, "worker_seconds": seconds * figures["workers"], "accounting": accounting.summary(made)}
    (folder / "metrics.json").write_text(json.dumps(figures | cost, indent=1, allow_nan=False))
    (folder / "config.json").write_text(json.dumps(desk.plan.config, indent=1))
    turn.lock.check()
    desk.store.commit(job.result, turn.lock.token)


def _account(desk: Desk, job: PhaseJob, which: int) -> None:
    """Report what an attempt did, wasted and cost, once that is known."""
    made = accounting.attempts(accounting.parse(desk.past()), job.key)
    if len(made) >= -which:
        desk.report({"phase": job.name, **accounting.as_event(made[which])})


def _named(report: loop.Report, name: str) -> loop.Report:
    """A report whose events carry the phase's name."""
    return lambda event: report({"phase": name, **event})


def _model(phase: Phase, job: PhaseJob, desk: Desk) -> nn.Module:
    """The phase's model, the same on all workers: rank 0's initial weights count."""
    model = phase.model(None if job.previous is None else desk.store.fetch(job.previous))
    if desk.config.compute.gradient_checkpointing:
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.gradient_checkpointing_enable()
    if dist.is_initialized():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)
    return model


def _engine(phase: Phase, model: nn.Module, desk: Desk) -> Engine:
    """The engine that the plan asks for; a closed form needs neither gradients nor shards."""
    batch = phase.training.batch
    assert batch is not None
    settings = Settings(
        stage=desk.plan.stage,
        precision=desk.config.compute.precision,
        clip=phase.training.clip,
        epsilon=phase.training.epsilon,
        micros=loop.micro_batches(batch, phase.unit, world()[1], desk.config.compute.micro_batch),
    )
    if phase.fit is not None:
        return PlainEngine(model, [], desk.device, settings)
    kind = DeepSpeedEngine if desk.plan.engine == "deepspeed" else PlainEngine
    return kind(model.to(desk.device), phase.groups(model), desk.device, settings)


def _fit(phase: Phase, engine: Engine, model: nn.Module, desk: Desk) -> loop.Course:
    """Compute the head in closed form from the embeddings of both splits, then validate it."""
    assert phase.fit is not None
    assert phase.embed is not None
    sides, device, micro = [], desk.device, desk.config.compute.micro_batch
    for split in (phase.train, phase.validation):
        embeddings = evaluate.per_row(phase.embed, phase, engine, device, split, micro)
        sides.append((embeddings, split.labels[:, -1]))
    phase.fit(model, *sides)
    scores = evaluate.validate(phase, engine, device, micro)
    return loop.Course(weights=engine.weights(phase.hand_over(model)), scores=scores, validations=[{"step": 0, **scores}])


def _figures(engine: Engine, model: nn.Module, desk: Desk) -> dict[str, Any]:
    """Size of a phase: memory, parameters, and each worker's bytes as the engine holds them."""
    held = everyone(engine.memory())
    gpu = desk.device.type == "cuda"
    return {
        "peak_memory": torch.cuda.max_memory_allocated(desk.device) if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters()),
        "workers": len(held),
        "held_bytes": held,
    }


@contextlib.contextmanager
def _log(store: Store, plan: Plan) -> Iterator[tuple[loop.Report, Callable[[], bytes]]]:
    """A function that appends events to the run's file, and one that reads them; both are idle on other ranks than 0."""
    if world()[0] != 0:
        yield lambda event: None, lambda: b""
        return
    with events.Log(store, f"{plan.run}/events.jsonl") as log:
        yield log.add, log.past
