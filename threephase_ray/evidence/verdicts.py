"""Many comparisons at once: p values corrected for their number, and what they then say."""

from collections.abc import Sequence
from typing import Literal

from statsmodels.stats.multitest import multipletests

Outcome = Literal["win", "tie", "loss"]

LEVEL = 0.05


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of a family of tests, corrected so that one false alarm in the whole family has a chance of at most 5 % (Holm 1979).

    Raises:
        ValueError: a p value is not from 0 to 1.
    """
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"p values must be from 0 to 1: {list(ps)}")
    return [float(p) for p in multipletests(ps, method="holm")[1]] if len(ps) else []


def verdict(difference: float, corrected: float) -> Outcome:
    """Win or loss of the first arm where the corrected p value is below 0.05, else a tie."""
    if corrected >= LEVEL or difference == 0:
        return "tie"
    return "win" if difference > 0 else "loss"
