"""The course of a run, read from its events: how far it came, and what a kill cost."""

from dataclasses import dataclass
from pathlib import Path

from threephase_ray.training.accounting import Event, parse

STARTS = ("phase", "resume")  # events with which an attempt at a phase begins


def read(path: Path | None) -> list[Event]:
    """The whole lines of a file of events; a kill may have torn one."""
    return [] if path is None or not path.exists() else parse(path.read_bytes())


def last_step(events: list[Event], phase: str, kind: str = "step") -> int:
    """The last step of a phase that was reported, or of the last event of another kind."""
    return next((event["step"] for event in reversed(events) if event["event"] == kind and event["phase"] == phase), 0)


def restart(events: list[Event], position: int) -> int:
    """The number of the first event, from this one on, with which a new attempt begins; that of no event if there was none."""
    kinds = (*STARTS, "start")  # that of a driver
    return next((number for number, event in enumerate(events) if number >= position and event["event"] in kinds), len(events))


@dataclass(frozen=True)
class Cost:
    """What a kill cost: the step it came after, the steps done again, those done while a checkpoint was still under way."""

    step: int
    wasted: int
    in_flight: int
    seconds: float | None  # until the phase went on; None if all its steps were done


@dataclass
class Kill:
    """One attack on a run: when it came, counted in events and on the clock, and in which phase."""

    what: str
    phase: str
    position: int
    time: float

    def cost(self, events: list[Event]) -> Cost:
        """What it cost, once the phase is done."""
        of_phase = [(number, event) for number, event in enumerate(events) if event.get("phase") == self.phase]
        begins = next((number for number, event in of_phase if number >= self.position and event["event"] in STARTS), len(events))
        done = last_step(events[:begins], self.phase)
        taken, whole = (last_step(events[:begins], self.phase, kind) for kind in ("checkpoint", "committed"))
        in_flight = _uploading(events[:begins], self.phase, whole) + (done - taken if taken > whole else 0)
        again = next((event for number, event in of_phase if number > begins and event["event"] == "step"), None)
        if again is None:
            return Cost(done, 0, in_flight, None)
        return Cost(done, done - (again["step"] - 1), in_flight, again["time"] - self.time)


def _uploading(events: list[Event], phase: str, whole: int) -> int:
    """Steps done between the moment a checkpoint was taken and its commit; the next one waits for that."""
    marks = [(event["event"], event.get("phase"), event.get("step")) for event in events]
    commit = marks.index(("committed", phase, whole)) if whole else 0
    return max(0, last_step(events[:commit], phase) - whole)


def resumed(events: list[Event], phase: str) -> list[int]:
    """The steps from which attempts at a phase went on."""
    return [event["step"] for event in events if event["event"] == "resume" and event["phase"] == phase]
