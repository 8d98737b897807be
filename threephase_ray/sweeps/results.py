"""What a sweep leaves behind: a row for each trial, the order of its points, and what sharing phases saved."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from threephase_ray.sweeps.trial import Point, Trial


@dataclass(frozen=True)
class Place:
    """Trials that differ in nothing but their seed, all of them done."""

    trials: tuple[Trial, ...]
    score: float  # mean over the trials
    cost: float  # worker seconds, mean over the trials

    @property
    def first(self) -> Trial:
        """The trial with the smallest number."""
        return self.trials[0]


def without_seed(point: Point) -> Point:
    """What a point sets beside the seed."""
    return {knob: value for knob, value in point.items() if knob != "seed"}


def ranking(trials: Iterable[Trial]) -> list[Place]:
    """Points from the best to the worst; ties go to the smaller cost, then to the smaller number.

    Trials that differ in their seed alone are one place, which counts once all of them are done.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        groups.setdefault(json.dumps(without_seed(trial.point), sort_keys=True), []).append(trial)
    places = [place for group in groups.values() if (place := _place(group)) is not None]
    return sorted(places, key=lambda place: (-place.score, place.cost, place.first.number))


def _place(group: Sequence[Trial]) -> Place | None:
    """The mean of a group; None unless all of it is done."""
    scores = [score for score, _ in finished(group)]
    if len(scores) < len(group):
        return None
    return Place(tuple(group), fmean(scores), fmean(trial.cost for trial in group))


def best(trials: Iterable[Trial]) -> Trial | None:
    """The trial of the best point, of several seeds the one with the smallest number; None while no point is done."""
    places = ranking(trials)
    return places[0].first if places else None


def finished(trials: Iterable[Trial]) -> list[tuple[float, Trial]]:
    """The trials that are done, each with its score."""
    return [(trial.score, trial) for trial in trials if trial.status == "done" and trial.score is not None]


class Sharing(NamedTuple):
    """What phases cost, and what they would have cost had each trial trained its own."""

    trained: int  # phases, whole or in part
    trials: int  # that came to train or reuse a phase
    reused: int  # phases that a trial did not have to train
    cost: float  # worker seconds
    alone: float  # worker seconds

    @property
    def ratio(self) -> float | None:
        """How many times cheaper it was; None where it cost nothing."""
        return self.alone / self.cost if self.cost > 0 else None

    def __str__(self) -> str:
        """One line."""
        times = "" if self.ratio is None else f" ({self.ratio:.1f} times cheaper)"
        return (
            f"{self.trained} phases trained for {self.trials} trials; {self.reused} reused: "
            f"{self.cost:,.0f} worker seconds instead of {self.alone:,.0f}{times}"
        )


def sharing(trials: Sequence[Trial]) -> Sharing:
    """What the trials had in common."""
    own = {trial.keys[phase] for trial in trials for phase in reached(trial) if phase not in trial.reused}
    return Sharing(
        trained=len(own),
        trials=sum(bool(reached(trial)) for trial in trials),
        reused=sum(len(trial.reused) for trial in trials),
        cost=sum(trial.cost for trial in trials),
        alone=sum(trial.alone for trial in trials),
    )


def reached(trial: Trial) -> list[str]:
    """The phases that a trial has done or begun, as far as its marks tell."""
    if trial.status == "done":
        return list(trial.keys)
    progress = max((mark.progress for mark in trial.marks), default=0)
    begun = list(trial.keys)[: -(-progress // 100)]  # half a phase counts
    return [phase for phase in trial.keys if phase in begun or phase in trial.reused]


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """The sweep in a few figures, all plain JSON."""
    places, shared = ranking(trials), sharing(trials)
    return {
        "best": _told(places[0]) if places else None,
        "trials": dict(Counter(trial.status for trial in trials)),
        "phases": {"trained": shared.trained, "reused": shared.reused},
        "worker_seconds": {"spent": shared.cost, "without_sharing": shared.alone, "ratio": shared.ratio},
    }


def _told(place: Place) -> dict[str, Any]:
    """A place as plain JSON."""
    point: Point = json.loads(json.dumps(place.first.point))  # tuples become lists
    seeds = [trial.point["seed"] for trial in place.trials if "seed" in trial.point]
    numbers = [trial.number for trial in place.trials]
    return {"trials": numbers, "point": without_seed(point), "score": place.score, "seeds": seeds}


def parquet(trials: Sequence[Trial]) -> bytes:
    """A Parquet file with a row for each trial; a knob's column is null where the knob does not count."""
    columns = {"number": pa.array([trial.number for trial in trials], pa.int64()), "status": _texts(trial.status for trial in trials)}
    columns |= {knob: column([trial.point.get(knob) for trial in trials]) for knob in knobs(trials)}
    columns |= {name: _floats(getattr(trial, name) for trial in trials) for name in ("score", "probe")}
    for name in _names(trial.scores for trial in trials):
        columns[f"validation_{name}"] = _floats(trial.scores.get(name) for trial in trials)
    for phase in _names(trial.keys for trial in trials):
        columns[f"key_{phase}"] = _texts(trial.keys.get(phase) for trial in trials)
    columns["reused"] = pa.array([trial.reused for trial in trials], pa.list_(pa.string()))
    columns |= {name: _floats(getattr(trial, name) for trial in trials) for name in ("cost", "alone")}
    columns["reason"] = _texts(trial.reason for trial in trials)
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def read(parquet: bytes) -> list[dict[str, Any]]:
    """The rows of such a file, by column."""
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(parquet)).to_pylist()
    return rows


def column(values: Sequence[Any]) -> pa.Array:
    """A knob's values in the narrowest type that holds them all; values of several types become text, as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and float in kinds:
        return _floats(None if value is None else float(value) for value in values)
    if kinds <= {list, tuple} and kinds:
        return pa.array([None if value is None else [str(part) for part in value] for value in values], pa.list_(pa.string()))
    if kinds in ({bool}, {int}):
        return pa.array(values, pa.bool_() if bool in kinds else pa.int64())
    return _texts(value if value is None or kinds == {str} else json.dumps(value) for value in values)


def knobs(trials: Iterable[Trial]) -> list[str]:
    """The dotted knobs that the trials set, and "configs", in the order in which they first occur."""
    return _names(trial.point for trial in trials)


def _names(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """All names, in the order in which they first occur."""
    return list(dict.fromkeys(name for part in parts for name in part))


def _texts(values: Iterable[str | None]) -> pa.Array:
    """A column of texts."""
    return pa.array(list(values), pa.string())


def _floats(values: Iterable[float | None]) -> pa.Array:
    """A column of numbers."""
    return pa.array(list(values), pa.float64())
