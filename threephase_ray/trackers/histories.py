"""What trackers are told of a run, read off its events and its results, and off nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from threephase_ray.training.accounting import Event, Speed

_COSTS = ("steps", "best_step", "seconds", "worker_seconds", "cpu_seconds", "peak_memory", "parameters", "workers")
_NO_SCORES = ("time", "step", "steps")


@dataclass(frozen=True)
class Row:
    """A step of a phase: its figures, and when it was done (unix time)."""

    step: int
    time: float
    figures: dict[str, float]


class Histories:
    """The rows of each phase: every step once, in order, though workers that were killed do some again.

    A row is given when no figure can come to it any more, and the first time that a step was done counts. So what was given once stays
    as it is, whatever is appended to the log: it may be sent at once to those who cannot take it back.
    """

    def __init__(self) -> None:
        self._key, self._speed = "", Speed()
        self._open: dict[str, Row] = {}  # by the key of the phase
        self._last: dict[str, int] = {}  # the last step that was given

    @property
    def trained(self) -> set[str]:
        """The keys of the phases at which this run was at work."""
        return set(self._last)

    def add(self, events: Iterable[Event]) -> dict[str, list[Row]]:
        """The rows that the next events of the log bring, by the key of their phase."""
        rows: dict[str, list[Row]] = {}
        for event in events:
            rows.setdefault(self._key, []).extend(self._take(event))
        return {key: given for key, given in rows.items() if given}

    def _take(self, event: Event) -> Iterable[Row]:
        """The row that is whole now, if any."""
        kind, now = event["event"], float(event["time"])
        if kind == "phase":
            self._key = event["key"]
            self._last.setdefault(self._key, -1)
        if kind in ("phase", "resume"):
            self._speed.restart()
        if kind == "step":
            speed = self._speed.step(now)
            return self._put(event["step"], now, {"loss": event["loss"]} | ({} if speed is None else {"steps_per_second": speed}))
        if kind == "validation":
            scores = numbers({name: value for name, value in event.items() if name not in _NO_SCORES}, "validation/")
            return self._put(event["step"], now, scores)
        return self._close() if kind == "phase_end" else ()

    def _put(self, step: int, now: float, figures: dict[str, float]) -> Iterable[Row]:
        """Add figures to a step, unless they are there: then it was done again."""
        row = self._open.get(self._key)
        if row is not None and row.step == step:
            self._open[self._key] = Row(step, row.time, figures | row.figures)
        elif step > (self._last.get(self._key, -1) if row is None else row.step):
            closed = self._close()
            self._open[self._key] = Row(step, now, figures)
            return closed
        return ()

    def _close(self) -> Iterable[Row]:
        """The row that was open."""
        if self._key not in self._open:
            return ()
        row = self._open.pop(self._key)
        self._last[self._key] = row.step
        return (row,)


@dataclass(frozen=True)
class Outcome:
    """The final figures of the whole run, and of its phases."""

    run: dict[str, float]
    phases: dict[str, dict[str, float]]


def outcome(results: dict[str, Any]) -> Outcome:
    """The figures of `results.json`: scores on the split that was predicted, and each phase's best scores and cost."""
    splits = [name for name in results if name.removeprefix("baseline_") in ("test", "validation")]
    run = {name: value for split in splits for name, value in numbers(results[split], f"{split}/").items()}
    named = [("baseline" if row is results["baseline"] else row["phase"], row) for row in [*results["phases"], results["baseline"]] if row]
    return Outcome(run | {"goodput": results["goodput"]}, {name: _of_phase(row) for name, row in named})


def _of_phase(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a finished phase."""
    costs = {name: row[name] for name in _COSTS if name in row} | {"goodput": row["accounting"]["goodput"]}
    return numbers(row["scores"], "best/") | numbers(costs, "cost/")


def numbers(figures: dict[str, Any], prefix: str) -> dict[str, float]:
    """Those that are numbers."""
    return {f"{prefix}{name}": float(value) for name, value in figures.items() if type(value) in (int, float)}
