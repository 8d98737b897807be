"""A worker group's shift: it takes plans from the foreman, one after another, until there are no more."""

import gc
import json
import time
from typing import Any, Protocol

import torch

from threephase_ray.config import Config
from threephase_ray.results import Store
from threephase_ray.training.accounting import Event
from threephase_ray.training.engine import world
from threephase_ray.training.loop import Diverged
from threephase_ray.training.plan import Plan
from threephase_ray.training.stop import Stop
from threephase_ray.training.together import first
from threephase_ray.training.worker import perform

_SHORTEST, _LONGEST = 0.02, 0.5  # seconds between two questions for work; the longer there was none, the longer


class Line(Protocol):
    """A group's line to its foreman (see `foreman.Foreman`), used by rank 0."""

    def take(self) -> dict[str, Any] | None:
        """A plan; empty: ask again; None: there is no more work."""

    def tell(self, event: Event) -> None:
        """Report an event; may return before it has arrived."""

    def past(self) -> list[Event]:
        """All events of the plan in hand."""

    def unwanted(self) -> bool:
        """Whether to save the plan in hand and put it down: nobody needs it any more, or the group must go."""

    def done(self, figures: dict[str, Any]) -> None:
        """It is finished."""

    def stopped(self) -> None:
        """It was stopped."""

    def failed(self, reason: str) -> None:
        """It cannot be finished."""


def work(line: Line, device: torch.device) -> int:
    """Do plans until there are no more; their number. Every worker of the group calls it."""
    count = 0
    while (plan := first(lambda: _next(line))) is not None:
        count += 1
        finish(Plan(**plan), line, device)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return count


def _next(line: Line) -> dict[str, Any] | None:
    """Wait for the next plan."""
    pause = _SHORTEST
    while (plan := line.take()) == {}:
        time.sleep(pause)
        pause = min(_LONGEST, 1.2 * pause)
    return plan


def finish(plan: Plan, line: Line, device: torch.device) -> None:
    """Do one plan, and say how it ended. What is wrong with the plan itself ends only the plan, for all workers notice it alike."""
    mine = world()[0] == 0

    def report(event: Event) -> None:
        if mine:
            line.tell(event)

    def past() -> bytes:
        return b"".join(json.dumps(event).encode() + b"\n" for event in line.past()) if mine else b""

    with Stop(line.unwanted) as stop:
        try:
            whole = perform(plan, device, report, past, stop.wanted)
        except Diverged as error:
            whole, reason = False, str(error)
        else:
            reason = ""
    if not mine:
        return
    if reason:
        line.failed(reason)
    elif whole:
        line.done(figures(plan))
    else:
        line.stopped()


def figures(plan: Plan) -> dict[str, Any]:
    """What the plan's last phase or probe left in the store, without what there is one of for each step."""
    config = Config(**plan.config)
    return known(Store(config.store, config.scratch), plan)


def is_finished(store: Store, plan: Plan) -> bool:
    """Whether the store has all that the plan makes."""
    files = [job[part] for jobs, part in ((plan.probes, "result"), (plan.tests, "predictions")) for job in jobs]
    return all(store.is_finished(job["result"]) for job in plan.phases) and all(name in store.storage.sizes(name) for name in files)


def known(store: Store, plan: Plan) -> dict[str, Any]:
    """The figures of a plan that is finished."""
    if plan.probes:
        found: dict[str, Any] = store.read_json(plan.probes[-1]["result"])
        return found
    if plan.tests:
        return {}
    result = plan.phases[-1]["result"]
    manifest = store.manifest(result)
    assert manifest is not None
    found = store.read_json(f"{result}/{manifest.attempt}/metrics.json")
    return {name: value for name, value in found.items() if name not in ("losses", "held_bytes")}
