"""Means over seeds, and differences between arms, with intervals that cover both sources of chance: seeds and test rows.

A score of seed i on a test split is taken as mean + seed_i + rows + rest_i: what training's chance did, what these test rows
do to every seed, and what they do to this seed alone (two crossed random factors). With n seeds of scores x_i, their variance
s^2, and their covariance C over draws of the test rows (the bootstrap over rows, `resampling`):

    own    = mean of C_ii            shared = max(0, mean of C_ij, i != j)
    V      = max(s^2, own - shared) / n + shared               the variance of the mean of x_i
    nu     = V^2 / ((s^2 / n)^2 / (n - 1))                     its degrees of freedom

s^2 / n is the bootstrap over seeds, with the factor n / (n - 1) that it lacks when there are few; s^2 holds each seed's own
share of the rows' chance, at least own - shared, so that only the share of all seeds is added (bootstrapping both factors
at once would count it up to three times: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1). nu is
Satterthwaite's (1946): a variance from 5 seeds is uncertain, one from hundreds of rows is not. With one seed V = own.

Means of scores are bounded, and skewed near 1, so their interval is Wilson's with as many rows as V is worth, mean (1 - mean) / V,
and the t quantile instead of the normal one (as for clustered surveys: Korn & Graubard 1998; Dean & Pagano 2015). For
accuracy and one seed that is `metrics.interval`. Differences of arms take the same V of the differences of paired seeds, and t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.stats import t as student

from threephase_ray.evidence.resampling import Floats, Ints, Metric, Sampled, effective_rows, sample

Labels = NDArray[np.int64] | Sequence[NDArray[np.int64]]  # [m], or one array for each seed where their test rows differ
Predicted = NDArray[np.int64] | Sequence[NDArray[np.int64]]  # [n, m], or one array [m_i] for each seed

_CONFIDENCE = 0.95
_DUST = 1e-18  # a variance below is rounding


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; `error`: its standard error.

    `rows`: test rows, of all seeds together where each has its own. With one seed the interval covers the rows' chance alone:
    what another seed would give is not known.
    """

    mean: float
    low: float
    high: float
    error: float
    seeds: int
    rows: int
    covers: Literal["seeds and rows", "rows"]


@dataclass(frozen=True)
class Comparison:
    """First arm minus second, and the two-sided p value of no difference: below 0.05 exactly where the interval excludes 0."""

    difference: Estimate
    p: float


class _Spread(NamedTuple):
    """Variance of the mean over seeds, and its degrees of freedom."""

    variance: float
    freedom: float

    @property
    def quantile(self) -> float:
        """How many errors an interval reaches to either side."""
        return float(student.ppf(0.5 + _CONFIDENCE / 2, self.freedom))


class _Split(NamedTuple):
    """A test split [m] and the predictions [n, m] of the seeds that were scored on it."""

    labels: Ints
    predicted: Ints


def estimate(metric: Metric, labels: Labels, predicted: Predicted, classes: int) -> Estimate:
    """Mean of a metric over seeds, and its interval.

    `labels` [m] and `predicted` [n, m] where all seeds share their test rows; else a list with an array for each seed, and the
    interval rests on how the seeds' scores differ, which assumes that their test rows have little in common. Labels are
    integers below `classes`. Raises ValueError for arrays that do not fit together.
    """
    splits = _splits(labels, predicted)
    scores, spread = _pooled([sample(metric, *split, classes) for split in splits])
    rows = sum(effective_rows(metric, split.labels, classes) for split in splits)
    return _estimate(scores, _wilson(float(scores.mean()), spread, rows), spread, splits)


def compare(metric: Metric, labels: Labels, first: Predicted, second: Predicted, classes: int) -> Comparison:
    """First arm minus second: mean difference over paired seeds, its interval and p value.

    Shapes as for `estimate`; row i of both arms is the same seed. To V is added what two more test rows would: one on which
    a single seed is right with the first arm alone, one with the second alone. So few rows that differ are no proof, as in
    the adjusted interval of paired shares (Bonett & Price 2012), and identical arms have p = 1. With one seed p is about these
    two models, not about the arms: where seeds differ much, half of such p may be below 0.05 by chance; of two seeds, one in ten.

    Raises:
        ValueError: the arms have different seeds.
    """
    splits, others = _splits(labels, first), _splits(labels, second)
    if [split.predicted.shape for split in splits] != [other.predicted.shape for other in others]:
        raise ValueError("both arms need predictions of the same seeds")
    arms = [[sample(metric, *split, classes) for split in arm] for arm in (splits, others)]
    scores, spread = _pooled(
        [Sampled(a.scores - b.scores, a.deviations - b.deviations) for a, b in zip(*arms, strict=True)], _pair(metric, splits, classes)
    )
    mean, half = float(scores.mean()), spread.quantile * sqrt(spread.variance)
    p = float(2 * student.sf(abs(mean) / sqrt(spread.variance), spread.freedom))
    return Comparison(_estimate(scores, (max(-1.0, mean - half), min(1.0, mean + half)), spread, splits), p)


def _splits(labels: Labels, predicted: Predicted) -> list[_Split]:
    """The test splits: one of all seeds, or one of each seed."""
    if isinstance(labels, np.ndarray):
        return [_Split(labels, np.asarray(predicted))]
    return [_Split(truth, said[None]) for truth, said in zip(labels, predicted, strict=True)]


def _pooled(samples: Sequence[Sampled], extra: float = 0.0) -> tuple[Floats, _Spread]:
    """Scores [n] of all seeds, and V with its degrees of freedom; `extra` is added to what all seeds share."""
    scores = np.concatenate([sampled.scores for sampled in samples])
    covariance = block_diag(*[sampled.deviations @ sampled.deviations.T for sampled in samples])
    n, own = len(scores), float(np.trace(covariance)) / len(scores)
    if n == 1:
        return scores, _Spread(own + extra, inf)
    shared = max(0.0, (float(covariance.sum()) - n * own) / (n * (n - 1)))
    seeds = float(scores.var(ddof=1))
    variance = max(seeds, own - shared) / n + shared + extra
    return scores, _Spread(variance, (n - 1) * (variance / (seeds / n)) ** 2 if seeds > _DUST else inf)


def _pair(metric: Metric, splits: Sequence[_Split], classes: int) -> float:
    """The variance of two more rows, on each of which one seed of one arm is right and of the other arm wrong."""
    rows = float(np.mean([len(split.labels) for split in splits]))
    weighted = float(np.mean([effective_rows(metric, split.labels, classes) for split in splits]))
    seeds = sum(len(split.predicted) for split in splits)
    return 2 / (seeds**2 * rows * weighted)


def _wilson(mean: float, spread: _Spread, rows: float) -> tuple[float, float]:
    """Wilson's interval of a mean in [0, 1] as of mean (1 - mean) / V rows; `rows` where V is 0, as when all is right."""
    worth = mean * (1 - mean) / spread.variance if spread.variance > _DUST else rows
    ratio = spread.quantile**2 / worth
    middle = (mean + ratio / 2) / (1 + ratio)
    half = sqrt(ratio * mean * (1 - mean) + ratio**2 / 4) / (1 + ratio)
    return max(0.0, middle - half), min(1.0, middle + half)


def _estimate(scores: Floats, interval: tuple[float, float], spread: _Spread, splits: Sequence[_Split]) -> Estimate:
    """What is told of a mean over the scores [n]."""
    rows = sum(len(split.labels) for split in splits)
    covers: Literal["seeds and rows", "rows"] = "seeds and rows" if len(scores) > 1 else "rows"
    return Estimate(float(scores.mean()), *interval, sqrt(spread.variance), len(scores), rows, covers)
