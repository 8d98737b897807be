"""What every worker does: a plan's phases one after another, probes, then the test split. It needs a process group, but no Ray."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
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
from threephase_ray.training import accounting, evaluate, events, loop, peak
from threephase_ray.training.engine import DeepSpeedEngine, Engine, PlainEngine, Settings, world
from threephase_ray.training.fitting import fit_head
from threephase_ray.training.keeper import Keeper
from threephase_ray.training.keeping import kept
from threephase_ray.training.plan import Desk, PhaseJob, Plan, Prediction, Probe
from threephase_ray.training.probing import probe
from threephase_ray.training.stop import Stop, asked
from threephase_ray.training.testing import predict_test
from threephase_ray.training.together import everyone, first
from threephase_ray.training.turn import Turn

# Called on rank 0 with a function that gives all events so far; what it returns is shown each event, after it was written.
Watch = Callable[[Callable[[], list[accounting.Event]]], Callable[[accounting.Event], None]]


def work(
    plan: Plan,
    device: torch.device,
    watch: Watch = lambda past: lambda event: None,
    nodes: Sequence[str] = (),
    leaving: Callable[[], bool] = lambda: False,
) -> bool:
    """Do a run's plan on `device`; false if a stop was asked for before all was done. Every worker calls it.

    `nodes`: addresses of the workers' nodes, for the log; `leaving`: asked on rank 0 all the time whether the group must go.
    """
    config = Config(**plan.config)
    store = Store(config.store, config.scratch)
    with _log(store, plan, watch) as (report, past), Stop(lambda: leaving() or asked(store, plan.run)) as stop:
        if nodes:
            report({"event": "group", "nodes": [*nodes]})
        return perform(plan, device, report, past, stop.wanted)


def perform(plan: Plan, device: torch.device, report: loop.Report, past: Callable[[], bytes], stop: Callable[[], bool]) -> bool:
    """The plan's phases, probes and tests; `report` and `past`: where its events go and come from, on rank 0; see `work`."""
    pretrained.quiet()
    config = Config(**plan.config)
    store = Store(config.store, config.scratch)
    desk = Desk(plan, config, store, DataSet(store.fetch(plan.data)), device, stop, report, past)
    for job in plan.phases:
        if not train_phase(PhaseJob(**job), desk):
            report({"event": "stopped"})
            return False
    for job in plan.probes:
        probe(Probe(**job), desk)
    for job in plan.tests:
        predict_test(Prediction(**job), desk)
    return True


def train_phase(job: PhaseJob, desk: Desk) -> bool:
    """Train one phase from where it stands, and commit its result; false if a stop was asked for before that."""
    with Turn(desk.store, job.result, desk.report) as turn:
        if turn.done:
            return True
        desk.report({"event": "phase", "phase": job.name, "key": job.key, "workers": world()[1], "stage": desk.plan.stage})
        keeper = Keeper(desk.store, Path(job.result).name, desk.config.checkpoint, turn.lock, _named(desk.report, job.name), desk.stop)
        finished = False
        try:
            finished = _train(job, desk, turn, keeper)
        finally:
            keeper.close(finished)
    return finished


def _train(job: PhaseJob, desk: Desk, turn: Turn, keeper: Keeper) -> bool:
    """Train the phase while the turn is this worker group's."""
    peak.reset(desk.device)
    began = time.process_time()
    torch.manual_seed(int(job.key, 16) % 2**31 + world()[0])
    phase, report = phases.build(job.name, desk.config, desk.data), _named(desk.report, job.name)
    model = _model(phase, job, desk)
    with contextlib.closing(_engine(phase, model, desk)) as engine:
        course = _course(job, phase, engine, model, desk, keeper)
        if course is None:
            return False
        cpu = sum(everyone(time.process_time() - began))  # of this attempt
        figures = _figures(engine, model, desk) | {"phase": phase.name, "key": job.key, "cpu_seconds": cpu}
    weights, choice = kept(phase, _start(job, desk), course.weights, desk)
    first(lambda: _commit(job, desk, turn, phase.hand_over(model), weights, course.state() | figures | choice))
    report({"event": "phase_end", "key": job.key, "steps": course.steps, **course.scores, **choice})
    _account(desk, job, -1)
    return True


def _course(job: PhaseJob, phase: Phase, engine: Engine, model: nn.Module, desk: Desk, keeper: Keeper) -> loop.Course | None:
    """The whole course of the phase; None if a stop was asked for before its end."""
    if not phase.trains:
        return _untrained(phase, engine, model, desk)
    report, course = _named(desk.report, job.name), keeper.restore(engine)
    report({"event": "resume", "step": course.step, "steps": course.steps, "validations": course.validations})
    _account(desk, job, -2)
    compute = desk.config.compute
    setting = loop.Setting(job.name, phase, engine, model, desk.device, compute.micro_batch, report, keeper, desk.config.skip_nonfinite)
    if loop.train(setting, course):
        return course
    report({"event": "saved", "step": course.step, "steps": course.steps})
    return None


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


def _start(job: PhaseJob, desk: Desk) -> Path | None:
    """The finished phase that this one starts from; None: the pretrained encoder."""
    return None if job.previous is None else desk.store.fetch(job.previous)


def _model(phase: Phase, job: PhaseJob, desk: Desk) -> nn.Module:
    """The phase's model, the same on all workers: rank 0's initial weights count."""
    model = phase.model(_start(job, desk))
    if phase.fit is not None:
        fit_head(phase, model, desk)
    if desk.config.compute.gradient_checkpointing:
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                module.gradient_checkpointing_enable()
    model.to(desk.device)  # before the broadcast: NCCL takes tensors of GPUs alone
    if dist.is_initialized():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)
    return model


def _engine(phase: Phase, model: nn.Module, desk: Desk) -> Engine:
    """The engine that the plan asks for; what takes no steps needs neither gradients nor shards."""
    batch = phase.training.batch
    assert batch is not None
    settings = Settings(
        stage=desk.plan.stage,
        precision=desk.config.compute.precision,
        clip=phase.training.clip,
        epsilon=phase.training.epsilon,
        micros=loop.micro_batches(batch, phase.unit, world()[1], desk.config.compute.micro_batch),
    )
    if not phase.trains:
        return PlainEngine(model, [], desk.device, settings)
    kind = DeepSpeedEngine if desk.plan.engine == "deepspeed" else PlainEngine
    return kind(model.to(desk.device), phase.groups(model), desk.device, settings)


def _untrained(phase: Phase, engine: Engine, model: nn.Module, desk: Desk) -> loop.Course:
    """The course of a phase that takes no steps, for its head was fitted: a validation."""
    scores = evaluate.validate(phase, engine, desk.device, desk.config.compute.micro_batch)
    return loop.Course(weights=engine.weights(phase.hand_over(model)), scores=scores, validations=[{"step": 0, **scores}])


def _figures(engine: Engine, model: nn.Module, desk: Desk) -> dict[str, Any]:
    """Size of a phase: memory, parameters, and each worker's bytes as the engine holds them."""
    held = everyone(engine.memory())
    return {
        "stage": desk.plan.stage,
        "engine": desk.plan.engine,
        "peak_memory": peak.memory(desk.device),
        "parameters": sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters()),
        "workers": len(held),
        "held_bytes": held,
    }


@contextlib.contextmanager
def _log(store: Store, plan: Plan, watch: Watch) -> Iterator[tuple[loop.Report, Callable[[], bytes]]]:
    """A function that appends events to the run's file, and one that reads them; both are idle on other ranks than 0."""
    if world()[0] != 0:
        yield lambda event: None, lambda: b""
        return
    with events.Log(store, f"{plan.run}/events.jsonl") as log:
        see = watch(lambda: accounting.parse(log.past()))

        def report(event: accounting.Event) -> None:
            log.add(event)
            see(event)

        yield report, log.past
