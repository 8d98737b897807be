"""A sweep's journal: the one truth about its trials. After a kill everything is rebuilt from it, line by line."""

from collections.abc import Iterable
from typing import Any

from threephase_ray.errors import ConfigError
from threephase_ray.results import Store
from threephase_ray.sweeps.trial import ENDED, Mark, Point, Status, Trial
from threephase_ray.training import accounting, events

Decision = str  # "go on", "stop" or "pause"


class History:
    """What the lines of a journal tell."""

    def __init__(self, lines: Iterable[dict[str, Any]]) -> None:
        self.trials: dict[int, Trial] = {}
        self.ended: list[int] = []  # in the order in which they ended
        self.marks: list[tuple[int, Mark]] = []  # likewise
        self.decisions: dict[tuple[int, str, int], Decision] = {}  # by trial, phase and progress
        self.complete: str = ""  # what was asked of the call that came to its end
        for line in lines:
            self.follow(line)

    def follow(self, event: dict[str, Any]) -> None:
        """Let the trials be as the event says."""
        match event["event"]:
            case "trial":
                self.trials[event["number"]] = Trial(event["number"], event["point"], event["keys"])
            case "mark":
                trial = self.trials[event["number"]]
                trial.marks.append(Mark(event["progress"], event["phase"], event["score"]))
                self.marks.append((trial.number, trial.marks[-1]))
                trial.probe = event["score"] if event["phase"] == "probe" else trial.probe
                trial.status = "paused" if event["decision"] == "pause" else "running"
                self.decisions[event["number"], event["phase"], event["progress"]] = event["decision"]
            case "release":
                for number in event["on"]:
                    mark = self.trials[number].marks[-1]
                    self.trials[number].status = "running"
                    self.decisions[number, mark.phase, mark.progress] = "go on"
                for number, costs in event["off"].items():
                    self._ends(int(number), {"status": "stopped", "reason": event["reason"], **costs})
            case "complete":
                self.complete = event["asked"]
            case "end":
                self._ends(event["number"], {name: event[name] for name in event if name in Trial.__dataclass_fields__})

    def _ends(self, number: int, facts: dict[str, Any]) -> None:
        """A trial is over."""
        vars(self.trials[number]).update(facts)
        self.ended.append(number)


class Journal(History):
    """The trials so far, and the file in which every change is noted before it takes effect."""

    def __init__(self, store: Store, name: str, identity: str) -> None:
        """Go on with the journal of the sweep `name`; `identity` stands for all that makes trials comparable.

        Raises:
            ConfigError: it is the journal of another sweep.
        """
        past = _lines(store, name)
        if any(event["identity"] != identity for event in past if event["event"] == "call"):
            raise ConfigError(
                f"name: the sweep {name!r} is there with other knobs: another space, metric, stopping or base\n"
                "  choose another name, or remove it from the store; more trials, limits and another machine may be asked for"
            )
        super().__init__(past)
        self.seconds = _elapsed(past)  # spent on the sweep by earlier calls
        self._log = events.Log(store, _file(name))
        self._note({"event": "call", "identity": identity})

    def add(self, number: int, point: Point, keys: dict[str, str]) -> Trial:
        """A trial that will be run; `keys`: of its phases."""
        self._note({"event": "trial", "number": number, "point": point, "keys": keys})
        return self.trials[number]

    def mark(self, number: int, mark: Mark, decision: Decision) -> None:
        """A figure of a trial, and what was decided upon it."""
        self._note({"event": "mark", "number": number, **vars(mark), "decision": decision})

    def release(self, on: Iterable[int], off: dict[int, dict[str, Any]], reason: str) -> None:
        """Of the paused trials some go on, and the others end with these costs; one line, so that it is noted whole or not at all."""
        self._note({"event": "release", "on": sorted(on), "off": {str(number): costs for number, costs in off.items()}, "reason": reason})

    def end(self, number: int, status: Status, **facts: Any) -> None:
        """How a trial ended: fields of `Trial`."""
        self._note({"event": "end", "number": number, "status": status, **facts})

    def finish(self, asked: str) -> None:
        """All that was asked for is done."""
        self._note({"event": "complete", "asked": asked})

    def unfinished(self) -> list[Trial]:
        """Trials that have not ended, in order."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.status not in ENDED]

    def close(self) -> None:
        """Bring all to the store."""
        self._log.__exit__(None, None, None)

    def _note(self, event: dict[str, Any]) -> None:
        self._log.add(event)
        self.follow(event)


def read(store: Store, name: str) -> History:
    """The journal of the sweep `name`, which may be under way; empty if there is none."""
    return History(_lines(store, name))


def _file(name: str) -> str:
    return f"sweeps/{name}/journal.jsonl"


def _lines(store: Store, name: str) -> list[dict[str, Any]]:
    """The whole lines of a journal; a kill may have torn the last."""
    return accounting.parse(events.read(store, _file(name)))


def _elapsed(past: Iterable[dict[str, Any]]) -> float:
    """Seconds between the first and the last line of each call."""
    total, began, last = 0.0, 0.0, 0.0
    for event in past:
        if event["event"] == "call":
            total, began = total + last - began, float(event["time"])
        last = float(event["time"])
    return total + last - began
