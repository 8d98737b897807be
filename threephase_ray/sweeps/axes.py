"""One axis of a sweep's space: its values or its range in the knob's own type, and when it counts."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from threephase_ray.config import Config
from threephase_ray.knobs import Knob, catalogue
from threephase_ray.mistakes import in_words, unknown
from threephase_ray.sweeping import Axis

KNOWN = catalogue(Config)
FILES = "configs"  # the axis whose values are files with knobs
_MACHINE = "belongs to the machine and changes no result"
_REFUSED = {
    "name": "is that of the sweep and changes no result",
    "store": "is where results are kept and changes none",
    "scratch": "is where results are copied to and changes none",
    "compute": _MACHINE,
    "checkpoint": _MACHINE,
    "data.shard_rows": _MACHINE,
    "skip_nonfinite": "lets damaged steps pass and changes no sound result",
    "baseline": "is not part of a trial",
    "probe": "looks at what was trained and changes no result",
    "calibrate": "changes probabilities alone, and no score on validation",
    "predict": "looks at what was trained and changes no result",
    "tracking": "shows what is trained and changes no result",
    "sweep": "is the search itself",
}
_SEARCHED = ("compute.precision", "compute.global_batch")  # unlike the rest of their section
_READ_BY = {"dae": ("dae", "joint"), "contrastive": ("contrastive", "joint"), "joint": ("joint",), "finetune": ("finetune",)}
_STAGE = {"dae": 1, "contrastive": 2, "joint": 2, "finetune": 3}


class Scale(NamedTuple):
    """What one knob may be: listed values, or a range from low to high, both included."""

    kind: str  # as in sweeping.KINDS
    values: tuple[Any, ...] = ()  # as in JSON, so that a point is the same after it was written and read
    low: float = 0.0
    high: float = 0.0

    def holds(self, value: Any) -> bool:
        """Whether the value is one of the scale's."""
        if self.values:
            return value in self.values
        number = isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high
        return number and (self.kind != "int" or float(value).is_integer())

    def draw(self, rng: np.random.Generator) -> Any:
        """A value at random."""
        if self.values:
            return self.values[rng.integers(len(self.values))]
        if self.kind == "int":
            return type(self.low)(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "loguniform":
            return min(max(math.exp(rng.uniform(math.log(self.low), math.log(self.high))), self.low), self.high)
        return rng.uniform(self.low, self.high)

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.values:
            return len(self.values)
        return 1 + self.high - self.low if self.kind == "int" else math.inf

    def every(self) -> Sequence[Any]:
        """All values, if there is an end of them."""
        return self.values or [type(self.low)(value) for value in range(int(self.low), int(self.high) + 1)]


class Condition(NamedTuple):
    """What a trial's knob must be for an axis to count: one of some values, or a list with one of them."""

    knob: str
    wanted: tuple[Any, ...]
    in_list: bool = False

    def holds(self, found: Any) -> bool:
        """Whether the knob's value is as it must be."""
        return any(each in self.wanted for each in found) if self.in_list else found in self.wanted


def mistake(name: str) -> str | None:
    """Why nothing of this name can be an axis."""
    above = next((above for above in _REFUSED if name == above or name.startswith(f"{above}.")), None)
    if above is not None and name not in _SEARCHED and (above == "sweep" or name in KNOWN.knobs or name in KNOWN.sections):
        return _REFUSED[above]
    return no_knob(name)


def no_knob(name: str) -> str | None:
    """Why the name is not that of a knob."""
    if name in KNOWN.sections:
        return "is a section: name one of its knobs"
    return None if name in KNOWN.knobs else unknown(name, KNOWN)


def stage(name: str) -> int:
    """Where in the chain of phases a knob first matters: 0 from the start, 3 at its end."""
    return next((stage for section, stage in _STAGE.items() if name.startswith(f"{section}.")), 0)


def choice_of(knob: Knob) -> str:
    """The knob that chooses whether this one is there."""
    return next(f"{section}.name" for section in KNOWN.choices if knob.name.startswith(f"{section}."))


def value(name: str, given: Any) -> Any:
    """A knob's value in its own type, as in JSON.

    Raises:
        ValidationError: the knob cannot have it.
    """
    adapter = TypeAdapter(KNOWN.knobs[name].type, config=ConfigDict(allow_inf_nan=False))
    return adapter.dump_python(adapter.validate_python(given), mode="json")


def scale(name: str, axis: Axis) -> tuple[Scale, list[str]]:
    """The axis in its knob's own type, and what is wrong with its values."""
    found, problems = [], []
    for each in getattr(axis, axis.kind):
        try:
            found.append(value(name, each))
        except ValidationError as error:
            problems.append(in_words(error))
    if axis.values is not None or problems:
        return Scale(axis.kind, tuple({json.dumps(each): each for each in found}.values())), problems
    return Scale(axis.kind, (), *found), _no_range(name, axis.kind, *found)


def _no_range(name: str, kind: str, low: Any, high: Any) -> list[str]:
    """Why a knob has no range of this kind, though it may have the bounds as values."""
    if isinstance(low, bool) or not isinstance(low, int | float):
        return ["is not a number: list its values with grid or choice"]
    try:
        value(name, low if kind == "int" else low + (high - low) / math.pi)
    except ValidationError:
        return ["is a whole number: write int, or list its values with grid or choice"]
    return []


def conditions(name: str, when: dict[str, Any]) -> tuple[list[Condition], list[str]]:
    """When a knob counts: a phase that is trained reads it, it belongs to the choice that was made, and `when` holds."""
    section, found, problems = name.split(".")[0], list[Condition](), list[str]()
    if section in _READ_BY:
        found.append(Condition("phases", _READ_BY[section], in_list=True))
    if name in KNOWN.knobs and KNOWN.knobs[name].member:
        found.append(Condition(choice_of(KNOWN.knobs[name]), (KNOWN.knobs[name].member,)))
    for knob, wanted in when.items():
        problem = None if knob == FILES else no_knob(knob)
        try:
            found += [] if problem else [Condition(knob, (wanted if knob == FILES else value(knob, wanted),))]
        except ValidationError as error:
            problem = in_words(error)
        problems += [f"{knob}: {problem}"] if problem else []
    return found, problems
