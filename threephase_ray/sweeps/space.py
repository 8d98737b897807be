"""The points that a sweep may try: which knobs count in a trial, which values they may have, the trial's configuration."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from threephase_ray import command
from threephase_ray.config import Config
from threephase_ray.mistakes import explain, refusal
from threephase_ray.sweeping import Sweep, SweepConfig
from threephase_ray.sweeps import axes, parts
from threephase_ray.sweeps.axes import FILES, KNOWN, Scale
from threephase_ray.sweeps.trial import Point

_DRAWN = 100  # points that are drawn to find one that can be used
_LARGEST = 10_000  # points of a grid


class Space:
    """The space of a sweep, wholly checked before anything starts.

    Raises:
        ConfigError: names wrong axes, files and points at once.
    """

    def __init__(self, config: SweepConfig) -> None:
        self.name = config.name
        sweep, known = config.sweep, parts.read(config)
        _insist([*known.problems, *_too_large(known.scales, sweep.search.method)])
        self.scales, self._bases, self._conditions = known.scales, known.bases, known.conditions
        self._layers = {file: base.model_dump(mode="json") for file, base in self._bases.items()}
        self.order = self._sorted()  # an axis comes after those that decide whether it counts
        completed = [self._completed(point, spread=sweep.search.method == "random") for point in known.points]
        self.given = list({key(point): point for points in completed for point in points}.values())  # to try first
        whole = self._clashes(self.grid()) if sweep.search.method == "grid" else self._hopeless()
        given = (f"sweep.search.points: {problem}" for problem in self._clashes(self.given))
        _insist([*self._never(sweep), *_idle(known.points, completed), *given, *(f"sweep.space: {problem}" for problem in whole)])

    def configuration(self, point: Point) -> Config:
        """The configuration of a trial; its name is that of the sweep.

        Raises:
            ConfigError: the point has knobs or values that no trial can have.
        """
        return command.laid_over(self._bases[_file(point)], _knobs(point))

    def usable(self, point: Point) -> bool:
        """Whether the values of the point's knobs go together."""
        return not self._wrong(point)

    def counts(self, name: str, point: Point) -> bool:
        """Whether an axis counts in trials of the point, which says all about the axes before it in `order`."""
        return all(condition.holds(self._value(condition.knob, point)) for condition in self._conditions[name])

    def expand(self, options: Callable[[str, Point], Sequence[Any]]) -> list[Point]:
        """Every point with the values that `options` gives for an axis that counts and what is chosen before it."""
        points: list[Point] = [{}]
        for name in self.order:
            points = [further for point in points for further in self._further(name, point, options)]
        return points

    def grid(self) -> list[Point]:
        """Every point of a finite space; those whose training begins alike stand together."""
        every = {name: list(scale.every()) for name, scale in self.scales.items()}
        slowest_first = sorted(self.order, key=axes.stage)
        found = self.expand(lambda name, _: every[name])
        return sorted(found, key=lambda point: [every[name].index(point[name]) if name in point else -1 for name in slowest_first])

    @property
    def size(self) -> float:
        """How many points there are at most."""
        return math.prod(scale.size for scale in self.scales.values())

    def draw(self, rng: np.random.Generator) -> list[Point]:
        """A point at random, with every combination of the axes that are written `grid`."""
        drawn = {name: scale.values if scale.kind == "grid" else [scale.draw(rng)] for name, scale in self.scales.items()}
        return self.expand(lambda name, _: drawn[name])

    def fits(self, point: Mapping[str, Any]) -> bool:
        """Whether the point is one of the space: it has just the axes that count, with values that they may have."""
        known = all(name in self.scales and self.scales[name].holds(value) for name, value in point.items())
        return known and self.expand(lambda name, _: [point[name]] if name in point else []) == [dict(point)]

    def _further(self, name: str, point: Point, options: Callable[[str, Point], Sequence[Any]]) -> list[Point]:
        """The point with each value of one more axis."""
        return [point | {name: value} for value in options(name, point)] if self.counts(name, point) else [point]

    def _value(self, knob: str, point: Point) -> Any:
        """What a knob is in trials of the point; None where it is not there."""
        if knob in point:
            return point[knob]
        if knob == FILES:
            return None
        layer, known = self._layers[_file(point)], KNOWN.knobs[knob]
        if known.member:
            choice = axes.choice_of(known)
            chosen = self._value(choice, point)
            if chosen != known.member:
                return None
            if chosen != _dig(layer, choice):
                return known.initial  # the choice starts afresh
        return _dig(layer, knob)

    def _sorted(self) -> list[str]:
        """The axes as they stand, but each after those that its conditions ask for.

        Raises:
            ConfigError: some wait for each other.
        """
        found, left = list[str](), list(self.scales)
        while left:
            ready = next((name for name in left if not any(self._asks(name, other) for other in left)), None)
            if ready is None:
                raise refusal([f"sweep.space: axes wait for each other by `when`: {', '.join(left)}"])
            left.remove(ready)
            found.append(ready)
        return found

    def _asks(self, name: str, other: str) -> bool:
        """Whether it depends on another axis if one counts."""
        asked = {condition.knob for condition in self._conditions[name]}
        asked |= {axes.choice_of(KNOWN.knobs[knob]) for knob in asked - {FILES} if KNOWN.knobs[knob].member}
        return other in asked or (other == FILES and name != FILES)

    def _completed(self, point: Point, spread: bool) -> list[Point]:
        """A given point with the other axes as configured; if `spread`, those written `grid` in every combination."""

        def options(name: str, chosen: Point) -> Sequence[Any]:
            if name in point:
                return [point[name]]
            scale = self.scales[name]
            return scale.values if spread and scale.kind == "grid" else [self._value(name, chosen)]

        found = self.expand(options)
        return [{name: value for name, value in each.items() if (name, value) != (FILES, None)} for each in found]

    def _never(self, sweep: Sweep) -> Iterator[str]:
        """Say which `when` asks of another axis what that is in no trial."""
        for name, axis in sweep.space.items():
            asked = (condition for condition in self._conditions[name] if condition.knob in axis.when and not condition.in_list)
            for knob, (wanted,), _ in asked:
                if not self._is_possible(knob, wanted):
                    yield f"sweep.space.{name}.when: {knob} is never {wanted}"

    def _is_possible(self, knob: str, wanted: Any) -> bool:
        """Whether a trial may have the value: by an axis; or by a configuration, where the knob is no axis, or one that may not count."""
        if knob in self.scales and self.scales[knob].holds(wanted):
            return True
        if knob == FILES:
            return False
        return knob not in self.scales or wanted in [self._value(knob, {FILES: file}) for file in self._bases]

    def _clashes(self, points: Sequence[Point]) -> Iterator[str]:
        """Say at which points the values do not go together."""
        found: dict[str, list[Point]] = {}
        for point in points:
            for line in self._wrong(point):
                found.setdefault(line, []).append(point)
        for line, where in found.items():
            first = ", ".join(f"{name}={value}" for name, value in where[0].items())
            yield f"{line} (at {len(where)} of {len(points)} points, the first: {first})"

    def _hopeless(self) -> Iterator[str]:
        """Say so if no point can be drawn whose values go together."""
        rng, drawn = np.random.default_rng(0), list[Point]()
        for _ in range(_DRAWN):
            block = self.draw(rng)
            if any(self.usable(point) for point in block):
                return
            drawn += block
        yield from self._clashes(drawn)

    def _wrong(self, point: Point) -> list[str]:
        """What does not go together in the point's configuration."""
        try:
            command.lay(self._bases[_file(point)], command.nested(_knobs(point)))
        except ValidationError as error:
            return explain(error, Config)
        return []


def key(point: Mapping[str, Any]) -> str:
    """What tells points apart."""
    return json.dumps(point, sort_keys=True)


def _idle(points: Sequence[Point], completed: Sequence[Sequence[Point]]) -> Iterator[str]:
    """Say which knobs of the given points do not count there."""
    for number, (point, found) in enumerate(zip(points, completed, strict=True)):
        missing = [name for name in point if not any(name in each for each in found)]
        yield from (f"sweep.search.points.{number}: {name} does not count at this point" for name in missing)


def _too_large(scales: Mapping[str, Scale], method: str) -> Iterator[str]:
    """Say so if nobody could try all combinations."""
    combinations = math.prod(len(scale.values) for scale in scales.values() if scale.values and "grid" in (method, scale.kind))
    if combinations > _LARGEST:
        yield f"sweep.space: a grid of {combinations:,} combinations, {_LARGEST:,} at most: list fewer values, or search with random"


def _insist(problems: Sequence[str]) -> None:
    if problems:
        raise refusal(problems)


def _file(point: Mapping[str, Any]) -> str | None:
    """The file that the point chose."""
    return point.get(FILES)


def _knobs(point: Mapping[str, Any]) -> dict[str, Any]:
    """The point without its file."""
    return {name: value for name, value in point.items() if name != FILES}


def _dig(layer: dict[str, Any], name: str) -> Any:
    """The value of a dotted name; None where a section on the way is not there."""
    found: Any = layer
    for part in name.split("."):
        found = found[part] if isinstance(found, dict) and part in found else None
    return found
