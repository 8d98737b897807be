"""The charts of the reports: lines with bands, points, calibration, intervals. Each is narrow enough for a phone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from threephase_ray.reports import svg
from threephase_ray.reports.svg import Scale, mark, path, tag

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 40
MOST = 300  # points of a line that are drawn
COLOURS = 8
Place = tuple[float, float]
Bin = tuple[float, float, int]  # of predictions: mean confidence, share that is right, how many they are


class Picture(NamedTuple):
    """A drawing, and what its colours and shapes stand for: (number of the look, name)."""

    svg: Markup
    caption: str
    legend: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class Series:
    """One line. `look`: number of its colour and shape; `band`: (x, low, high) of its intervals."""

    name: str
    points: Sequence[Place]
    look: int = 0
    dots: bool = False
    joined: bool = True
    faint: bool = False
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows; `names`: of the places 0, 1, 2 ... where it has no numbers; `within`: bounds that no value exceeds."""

    title: str
    share: bool = False
    log: bool = False
    names: Sequence[str] = ()
    within: tuple[float, float] = (-math.inf, math.inf)

    def text(self, value: float) -> str:
        """A tick's label."""
        if self.names:
            return self.names[round(value)]
        return svg.share(value) if self.share else svg.number(value)


def look(number: int) -> str:
    """The class of a colour."""
    return f"c{number % COLOURS}"


def thinned(points: Sequence[Place]) -> list[Place]:
    """At most `MOST` points of a line, evenly chosen, the last one among them."""
    stride = -(-len(points) // MOST)
    return [*points[:-1:stride], points[-1]] if stride > 1 else list(points)


def smoothed(points: Sequence[Place]) -> list[Place]:
    """The running mean over a twentieth of the points to each side."""
    reach = len(points) // 20
    parts = [points[max(0, i - reach) : i + reach + 1] for i in range(len(points))]
    return [(x, sum(y for _, y in part) / len(part)) for (x, _), part in zip(points, parts, strict=True)]


def lines(series: Sequence[Series], x: Axis, y: Axis, caption: str, best: tuple[float, str] | None = None) -> Picture:
    """Series over a common axis; `best`: a place on it to be marked, and why."""
    across = _scale([at for each in series for at, _ in each.points], x, LEFT, WIDTH - RIGHT, tight=not x.names)
    values = [value for each in series for _, value in each.points] + [end for each in series for _, *ends in each.band for end in ends]
    up = _scale(values, y, HEIGHT - BOTTOM, TOP)
    parts = [frame(across, up, x, y)]
    if best is not None:
        parts.append(path([(across.at(best[0]), TOP), (across.at(best[0]), HEIGHT - BOTTOM)], "best"))
        near_end = across.at(best[0]) > 0.6 * WIDTH
        anchor, gap = ("end", -4) if near_end else ("start", 4)
        parts.append(tag("text", best[1], x=across.at(best[0]) + gap, y=TOP - 3, class_="tick strong", text_anchor=anchor))
    parts += [_band(each, across, up) for each in series if each.band]
    parts += [_line(each, across, up, x, y) for each in series]
    named = [(each.look, each.name) for each in series if not each.faint]
    return Picture(picture(parts, caption), caption, named if len(named) > 1 else [])


def _scale(values: Sequence[float], axis: Axis, start: float, end: float, tight: bool = False) -> Scale:
    """The scale that shows all values."""
    if axis.names:
        return Scale(-0.4, len(axis.names) - 0.6, start, end)
    if axis.log and min(values) > 0:
        return Scale(min(values), max(values), start, end, log=True)
    low, high = (min(values), max(values)) if tight else svg.wide(values, within=axis.within)
    return Scale(low, high, start, end)


def frame(across: Scale, up: Scale, x: Axis, y: Axis) -> Markup:
    """Grid, ticks and titles of both axes."""
    parts = [path([(LEFT, up.at(tick)), (WIDTH - RIGHT, up.at(tick))], "grid") for tick in up.ticks()]
    parts += [tag("text", y.text(tick), x=LEFT - 6, y=up.at(tick) + 3.5, class_="tick", text_anchor="end") for tick in up.ticks()]
    below = HEIGHT - BOTTOM
    parts.append(path([(LEFT, below), (WIDTH - RIGHT, below)], "axis"))
    ticks = [float(place) for place in range(len(x.names))] if x.names else across.ticks(6)
    for tick in ticks:
        parts.append(path([(across.at(tick), below), (across.at(tick), below + 4)], "axis"))
        parts.append(tag("text", x.text(tick), x=across.at(tick), y=below + 15, class_="tick", text_anchor="middle"))
    parts.append(tag("text", x.title, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="title", text_anchor="middle"))
    return tag("g", *parts)


def _line(each: Series, across: Scale, up: Scale, x: Axis, y: Axis) -> Markup:
    """A series as line and marks."""
    points = thinned(each.points)
    places = [(across.at(at), up.at(value)) for at, value in points]
    drawn = [path(places, f"line {look(each.look)}{' faint' if each.faint else ''}")] if len(places) > 1 and each.joined else []
    if each.dots or len(places) == 1:
        titles = [f"{each.name}: {y.text(value)} at {x.text(at)}" for at, value in points]
        marks = zip(places, titles, strict=True)
        drawn += [mark(each.look, *place, 3.4, look(each.look), title) for place, title in marks]
    return tag("g", *drawn)


def _band(each: Series, across: Scale, up: Scale) -> Markup:
    """The intervals of a series: an area, or a line for each point where the points are not joined."""
    if not each.joined:
        return tag(
            "g",
            *(path([(across.at(x), up.at(low)), (across.at(x), up.at(high))], f"reach {look(each.look)}") for x, low, high in each.band),
        )
    rim = [(x, high) for x, _, high in each.band] + [(x, low) for x, low, _ in reversed(each.band)]
    return path([(across.at(x), up.at(y)) for x, y in rim], f"band {look(each.look)}")


def picture(parts: Sequence[Markup], caption: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """The whole drawing, which readers without sight are told of by its caption."""
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=caption, class_="chart")


def scatter(points: Sequence[Place], kinds: Sequence[int], names: Sequence[str], caption: str) -> Picture:
    """Points in the plane without axes: only nearness has a meaning. `kinds`: number of each point's name; the last is drawn first."""
    side, room = 300, 10.0
    across, up = (Scale(*svg.wide([point[i] for point in points], 0.02), *ends) for i, ends in enumerate([(room, side - room)] * 2))
    order = sorted(range(len(points)), key=lambda i: -kinds[i])
    marks = [mark(kinds[i], across.at(points[i][0]), up.at(points[i][1]), 2.9, look(kinds[i]), names[kinds[i]]) for i in order]
    edge = tag("rect", x=0.5, y=0.5, width=side - 1, height=side - 1, rx=6, class_="edge")
    return Picture(picture([edge, *marks], caption, side, side), caption, [(kind, names[kind]) for kind in sorted(set(kinds))])


def reliability(sides: Sequence[tuple[str, Sequence[Bin]]], caption: str) -> Picture:
    """Accuracy over confidence; what is calibrated lies on the diagonal. The larger a mark, the more rows."""
    across, up = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    ends = (across.at(0), up.at(0)), (across.at(1), up.at(1))
    parts = [frame(across, up, Axis("confidence of the prediction", share=True), Axis("accuracy", share=True)), path(ends, "diagonal")]
    for number, (name, bins) in enumerate(sides):
        filled, most = [each for each in bins if each[2]], max((rows for *_, rows in bins), default=1)
        parts.append(path([(across.at(sure), up.at(right)) for sure, right, _ in filled], f"line faint {look(number)}"))
        for sure, right, rows in filled:
            title = f"{name}: {rows} rows, confidence {svg.share(round(sure, 3))}, right {svg.share(round(right, 3))}"
            size = 2.5 + 4 * math.sqrt(rows / most)
            parts.append(mark(number, across.at(sure), up.at(right), size, look(number), title))
    return Picture(picture(parts, caption), caption, [(number, name) for number, (name, _) in enumerate(sides)])


class Reach(NamedTuple):
    """A figure with its interval, in one line of `intervals`."""

    name: str
    middle: float
    low: float
    high: float
    look: int = 0


def intervals(
    rows: Sequence[Reach], axis: Axis, caption: str, zero: float | None = None, text: Callable[[float], str] | None = None
) -> Picture:
    """Figures with their intervals below each other; `zero`: a place to compare them with."""
    step, top, words = 34, 6, axis.text if text is None else text
    height = top + step * len(rows) + BOTTOM - 2
    values = [end for row in rows for end in (row.low, row.high, row.middle)] + ([zero] if zero is not None else [])
    across, below = Scale(*svg.wide(values, 0.08, axis.within), RIGHT, WIDTH - RIGHT), height - BOTTOM + 2
    parts = []
    for tick in across.ticks(6):
        parts.append(path([(across.at(tick), top), (across.at(tick), below)], "grid"))
        parts.append(tag("text", axis.text(tick), x=across.at(tick), y=below + 14, class_="tick", text_anchor="middle"))
    parts.append(tag("text", axis.title, x=WIDTH / 2, y=height - 6, class_="title", text_anchor="middle"))
    parts += [path([(across.at(zero), top), (across.at(zero), below)], "zero")] if zero is not None else []
    for i, row in enumerate(rows):
        y, title = top + step * i + 24, f"{row.name}: {words(row.middle)} ({words(row.low)} to {words(row.high)})"
        parts.append(tag("text", row.name, x=RIGHT, y=y - 9, class_="label"))
        parts.append(path([(across.at(row.low), y), (across.at(row.high), y)], f"reach {look(row.look)}"))
        parts.append(mark(row.look, across.at(row.middle), y, 4.5, look(row.look), title))
    return Picture(picture(parts, caption, WIDTH, height), caption)
