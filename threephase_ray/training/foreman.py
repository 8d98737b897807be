"""The foreman: which phase of which trial is trained next, by one of a few worker groups; every phase once, whoever needs it.

It is plain arithmetic on queues: all that wait ask again and again, so that one thread serves all.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from threephase_ray.training.accounting import Event
from threephase_ray.training.tasks import Item, Task, marks, seconds


@dataclass
class Entry:
    """A trial, as the foreman sees it."""

    number: int
    chain: list[Item]
    supervised: bool  # its marks are looked at one by one, and nothing new begins before that
    begun: bool = False
    over: bool = False  # stopped, or all was read
    at: int = 0  # the item it has come to
    read: int = 0  # marks of that item that were read
    waits: bool = False  # all marks so far were read


class Foreman:
    """Hands out tasks. `record` receives the events; `past`: those of an earlier life; `workers`: of a group; `retries`: of a task."""

    def __init__(self, record: Callable[[Event], None], past: Iterable[Event], workers: int, retries: int) -> None:
        self._record, self._workers, self._retries = record, workers, retries
        self._tasks: dict[str, Task] = {}
        self._entries: dict[int, Entry] = {}
        self._held: dict[int, Task] = {}  # by group
        self._groups: dict[int, float] = {}  # at work, and when they were sent for
        self._finished: dict[int, int] = {}  # tasks that a group has finished
        self._starting = 0.0  # seconds that groups took to start
        self._past: dict[str, list[Event]] = {}
        self._over = False
        for event in past:
            if "task" in event:
                self._past.setdefault(event["task"], []).append(event)

    # -- the driver's side

    def enter(self, number: int, chain: list[Item], finished: dict[str, dict[str, Any]], supervised: bool) -> None:
        """A trial that may begin; `finished`: key -> figures of what the store has. A trial that is there already stays as it is."""
        for item in chain:
            task = self._tasks.setdefault(item.key, Task(item, self._past.pop(item.key, [])))
            if item.key in finished and task.state == "open":
                task.state, task.figures = "done", finished[item.key]
        self._entries.setdefault(number, Entry(number, chain, supervised))

    def begin(self, number: int) -> None:
        """The trial has its turn."""
        self._entries[number].begun = True

    def news(self, number: int) -> dict[str, Any] | None:
        """The trial's next mark or its end, once each; None: nothing new. Who asks again has seen all that came before."""
        entry = self._entries[number]
        while entry.at < len(entry.chain):
            item = entry.chain[entry.at]
            task = self._tasks[item.key]
            known = list(marks(item, task))
            if entry.read < len(known):
                entry.read, entry.waits = entry.read + 1, False
                return {"kind": "mark", "phase": item.name, **known[entry.read - 1]}
            if task.state == "failed":
                return {"kind": "failed", "phase": item.name, "reason": task.reason, **self.withdraw(number)}
            if task.state != "done":
                entry.waits = True
                return {"kind": "halted"} if self._over else None
            entry.at, entry.read = entry.at + 1, 0
        return {"kind": "done", "figures": self._tasks[entry.chain[-1].key].figures, **self.withdraw(number)}

    def ends(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """News of those that have ended, of trials without marks."""
        found = {number: self.news(number) for number in numbers}
        return {number: news for number, news in found.items() if news is not None}

    def withdraw(self, number: int) -> dict[str, Any]:
        """The trial goes no further: nothing is done for it alone any more. Its cost, see `cost`."""
        self._entries[number].over = True
        return self.cost(number)

    def cost(self, number: int) -> dict[str, Any]:
        """Worker seconds spent for a trial, those that all it used cost, and what of that was there or made for others."""
        tasks = [self._tasks[item.key] for item in self._entries[number].chain]
        others = [task for task in tasks if task.state == "done" and task.made_for != number]
        mine = sum(seconds(task.events) for task in tasks if task.made_for == number)
        return {
            "cost": self._workers * mine,
            "alone": sum(self._worth(task) for task in tasks),
            "reused": [task.item.name for task in others],
        }

    def sent_for(self, group: int) -> None:
        """A worker group, of a number that never was before, is being started."""
        self._groups[group] = time.time()

    def lost(self, group: int, reason: str, lasting: bool) -> None:
        """A worker group ended; what it had in hand is tried again, unless that is in vain or was done too often."""
        self._groups.pop(group, None)
        task = self._held.pop(group, None)
        if task is None:
            return
        task.failures += 1
        if lasting or task.failures > self._retries:
            self._fail(task, reason)
        else:
            task.state = "open"
            self._record(task.note({"event": "retry", "reason": reason, "failures": task.failures}))

    def close(self) -> None:
        """No more work: groups end as soon as they ask, and save and stop what they have in hand."""
        self._over = True

    def status(self) -> dict[str, Any]:
        """For people and for limits: what each group has in hand, tasks it has finished; worker seconds spent on tasks and on starts."""
        held = {group: {"phase": task.item.name, "key": task.item.key, **task.position()} for group, task in self._held.items()}
        spent = self._workers * sum(map(seconds, [*self._past.values(), *(task.events for task in self._tasks.values())]))
        return {"held": held, "finished": self._finished, "worker_seconds": spent, "start_seconds": self._workers * self._starting}

    # -- a worker group's side

    def take(self, group: int, nodes: list[str]) -> dict[str, Any] | None:
        """A plan to work on; empty: ask again; None: there is no more work. `nodes`: addresses of the group's workers."""
        if self._over:
            return None
        if group not in self._finished:
            self._finished[group] = 0
            seconds = time.time() - self._groups[group]
            self._starting += seconds
            self._record({"time": time.time(), "event": "group", "group": group, "nodes": nodes, "seconds": seconds})
        number, task = next(self._choices(), (-1, None))
        if task is None:
            return {}
        task.state, self._held[group] = "taken", task
        self._record(task.note({"event": "start", "trial": number, "group": group}))
        return task.item.plan

    def tell(self, group: int, event: Event) -> None:
        """What the group says of the plan in its hand; one that was given up may still be talking."""
        if group in self._held:
            self._record(self._held[group].note(event))

    def past(self, group: int) -> list[Event]:
        """All events of the task in hand, of earlier lives, too."""
        return self._held[group].events

    def unwanted(self, group: int) -> bool:
        """Whether nobody needs what the group has in hand."""
        task = self._held.get(group)
        return self._over or (task is not None and not any(_needs(entry, task) for entry in self._entries.values()))

    def done(self, group: int, figures: dict[str, Any]) -> None:
        """The plan in hand is finished, with these figures."""
        task = self._held.pop(group)
        task.state, task.figures = "done", figures
        self._finished[group] += 1
        self._record(task.note({"event": "task_done", "seconds": seconds(task.events)}))

    def stopped(self, group: int) -> None:
        """The plan in hand was stopped and saved, since nobody needs it or the group must go."""
        self._held.pop(group).state = "open"

    def failed(self, group: int, reason: str) -> None:
        """The plan in hand cannot be finished, for a reason that lies in it."""
        self._fail(self._held.pop(group), reason)

    # -- within

    def _choices(self) -> Iterator[tuple[int, Task]]:
        """Open tasks in the order in which they are due: those that a trial waits for, then first phases of trials to come."""
        entries = sorted((entry for entry in self._entries.values() if not entry.over), key=lambda entry: entry.number)
        for entry in entries:
            if (task := self._next(entry)) is not None and task.state == "open":
                yield entry.number, task
        for entry in entries:  # nothing is known of a trial before its first mark, so it cannot be stopped before
            task = self._tasks[entry.chain[0].key]
            if not entry.begun and len(entry.chain) > 1 and task.item.figure is None and task.state == "open":
                yield entry.number, task

    def _next(self, entry: Entry) -> Task | None:
        """The task that a trial needs now; None where it must not go on yet."""
        if entry.supervised:
            return self._tasks[entry.chain[entry.at].key] if entry.begun and entry.waits else None
        tasks = [self._tasks[item.key] for item in entry.chain]
        return next((task for task in tasks if task.state != "done"), None)

    def _fail(self, task: Task, reason: str) -> None:
        task.state, task.reason = "failed", reason
        self._record(task.note({"event": "task_failed", "reason": reason}))

    def _worth(self, task: Task) -> float:
        """Worker seconds of a task, whoever spent them; a probe that was there does not say."""
        if task.made_for is not None:
            return self._workers * seconds(task.events)
        return float(task.figures["worker_seconds"]) if "worker_seconds" in task.figures else 0.0


def _needs(entry: Entry, task: Task) -> bool:
    """Whether a trial has not done without the task yet."""
    return not entry.over and any(item.key == task.item.key for item in entry.chain[entry.at :])
