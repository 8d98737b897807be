"""Parallel coordinates: each trial a line through the values of its knobs, in the colour of its score."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from threephase_ray.sweeping import Axis
from threephase_ray.sweeps.leaderboard import broken, short, short_names
from threephase_ray.sweeps.results import finished, knobs, ranking
from threephase_ray.sweeps.trial import Trial

COLOURS = matplotlib.colormaps["viridis_r"]  # the best are dark, which stands out on white
GREY = "0.75"
_FEW = 6  # values that are all written beside their line
_APART = 0.045  # between two values that are written, of a line's length
_NONE = -0.12  # where trials pass that do not use a knob
_FAN = 0.03  # how far trials with the same value are spread, of a line's length
_INK = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}  # keeps values readable on top of lines


@dataclass(frozen=True)
class Scale:
    """Where the values of a knob stand on its line, from 0 to 1."""

    low: float
    high: float
    log: bool = False
    categories: tuple[str, ...] = ()  # as JSON, of a knob whose values are no numbers

    def place(self, value: Any) -> float:
        """Where a value stands; below the line, where there is none."""
        if value is None:
            return _NONE
        number = self.categories.index(json.dumps(value)) if self.categories else value
        low, high, at = np.log([self.low, self.high, number]) if self.log else (self.low, self.high, number)
        return float((at - low) / (high - low)) if high > low else 0.5

    def ticks(self, values: Sequence[Any]) -> list[tuple[float, str]]:
        """What to write beside the line, and where: all values if they are few, else round ones; none too near to the one before."""
        known = [value for value in values if value is not None]
        ticks = [(_NONE, "none")] if len(known) < len(values) else []
        for value in map(json.loads, self.categories) if self.categories else self._numbers(sorted(set(known))):
            if self.categories or not ticks or self.place(value) - ticks[-1][0] >= _APART:
                ticks.append((self.place(value), short(value)))
        return ticks

    def _numbers(self, distinct: Sequence[float]) -> Sequence[float]:
        """The numbers themselves, or some round ones."""
        if len(distinct) <= _FEW:
            return distinct
        whole = all(isinstance(value, int) for value in distinct)
        locator = LogLocator(subs=(1, 2, 5), numticks=20) if self.log else MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10])
        return [float(number) for number in locator.tick_values(self.low, self.high) if self.low <= number <= self.high]


def scale(values: Sequence[Any], axis: Axis | None = None) -> Scale:
    """The scale that shows all values; logarithmic if the axis is, or where they span more than a decade."""
    known = [value for value in values if value is not None]
    if not known or any(isinstance(value, bool) or not isinstance(value, int | float) for value in known):
        listed = [] if axis is None or axis.values is None else [json.dumps(value) for value in axis.values]
        used = {json.dumps(value) for value in known}
        categories = (*(value for value in listed if value in used), *sorted(used - set(listed)))
        return Scale(0.0, len(categories) - 1.0, categories=categories)
    bounds = [] if axis is None or axis.values is not None else [float(bound) for bound in getattr(axis, axis.kind)]
    low, high = min([*known, *bounds]), max([*known, *bounds])
    return Scale(low, high, log=low > 0 and (high > 10 * low or (axis is not None and axis.kind == "loguniform")))


def spread(places: Sequence[float]) -> list[float]:
    """Set trials with the same value a little apart, in their order, so that no line hides another."""
    counts, seen, apart = Counter(places), Counter[float](), []
    for place in places:
        apart.append(place + 2 * _FAN * (seen[place] - (counts[place] - 1) / 2) / max(counts.values()))
        seen[place] += 1
    return apart


@dataclass(frozen=True)
class Coordinate:
    """An upright line of the plot."""

    name: str
    places: list[float]  # of each trial
    ticks: list[tuple[float, str]]


def coordinate(name: str, values: Sequence[Any], axis: Axis | None = None) -> Coordinate:
    """The line for the values of a knob, one for each trial."""
    its = scale(values, axis)
    return Coordinate(broken(name), spread([its.place(value) for value in values]), its.ticks(values))


def coordinates(trials: Sequence[Trial], space: Mapping[str, Axis]) -> list[Coordinate]:
    """The lines of all knobs, in the order of the space."""
    used = knobs(trials)
    names = short_names([*(knob for knob in space if knob in used), *(knob for knob in used if knob not in space)])
    return [coordinate(name, [trial.point.get(knob) for trial in trials], space.get(knob)) for knob, name in names.items()]


def parallel(trials: Sequence[Trial], metric: str, space: Mapping[str, Axis]) -> Figure:
    """The plot of at least one trial that is done; those that were stopped or failed are grey, and end before the score.

    `metric`: what the score is, in words.
    """
    done = sorted(finished(trials), key=lambda pair: (pair[0], -pair[1].number))  # the best lie on top
    left, scores = [trial for trial in trials if trial.status in ("stopped", "failed")], [score for score, _ in done]
    lines = coordinates([*left, *(trial for _, trial in done)], space)
    paths = [[(x, line.places[i]) for x, line in enumerate(lines)] for i in range(len(left) + len(done))]
    lines.append(coordinate(metric.replace(" ", "\n"), scores))
    ends = [[*path, (len(lines) - 1, end)] for path, end in zip(paths[len(left) :], lines[-1].places, strict=True)]
    best = {trial.number for place in ranking(trials)[:1] for trial in place.trials}
    figure = Figure(figsize=(max(6.5, 0.6 + 1.4 * len(lines)), 5.4), layout="constrained")
    axes = figure.subplots()
    axes.add_collection(LineCollection(paths[: len(left)], colors=GREY, linewidths=0.7))
    colours = ScalarMappable(Normalize(min(scores), max(*scores, min(scores) + 1e-9)), COLOURS)
    widths = [2.5 if trial.number in best else 1.0 for _, trial in done]
    axes.add_collection(LineCollection(ends, colors=colours.to_rgba(np.array(scores)), linewidths=widths, alpha=0.85))
    _frame(axes, lines)
    figure.colorbar(colours, ax=axes, label=metric, fraction=0.04, pad=0.03)
    grey = f"; grey: {len(left)} stopped or failed" if left else ""
    figure.suptitle(f"Knobs and {metric} of {len(done)} trials\n(thick: the best{grey})", fontsize=10)
    return figure


def _frame(axes: Axes, lines: Sequence[Coordinate]) -> None:
    """Draw the upright lines, with their names above and their values beside them."""
    lowest = min(place for line in lines for place in [0.0, *line.places])
    axes.set(xlim=(-0.6, len(lines) - 0.6), ylim=(lowest - 0.04, 1.04))
    axes.spines[:].set_visible(False)
    axes.yaxis.set_visible(False)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(lines)), [line.name for line in lines])
    axes.tick_params(length=0)
    for x, line in enumerate(lines):
        axes.plot([x, x], [-_FAN, 1 + _FAN], color="black", linewidth=0.8, zorder=3)
        for y, value in line.ticks:
            axes.plot([x - 0.02, x], [y, y], color="black", linewidth=0.8, zorder=3)
            axes.text(x - 0.04, y, value, ha="right", va="center", fontsize=8, bbox=_INK, zorder=4)
