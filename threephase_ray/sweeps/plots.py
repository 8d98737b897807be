"""Plots of a sweep: which knobs matter, which values go together, and what the best score cost."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from threephase_ray.sweeping import Axis
from threephase_ray.sweeps.coordinates import COLOURS, parallel
from threephase_ray.sweeps.leaderboard import label, short_names
from threephase_ray.sweeps.results import Place, finished, knobs, ranking
from threephase_ray.sweeps.trial import ENDED, Trial

LEAST = 2  # trials that are done
DARK, MIDDLE = COLOURS(1.0), COLOURS(0.5)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sweep",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_UNITS = ((10_800.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))  # from so many seconds on, seconds in one, name


class Plots(NamedTuple):
    """What was drawn, and why the rest was not."""

    files: list[Path]
    skipped: list[str]


def draw(
    trials: Sequence[Trial], importance: Mapping[str, float], metric: str, folder: Path, space: Mapping[str, Axis] | None = None
) -> Plots:
    """Write importance.svg, parallel.svg and cost.svg into `folder`, as far as there are trials enough.

    `importance`: share of each knob; `metric`: what the score is; `space`: the axes, for their bounds and the order of their values.
    """
    plots, score = Plots([], []), f"validation {metric.replace('_', ' ')}"
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        for name, made in figures(trials, importance, score, {} if space is None else space).items():
            if isinstance(made, str):
                plots.skipped.append(f"{name}.svg: {made}")
            else:
                made.savefig(folder / f"{name}.svg", metadata={"Date": None})
                plots.files.append(folder / f"{name}.svg")
    return plots


def figures(trials: Sequence[Trial], importance: Mapping[str, float], score: str, space: Mapping[str, Axis]) -> dict[str, Figure | str]:
    """The plots by name, or why there is none; `score`: what it is, in words."""
    done = len(finished(trials))
    too_few = f"needs {LEAST} trials that are done, and there {'is' if done == 1 else 'are'} {done}"
    return {
        "importance": importances(importance, score) if importance else "too few trials are done to tell which knobs matter",
        "parallel": (parallel(trials, score, space) if knobs(trials) else "no trial sets a knob") if done >= LEAST else too_few,
        "cost": costs(trials, score) if done >= LEAST else too_few,
    }


def importances(importance: Mapping[str, float], score: str) -> Figure:
    """A bar for each knob, the longest first."""
    order = sorted(importance, key=lambda knob: importance[knob])
    names = short_names(order)
    figure = Figure(figsize=(6.5, 1.2 + 0.32 * len(order)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([names[knob] for knob in order], [importance[knob] for knob in order], color=MIDDLE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.1)
    axes.set_xlabel("importance (share of all knobs)")
    axes.set_title(f"What {score} depends on")
    return figure


def spent(trials: Sequence[Trial]) -> dict[int, float]:
    """Worker seconds that all trials up to each one cost, by its number, in the order of the numbers."""
    total, seconds = 0.0, {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        total += trial.cost
        seconds[trial.number] = total
    return seconds


def costs(trials: Sequence[Trial], score: str) -> Figure:
    """The score of each trial over what the sweep had cost by then, and the best so far."""
    seconds = spent([trial for trial in trials if trial.status in ENDED])
    _, size, unit = next(known for known in _UNITS if max(seconds.values()) >= known[0])
    at = {number: value / size for number, value in seconds.items()}
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    reached, done = zip(*finished(trials), strict=True)
    axes.scatter([at[trial.number] for trial in done], reached, s=18, color=MIDDLE, label="trial", zorder=2)
    left = [at[trial.number] for trial in trials if trial.status in ("stopped", "failed")]
    if left:
        axes.plot(left, [0.02] * len(left), "|", color="0.5", transform=axes.get_xaxis_transform(), label="stopped or failed")
    places = ranking(trials)
    if places:
        _best_so_far(axes, places, at)
    axes.set(xlabel=f"cost of the sweep so far (worker {unit})", ylabel=score, title=f"{score.capitalize()} against cost")
    axes.margins(y=0.2)  # room for the name of the best, and for those that were stopped
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _best_so_far(axes: Axes, places: Sequence[Place], at: Mapping[int, float]) -> None:
    """The best score over the cost, of several seeds their mean; and its name."""
    ended = sorted((max(at[trial.number] for trial in place.trials), place.score) for place in places)
    best, end = list(accumulate((score for _, score in ended), max)), max(at.values())
    axes.step([*(x for x, _ in ended), end], [*best, best[-1]], where="post", color=DARK, label="best so far", zorder=3)
    x = max(at[trial.number] for trial in places[0].trials)
    axes.plot([x], [places[0].score], "o", markersize=9, markerfacecolor="none", markeredgecolor=DARK, zorder=4)
    axes.annotate(
        f"{label(places[0])}: {places[0].score:.4f}",
        xy=(x, places[0].score),
        xytext=(x, 0.95),
        textcoords=("data", "axes fraction"),
        ha="right" if x > 0.5 * end else "left",
        va="center",
        color=DARK,
        arrowprops={"arrowstyle": "-", "color": DARK, "linewidth": 0.6, "shrinkB": 5},
    )
