"""Before anything starts: can the nodes do the job? One small task on each node that may hold workers, all at once."""

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from threephase_ray import console, pretrained
from threephase_ray.config import Config, Job
from threephase_ray.errors import JobError, ResourceError
from threephase_ray.storage import connect
from threephase_ray.training import agreement, nodes
from threephase_ray.training.agreement import Node
from threephase_ray.training.cluster import asked, holding, room, wait_for
from threephase_ray.training.nodes import Report

_SHORT = 160  # characters of an error that is not our own
_CLOCK_SECONDS = 10.0  # for the time alone
Answers = dict[str, tuple[Any, float]]  # by node: what it gave, or the error; and when that arrived


def check(config: Job, needed: int) -> None:
    """Wait for room, then have every node looked at that may hold workers, for `compute.start_timeout_s` at most.

    A node without room for a worker is left alone: what runs there is at most the driver, which looks for itself.
    `needed`: bytes that the job writes.

    Raises:
        ResourceError: all that is wrong, where, and what to do.
    """
    lines = []
    try:
        wait_for(config.compute)
    except ResourceError as error:
        lines.append(str(error))
    gpus = config.compute.use_gpu
    driver, seen = look(config)
    lines += agreement.problems(driver, seen, needed, gpus)
    agreement.refuse(lines)
    held = f"room: for {room(asked(config.compute))} worker(s) with {asked(config.compute)} each on {len(seen)} node(s)"
    for line in (held, *agreement.summary(driver, seen, gpus)):
        console.console.print(f"preflight: {line}", highlight=False, soft_wrap=True)


def space(config: Config) -> int:
    """Bytes that a run writes, roughly."""
    trained = len(config.phases) + (config.baseline is not None)
    return agreement.space(pretrained.parameter_count(config.encoder), config.checkpoint.keep, trained)


def look(config: Job) -> tuple[Report, list[Node]]:
    """The driver's own report, and those of the nodes; one that is gone by now, as Ray has noticed meanwhile, is none of them."""
    marks, gpus = f"preflight-{uuid.uuid4().hex[:12]}", config.compute.use_gpu
    driver = nodes.examine(config.store, config.scratch, marks, nodes.DRIVER, False)
    there = {node["NodeID"]: node for node in holding(asked(config.compute))}
    words = {name: (config.store, config.scratch, marks, name, gpus) for name in there}
    answers = _ask(nodes.examine, words, config.compute.start_timeout_s)
    arrived = _arrived(config.store, marks, [name for name, (answer, _) in answers.items() if _written(answer)])
    skews = _skews({name: (config.store, marks, name) for name, (answer, _) in answers.items() if isinstance(answer, Report)})
    with contextlib.suppress(JobError):
        connect(config.store, nodes.PATIENCE).remove(marks)
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    found = []
    for name, node in there.items():
        report, silence = _report(answers, name, config.compute.start_timeout_s)
        if report is None and name not in alive:
            continue
        promised = float(node["Resources"].get("GPU", 0.0))
        found.append(Node(node["NodeManagerAddress"], report, silence, name in arrived, skews.get(name, 0.0), promised))
    return driver, found


def _arrived(uri: str, marks: str, names: list[str]) -> set[str]:
    """Those of the nodes' marks that the driver can read."""
    storage, deadline = connect(uri, nodes.PATIENCE), time.monotonic() + nodes.ARRIVAL
    return {name for name in names if nodes.arrived(storage, f"{marks}/{name}", deadline)}


def _written(answer: Any) -> bool:
    """Whether a node says that it wrote its mark."""
    return isinstance(answer, Report) and not answer.refusal


def _report(answers: Answers, name: str, limit: float) -> tuple[Report | None, str]:
    """A node's report, or why there is none."""
    if name not in answers:
        return None, f"no answer within {limit:g} s"
    answer = answers[name][0]
    return (answer, "") if isinstance(answer, Report) else (None, f"the check failed there: {_last_line(answer)}")


def _skews(words: Mapping[str, tuple[Any, ...]]) -> dict[str, float]:
    """Of each node, how far its clock is surely off; asked apart from all else, so that the question takes little time."""
    sent = time.time()
    answers = _ask(nodes.leave, words, _CLOCK_SECONDS)
    told = {name: answer for name, answer in answers.items() if isinstance(answer[0], float)}
    return {name: agreement.skew(sent, clock, received) for name, (clock, received) in told.items()}


def _ask(work: Callable[..., Any], words: Mapping[str, tuple[Any, ...]], limit: float) -> Answers:
    """Call `work` on each node, by its id, with its own arguments; the answers that came in time."""
    asked_of = {}
    for name, arguments in words.items():
        there = NodeAffinitySchedulingStrategy(name, soft=False)
        task: Any = ray.remote(work).options(num_cpus=0, max_retries=0, scheduling_strategy=there, name="preflight")
        asked_of[task.remote(*arguments)] = name
    waiting, answers, deadline = list(asked_of), Answers(), time.monotonic() + limit
    while waiting and (left := deadline - time.monotonic()) > 0:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=left)
        for answer in done:
            answers[asked_of[answer]] = _value(answer), time.time()
    for late in waiting:
        ray.cancel(late, force=True)
    return answers


def _value(answer: Any) -> Any:
    """What a task gave, or the error that ended it."""
    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        return error


def _last_line(error: BaseException) -> str:
    """What an error says in the end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:_SHORT]
