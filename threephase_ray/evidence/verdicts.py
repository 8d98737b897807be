"""Many comparisons at once: p values corrected for their number, and how often an arm wins."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from statsmodels.stats.multitest import multipletests

from threephase_ray.evidence.intervals import Comparison

Outcome = Literal["win", "tie", "loss"]

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a comparison says once its p value is corrected; its own interval is not corrected."""

    difference: float
    p: float
    corrected: float
    outcome: Outcome


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of a family of tests, corrected so that one false alarm in the whole family has a chance of at most 5 % (Holm 1979)."""
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"p values must be from 0 to 1: {list(ps)}")
    return [float(p) for p in multipletests(ps, method="holm")[1]] if len(ps) else []


def verdict(difference: float, corrected: float) -> Outcome:
    """Win or loss of the first arm where the corrected p value is below 0.05, else a tie."""
    if corrected >= LEVEL or difference == 0:
        return "tie"
    return "win" if difference > 0 else "loss"


def judge(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """A verdict for each comparison of a family: all that a study asks at once, such as the same two arms in many cells."""
    found = [(comparison.difference.mean, comparison.p) for comparison in comparisons]
    corrected = holm([p for _, p in found])
    return [Verdict(mean, p, low, verdict(mean, low)) for (mean, p), low in zip(found, corrected, strict=True)]


def tally(verdicts: Iterable[Verdict]) -> dict[Outcome, int]:
    """How many wins, ties and losses there are."""
    counts = Counter(judged.outcome for judged in verdicts)
    return {outcome: counts[outcome] for outcome in get_args(Outcome)}
