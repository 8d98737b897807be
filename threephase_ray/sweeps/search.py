"""Which point of the space is tried next: from a grid, at random, or suggested by Optuna's TPE.

All of it follows from the knobs, the number of the trial and what was told, so that a search can be taken up again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from threephase_ray import sweeping
from threephase_ray.sweeps import tpe
from threephase_ray.sweeps.space import Space, key
from threephase_ray.sweeps.tpe import importance, storage
from threephase_ray.sweeps.trial import ENDED, Point, Trial

__all__ = ["Search", "build", "importance", "storage"]

_TRIALS = 20  # unless the knobs say how many
_TRIES = 100  # draws for a point that was not tried before
_SUGGESTIONS = 10  # likewise of Optuna
_LISTED = 100_000  # points up to which a space is searched for the last untried ones


class Search(Protocol):
    """A search."""

    def next(self, number: int) -> Point | None:
        """The point of the trial of this number, asked in order; None: there are no more trials."""

    def told(self, trial: Trial) -> None:
        """A trial that ended; or, when a sweep is taken up again, one that was given a point and goes on."""


def build(space: Space, knobs: sweeping.Search, earlier: Sequence[Trial] = ()) -> Search:
    """The search that the knobs describe; `earlier`: trials of other sweeps that Optuna learns from, if they fit the space."""
    return Suggested(space, knobs, earlier) if knobs.method == "optuna" else Planned(space, knobs)


class Planned:
    """Points that are known beforehand: those given, then a grid, or draws."""

    def __init__(self, space: Space, knobs: sweeping.Search) -> None:
        self._space, self._seed = space, knobs.seed
        listed = space.grid() if knobs.method == "grid" else []
        self._points = list({key(point): point for point in [*space.given, *listed]}.values())
        self._end = _TRIALS if knobs.trials is None else knobs.trials
        if knobs.method == "grid":
            self._end = len(self._points) if knobs.trials is None else min(knobs.trials, len(self._points))

    def next(self, number: int) -> Point | None:
        """See `Search`."""
        while len(self._points) <= number < self._end:
            more = unseen(self._space, self._seed, len(self._points), map(key, self._points))
            if not more:
                return None
            self._points += more
        return self._points[number] if number < self._end else None

    def told(self, trial: Trial) -> None:
        """Nothing is learned."""


class Suggested:
    """The given points, then suggestions of TPE, each from a sampler of its own, seeded by the trial's number."""

    def __init__(self, space: Space, knobs: sweeping.Search, earlier: Sequence[Trial]) -> None:
        self._space, self._seed = space, knobs.seed
        self._end = _TRIALS if knobs.trials is None else knobs.trials
        self._earlier = [trial for trial in earlier if trial.status in ENDED]
        self._known: dict[int, Trial] = {}

    def next(self, number: int) -> Point | None:
        """See `Search`."""
        if number >= self._end:
            return None
        point = self._space.given[number] if number < len(self._space.given) else self._suggest(number)
        if point is not None:
            self._known[number] = Trial(number, point)
        return point

    def told(self, trial: Trial) -> None:
        """See `Search`."""
        self._known[trial.number] = replace(trial)  # as it is now

    def _suggest(self, number: int) -> Point | None:
        """A point that was not tried before."""
        own = [trial for _, trial in sorted(self._known.items())]
        seen = {key(trial.point) for trial in own}
        suggestions = tpe.suggestions([*self._earlier, *own], self._space, [self._seed, number])
        for _, point in zip(range(_SUGGESTIONS), suggestions, strict=False):
            if key(point) not in seen and self._space.usable(point):
                return point
        return next(iter(unseen(self._space, self._seed, number, seen)), None)


def unseen(space: Space, seed: int, number: int, seen: Iterable[str]) -> list[Point]:
    """A point at random, with every combination of axes written `grid`; only untried ones, none when all were tried."""
    rng, known = np.random.default_rng([seed, number]), set(seen)
    for _ in range(_TRIES):
        found = [point for point in space.draw(rng) if key(point) not in known and space.usable(point)]
        if found:
            return found
    left = [point for point in space.grid() if key(point) not in known and space.usable(point)] if space.size <= _LISTED else []
    return [left[rng.integers(len(left))]] if left else []
