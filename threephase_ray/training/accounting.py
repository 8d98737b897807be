"""What each attempt at a phase cost and lost, read off the run's events."""

import contextlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

Event = dict[str, Any]
_FROM_OUTSIDE = ("start", "retry", "group")  # events that are no sign of life of a phase's workers
_WINDOW = 20  # steps over which the speed is taken


class Speed:
    """Optimiser steps a second, over the last 20."""

    def __init__(self) -> None:
        self._moments = deque[float](maxlen=_WINDOW + 1)

    def restart(self) -> None:
        """What comes now did not follow at once on what was before."""
        self._moments.clear()

    def step(self, now: float) -> float | None:
        """The speed after one step more, done at `now` in seconds; None after the first one."""
        self._moments.append(now)
        passed = now - self._moments[0]
        return (len(self._moments) - 1) / passed if passed > 0 else None


@dataclass
class Attempt:
    """One attempt of a worker group at a phase; times in seconds."""

    start: float  # unix time: last sign of life of the attempt before, or the start of this one's driver
    end: float  # unix time of its last event
    from_step: int = 0  # where it went on
    to_step: int = 0  # how far it came
    first_step: float = 0.0  # unix time at which its first step was done; 0: never
    steps_done: int = 0
    steps_wasted: int = 0  # done again by the attempt that followed
    recovery_seconds: float = 0.0  # from the failure, or the start of the driver, to the first step done
    checkpoint_stall: float = 0.0  # seconds that training stood still for checkpoints
    checkpoints: int = 0

    @property
    def wasted_seconds(self) -> float:
        """Time of the steps that were done again."""
        stepping = self.end - self.first_step if self.first_step else 0.0
        return stepping * self.steps_wasted / max(1, self.steps_done)


def parse(lines: bytes) -> list[Event]:
    """The events of a log; a line that was cut off by a kill is left out."""
    events = []
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


def attempts(events: Iterable[Event], key: str) -> list[Attempt]:
    """The attempts at the phase with this key, in order; the last one may be under way."""
    made: list[Attempt] = []
    current, alive, ended = "", 0.0, False
    for event in events:
        kind, now = event["event"], float(event["time"])
        if kind == "phase":
            current = event["key"]
            if current == key:
                made = [] if ended else made  # it was finished once, removed from the store, and is trained anew
                made.append(Attempt(alive if made else now, now))
                ended = False
        elif current == key and made and kind not in _FROM_OUTSIDE:
            _follow(made, kind, event, now)
            ended = ended or kind == "phase_end"
        alive = alive if kind in ("retry", "group") else now
    return made


def _follow(made: list[Attempt], kind: str, event: Event, now: float) -> None:
    """Enter one event of the last attempt."""
    attempt = made[-1]
    attempt.end = now
    if kind == "resume":
        attempt.from_step = attempt.to_step = event["step"]
        if len(made) > 1:
            before = made[-2]
            before.steps_wasted = min(before.steps_done, max(0, before.to_step - attempt.from_step))
    elif kind in ("step", "skipped"):
        attempt.to_step, attempt.steps_done = event["step"], attempt.steps_done + 1
        if not attempt.first_step:
            attempt.first_step = now
            attempt.recovery_seconds = now - attempt.start if len(made) > 1 else 0.0
    elif kind == "checkpoint":
        attempt.checkpoint_stall += event["stall"]
        attempt.checkpoints += 1


def summary(made: list[Attempt]) -> dict[str, Any]:
    """Sums over the attempts; `goodput` is the share of the time that brought the phase forward."""
    total = sum(attempt.end - attempt.start for attempt in made)
    lost = sum(attempt.wasted_seconds + attempt.recovery_seconds + attempt.checkpoint_stall for attempt in made)
    return {
        "attempts": len(made),
        "steps_done": sum(attempt.steps_done for attempt in made),
        "steps_wasted": sum(attempt.steps_wasted for attempt in made),
        "recovery_seconds": sum(attempt.recovery_seconds for attempt in made),
        "checkpoint_stall": sum(attempt.checkpoint_stall for attempt in made),
        "checkpoints": sum(attempt.checkpoints for attempt in made),
        "total_seconds": total,
        "lost_seconds": lost,
        "goodput": goodput(total, lost),
    }


def goodput(total: float, lost: float) -> float:
    """The share of the time that was not lost."""
    return max(0.0, 1.0 - lost / total) if total > 0 else 1.0


def as_event(attempt: Attempt) -> Event:
    """An attempt as an event of its own."""
    facts = asdict(attempt)
    del facts["start"], facts["end"], facts["first_step"]
    return {"event": "attempt", **facts, "seconds": attempt.end - attempt.start}
