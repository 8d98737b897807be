"""Pictures as SVG: elements, scales with round ticks, and marks that differ in shape as well as in colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

MINUS = "\N{MINUS SIGN}"
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "wedge", "plus", "ring")


def tag(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """An element; `stroke_width` becomes stroke-width, `class_` class; text and attributes are escaped, None is left out."""
    given = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    opening = Markup("").join(Markup(' {}="{}"').format(key, _plain(value)) for key, value in given)
    inside = Markup("").join(content)
    return Markup("<{0}{1}>{2}</{0}>").format(name, opening, inside) if inside else Markup("<{0}{1}/>").format(name, opening)


def _plain(value: str | float) -> str:
    """An attribute's value, numbers with two decimals at most."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Scale:
    """Where values from `low` to `high` stand between `start` and `end`, in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, here = (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        share = (here - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within the scale."""
        wide = self.log and self.high >= 10 * self.low
        locator = LogLocator(subs=(1.0,), numticks=most) if wide else MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])
        slack = 1e-9 * (self.high - self.low)
        return [float(tick) for tick in locator.tick_values(self.low, self.high) if self.low - slack <= tick <= self.high + slack]


def wide(values: Sequence[float], share: float = 0.06, within: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    """Least and largest value with some room around them, but not beyond `within`."""
    low, high = min(values), max(values)
    room = share * (high - low) if high > low else share * (abs(high) if high else 1.0)
    return max(within[0], low - room), min(within[1], high + room)


def number(value: float) -> str:
    """A tick's label."""
    if value and not 1e-3 <= abs(value) < 1e6:
        digits, power = f"{value:.0e}".split("e")
        return f"{digits}e{int(power)}".replace("-", MINUS)
    return f"{value:,.6g}".replace("-", MINUS)


def share(value: float) -> str:
    """A tick's label for a share, in per cent."""
    return f"{number(round(100 * value, 6))} %"


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through points."""
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def mark(shape: int, x: float, y: float, size: float, class_: str, title: str | None = None) -> Markup:
    """A mark of one of `SHAPES`, by number, with a title that shows when pointed at."""
    r, name = size, SHAPES[shape % len(SHAPES)]
    hover = [tag("title", title)] if title else []
    if name in ("circle", "ring"):
        return tag("circle", *hover, cx=x, cy=y, r=r, class_=f"{class_} {'hollow' if name == 'ring' else 'mark'}")
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "diamond": [(0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)],
        "wedge": [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
    }
    if name in corners:
        d = "M" + "L".join(f"{x + r * dx:.1f} {y + r * dy:.1f}" for dx, dy in corners[name]) + "Z"
        return tag("path", *hover, d=d, class_=f"{class_} mark")
    k = 0.95 * r if name == "cross" else 1.2 * r
    ends = [((-k, -k), (k, k)), ((-k, k), (k, -k))] if name == "cross" else [((-k, 0), (k, 0)), ((0, -k), (0, k))]
    d = "".join(f"M{x + a:.1f} {y + b:.1f}L{x + c:.1f} {y + e:.1f}" for (a, b), (c, e) in ends)
    return tag("path", *hover, d=d, class_=f"{class_} hollow")
