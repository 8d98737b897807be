"""What other test rows would have done to the scores of all seeds at once: the bootstrap over test rows."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from threephase_ray.metrics import by_class

Metric = Literal["accuracy", "macro_precision", "macro_recall", "macro_f1"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 1000  # the error is then known to about 2 %
_BLOCK = 2**22  # weights held at a time


class Sampled(NamedTuple):
    """The scores [n] of n seeds, and deviations [n, x]: deviations @ deviations.T is the scores' covariance over draws of the rows."""

    scores: Floats
    deviations: Floats


def sample(metric: Metric, labels: Ints, predicted: Ints, classes: int) -> Sampled:
    """Score every seed on the test split, and on test splits drawn from its rows with replacement, the same for all seeds.

    `labels` [m], `predicted` [n, m]: integers below `classes`. The draws come from a fixed seed, so that arms with the same
    rows see the same draws and their deviations may be subtracted. The covariance of a mean over rows, such as accuracy, is
    known without drawing: sum over rows of (y_ij - mean_i) (y_i'j - mean_i') / m^2.
    """
    _check(labels, predicted, classes)
    if metric == "accuracy":
        hits = predicted == labels
        scores = hits.mean(axis=1)
        return Sampled(scores, (hits - scores[:, None]) / len(labels))
    scores = _macro(metric, labels, predicted, classes, np.ones((len(labels), 1)))[:, 0]
    drawn = np.concatenate([_macro(metric, labels, predicted, classes, weights) for weights in _draws(len(labels))], axis=1)
    return Sampled(scores, (drawn - drawn.mean(axis=1, keepdims=True)) / np.sqrt(DRAWS - 1))


def effective_rows(metric: Metric, labels: Ints, classes: int) -> float:
    """How many rows of equal weight the test split is worth: (sum w)^2 / sum w^2 (Kish 1965).

    A row weighs 1 in accuracy, and one over the size of its class in a macro mean.
    """
    if metric == "accuracy":
        return float(len(labels))
    weights = 1 / np.bincount(labels, minlength=classes)[labels]
    return float(weights.sum() ** 2 / (weights**2).sum())


def _draws(rows: int) -> Iterator[Floats]:
    """How often each row is in each of the splits drawn, as blocks [rows, draws of the block]."""
    rng = np.random.default_rng(0)
    block = max(1, _BLOCK // rows)
    for start in range(0, DRAWS, block):
        count = min(block, DRAWS - start)
        cells = rng.integers(rows, size=(rows, count)) * count + np.arange(count)  # (row drawn, draw) as one number
        yield np.bincount(cells.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _macro(metric: Metric, labels: Ints, predicted: Ints, classes: int, weights: Floats) -> Floats:
    """A macro score [n, d] of every seed for each of the weights [m, d] of the rows; see `metrics.classification`."""
    everywhere = np.ones(len(labels), dtype=bool)
    support, scores = _counts(labels, everywhere, weights, classes), []
    for said in predicted:
        shown, hits = (_counts(said, where, weights, classes) for where in (everywhere, said == labels))
        values = by_class(hits, shown, support)[metric.removeprefix("macro_")]
        scores.append(values.sum(axis=0) / (support + shown > 0).sum(axis=0))  # a class that is absent has the value 0
    return np.stack(scores)


def _counts(values: Ints, where: NDArray[np.bool_], weights: Floats, classes: int) -> Floats:
    """The weights [m, d] of the rows where it is so, summed for each class [classes, d]."""
    places = csr_array((where.astype(np.float64), (values, np.arange(len(values)))), shape=(classes, len(values)))
    return np.asarray(places @ weights)


def _check(labels: Ints, predicted: Ints, classes: int) -> None:
    """Raise ValueError for arrays that do not fit together."""
    if labels.ndim != 1 or predicted.ndim != 2 or predicted.shape[1] != len(labels) or not predicted.size:
        raise ValueError(f"labels [m] and predictions [seeds, m] are needed, not {labels.shape} and {predicted.shape}")
    if min(labels.min(), predicted.min()) < 0 or max(labels.max(), predicted.max()) >= classes:
        raise ValueError(f"labels and predictions must be from 0 to {classes - 1}")
