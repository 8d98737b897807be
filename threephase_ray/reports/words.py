"""Figures in words, as the reports print them."""

import math

from rich.filesize import decimal

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"
NONE = "\N{EN DASH}"  # where there is no figure


def percent(value: float | None, digits: int = 1) -> str:
    """A share in per cent."""
    return NONE if value is None else f"{100 * value:.{digits}f}{THIN}%"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    if value is None:
        return NONE
    text = f"{abs(100 * value):.{digits}f}"
    return text if not float(text) else f"{'+' if value > 0 else MINUS}{text}"


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals."""
    return NONE if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def whole(value: float | None) -> str:
    """A whole number with separators."""
    return NONE if value is None else f"{value:,.0f}"


def large(value: float | None) -> str:
    """A large count in thousands, millions or billions."""
    if value is None:
        return NONE
    size, unit = next(
        known for known in ((1e9, " billion"), (1e6, " million"), (1e3, ",000"), (1.0, "")) if value >= known[0] or known[0] == 1.0
    )
    return f"{value / size:.1f}{unit}" if size >= 1e6 else f"{value / size:.0f}{unit}"


def seconds(value: float | None) -> str:
    """A span of time in the unit that fits."""
    if value is None:
        return NONE
    if value < 100:
        return f"{value:.1f}{THIN}s" if value < 10 else f"{value:.0f}{THIN}s"
    return f"{value / 60:.1f}{THIN}min" if value < 5400 else f"{value / 3600:.1f}{THIN}h"


def size(value: float | None) -> str:
    """A number of bytes."""
    return NONE if value is None else decimal(int(value))


def chance(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def figure(name: str, value: float | None) -> str:
    """A score by its name: shares in per cent, losses as numbers."""
    if value is None or not math.isfinite(value):
        return NONE
    return percent(value) if is_share(name) else decimals(value, 4)


def is_share(name: str) -> bool:
    """Whether a score of that name is a share."""
    return "accuracy" in name or name.startswith(("macro_", "f1", "precision", "recall", "spearman"))


def title(name: str) -> str:
    """The name of a score in words."""
    return {"macro_f1": "macro F1", "f1": "F1", "ece": "ECE", "knn": "nearest neighbours"}.get(name, name.replace("_", " "))


def sentence(text: str) -> str:
    """A text that opens with a capital letter."""
    return text[:1].upper() + text[1:]


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many if many is not None else one + 's'}"
