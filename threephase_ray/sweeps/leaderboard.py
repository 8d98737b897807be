"""The trials of a sweep while it runs: a live table, or a line for each trial that ended where there is no terminal."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table
from rich.text import Text

from threephase_ray import console
from threephase_ray.sweeps.results import Place, ranking, sharing
from threephase_ray.sweeps.trial import ENDED, Status, Trial

ORDER: tuple[Status, ...] = ("done", "stopped", "failed", "running", "paused", "waiting")
LIMIT = 12
_PER_SECOND = 2
_SAYS_LITTLE = ("name", "path")  # last parts that need the one before
_LONG = 18  # characters of a value
_FEW = 4  # axes between which there is room for wider gaps


class Board:
    """Shows a sweep's trials for as long as the block lasts, and what became of them at its end."""

    def __init__(self, trials: Sequence[Trial], metric: str, axes: Iterable[str], total: int | None = None) -> None:
        """`trials`: those that an earlier call left; `total`: how many there will be, if known; see `table` for the others."""
        self._trials, self._metric, self._axes, self._total = trials, metric, tuple(axes), total
        self._told = {trial.number for trial in trials if trial.status in ENDED}
        self._live: Live | None = None

    def __enter__(self) -> "Board":
        if console.console.is_terminal:
            self._live = Live(self._table(LIMIT), console=console.console, refresh_per_second=_PER_SECOND)
            self._live.start(refresh=True)
        elif self._told:
            console.console.print(f"{len(self._told)} trials ended in an earlier call", highlight=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._trials:
            console.console.print(self._table(None))
        if self._trials:
            console.console.print(str(sharing(self._trials)), highlight=False, soft_wrap=True)

    def update(self, trials: Sequence[Trial]) -> None:
        """Show all trials as they are now."""
        self._trials = list(trials)
        if self._live is not None:
            self._live.update(self._table(LIMIT))  # drawn at the next turn of the live display
            return
        for trial in self._trials:
            if trial.status in ENDED and trial.number not in self._told:
                self._told.add(trial.number)
                console.console.print(self._line(trial), highlight=False, soft_wrap=True)

    def _table(self, limit: int | None) -> Table:
        """The table of the trials as they are now."""
        return table(self._trials, self._metric, self._axes, limit, self._total)

    def _line(self, trial: Trial) -> str:
        """A trial that ended: its point, how it went, and how far the sweep is."""
        labels = short_names(self._axes)
        knobs = " ".join(f"{labels[axis]} {short(trial.point[axis])}" for axis in self._axes if axis in trial.point)
        figures = [f"probe {trial.probe:.4f}"] if trial.probe is not None and self._metric != "probe" else []
        if trial.score is not None:
            figures.append(f"{self._metric} {trial.score:.4f}")
        ended = [other for other in self._trials if other.number in self._told]
        far = f"{len(ended)} of {self._total}" if self._total is not None else f"{len(ended)}"
        head = f"trial {trial.number} {' '.join(stand(trial).split())}: {knobs}"
        return "  ".join([head, *figures, *trial.reason.splitlines()[:1], *_best(ranking(ended)), far])


def table(trials: Sequence[Trial], metric: str, axes: Iterable[str], limit: int | None = LIMIT, total: int | None = None) -> Table:
    """The best trials, then those under way: at most `limit` rows, of which a third is kept for trials that have not ended.

    `axes`: dotted knobs, each a column; `metric`: what the score is; `total`: trials that the sweep will have.
    """
    axes, places = tuple(axes), ranking(trials)
    caption = Text(f"{_counts(trials, places, total)}\nscore: {metric} on validation; cost: worker seconds")
    made = Table(box=SIMPLE_HEAD, padding=(0, int(len(axes) <= _FEW), 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    texts = {name for axis, name in short_names(axes).items() if any(isinstance(trial.point.get(axis), str) for trial in trials)}
    for name in ("#", "trial", *short_names(axes).values(), "probe", "score", "stands", "cost", "reused"):
        folds = name in (*texts, "stands", "reused")  # numbers stay whole
        made.add_column(Text(broken(name)), justify="left" if folds else "right", no_wrap=not folds, overflow="ellipsis")
    rank = {trial.number: i for i, place in enumerate(places, start=1) for trial in place.trials}
    for trial in chosen(ordered(trials, rank), limit):
        made.add_row(*map(Text, _cells(trial, axes, rank)))
    return made


def ordered(trials: Iterable[Trial], rank: dict[int, int]) -> list[Trial]:
    """Ranked trials first, best first; then done, stopped, failed, running and waiting ones, those that came farthest first."""

    def place(trial: Trial) -> tuple[float, ...]:
        progress = trial.marks[-1].progress if trial.marks else 0
        figures = [-(figure if figure is not None else -1.0) for figure in (trial.score, trial.probe)]
        return (rank.get(trial.number, len(rank) + 1), ORDER.index(trial.status), *figures, -progress, trial.number)

    return sorted(trials, key=place)


def chosen(trials: Sequence[Trial], limit: int | None) -> list[Trial]:
    """The first rows, with room kept for those that have not ended."""
    ended, going = [[trial for trial in trials if (trial.status in ENDED) == so] for so in (True, False)]
    if limit is None:
        return ended + going
    shown = ended[: limit - min(len(going), limit // 3)]
    return shown + going[: limit - len(shown)]


def _cells(trial: Trial, axes: Sequence[str], rank: dict[int, int]) -> list[str]:
    """A trial's row."""
    knobs = [short(trial.point[axis]) if axis in trial.point else "-" for axis in axes]
    probe, score = ("" if figure is None else f"{figure:.4f}" for figure in (trial.probe, trial.score))
    reused = " ".join(phase[:8] for phase in trial.reused)
    place = str(rank[trial.number]) if trial.number in rank else ""
    return [place, str(trial.number), *knobs, probe, score, stand(trial), f"{trial.cost:.0f}", reused]


def stand(trial: Trial) -> str:
    """Where a trial stands: status, the phase of its last mark, and how much of it is done."""
    if trial.status == "done" or not trial.marks:
        return trial.status
    last = trial.marks[-1]
    share = (last.progress - 1) % 100 + 1  # 200: all of the second phase
    return f"{trial.status} {last.phase[:8]} {share:2}%"


def _counts(trials: Sequence[Trial], places: Sequence[Place], total: int | None) -> str:
    """How many trials stand where, and the best of them."""
    counts = Counter(trial.status for trial in trials)
    words = [f"{counts[status]} {status}" for status in ORDER if counts[status]]
    known = ", ".join(words) if words else "no trial yet"
    return "; ".join([*_best(places), known if total is None else f"{known}, of {total} trials"])


def _best(places: Sequence[Place]) -> list[str]:
    """The best place in a few words; nothing while there is none."""
    return [f"best {places[0].score:.4f} ({label(places[0])})"] if places else []


def label(place: Place) -> str:
    """Which trials a place is made of."""
    seeds = f", mean of {len(place.trials)} seeds" if len(place.trials) > 1 else ""
    return f"trial {place.first.number}{seeds}"


def short(value: Any) -> str:
    """A knob's value in a few characters: 4 significant digits, the last part of a path."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list | tuple):
        text = "+".join(str(part) for part in value)
    else:
        text = re.sub(r"\.ya?ml$", "", PurePosixPath(value).name) if "/" in value else str(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _number(value: float) -> str:
    """A number with at most 4 significant digits, and an exponent where it is far from 1."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:.0f}"
    digits, power = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """Each knob's last parts: as few as tell it from the others."""
    axes = tuple(axes)

    def name(axis: str) -> str:
        parts = axis.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        clear = [end for end in ends if end not in _SAYS_LITTLE and sum(f".{other}".endswith(f".{end}") for other in axes) == 1]
        return clear[0] if clear else axis

    return {axis: name(axis) for axis in axes}


def broken(name: str) -> str:
    """A name over several lines, broken after dots and underscores, where it is long; names of phases as in the cells."""
    return re.sub(r"(?<=[._])(?=.)", "\n", re.sub(r"(\w{8})\w+(?=\.)", r"\1", name)) if len(name) > 8 else name
