"""What a foreman hands out: items of trials, and tasks, one for all items of a key, with their history."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from threephase_ray.training.accounting import Event

PHASE = 100  # progress of a trial in one phase
PROBE, TEST = "probe", "test"  # names of items that are no phases


@dataclass(frozen=True)
class Item:
    """A link of a trial's chain, as plain JSON: what to do, and which of its figures says how good the trial is."""

    key: str
    name: str  # the phase, `PROBE` or `TEST`
    plan: dict[str, Any]  # a `Plan`
    progress: int  # of the trial before it
    steps: int = 0  # of the phase, as planned
    figure: str | None = None  # name of the figure that is marked at each validation, larger is better


@dataclass
class Task:
    """All items of one key; its `events` are its history, of earlier lives of the driver, too."""

    item: Item
    events: list[Event]
    state: Literal["open", "taken", "done", "failed"] = "open"
    failures: int = 0
    figures: dict[str, Any] = field(default_factory=dict)  # of the finished result
    validations: dict[int, dict[str, float]] = field(default_factory=dict)  # by step, while it is under way
    reason: str = ""  # why it failed

    def note(self, event: Event) -> Event:
        """Add an event to the history; the event with its time and task."""
        whole = {"time": time.time(), "task": self.item.key, "phase": self.item.name, **event}
        self.events.append(whole)
        for each in [event] if event["event"] == "validation" else event["validations"] if event["event"] == "resume" else []:
            self.validations[int(each["step"])] = each
        return whole

    @property
    def made_for(self) -> int | None:
        """The trial that it was first taken up for; None: the store had it."""
        return next((event["trial"] for event in self.events if event["event"] == "start"), None)

    def position(self) -> dict[str, int]:
        """How far it is, for people."""
        step = next((event for event in reversed(self.events) if event["event"] in ("step", "resume", "start")), {})
        return {"step": step["step"], "steps": step["steps"]} if "step" in step else {"step": 0, "steps": self.item.steps}


def seconds(events: list[Event]) -> float:
    """Time spent on a task: from each start to the last sign of life before the next one."""
    total, began, last = 0.0, 0.0, 0.0
    for event in events:
        if event["event"] == "start":
            total, began = total + last - began, event["time"]
        last = event["time"]
    return total + last - began


def marks(item: Item, task: Task) -> Iterator[dict[str, Any]]:
    """The marks that an item gives, as far as they are known, each with its progress and score."""
    if item.figure is None:
        return
    if item.name == PROBE:
        if task.state == "done":
            kind, _, name = item.figure.partition(".")
            yield {"progress": item.progress, "score": task.figures[kind][name]}
        return
    finished = task.figures["validations"] if task.state == "done" else []
    validations = {int(each["step"]): each for each in finished} if finished else task.validations
    for step, scores in sorted(validations.items()):
        if step or not item.steps:  # before the first step nothing has gone on
            share = min(1.0, step / item.steps) if item.steps else 1.0
            yield {"progress": item.progress + int(PHASE * share), "score": scores[item.figure]}
