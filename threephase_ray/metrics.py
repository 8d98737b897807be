"""Scores from counts, so that workers' shares simply add up; and the interval of a share."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Counts = NDArray[np.int64] | NDArray[np.float64]


def classification(hits: Counts, predicted: Counts, support: Counts) -> dict[str, float]:
    """Accuracy and macro precision, recall and F1 from the counts [k] of each class.

    As in scikit-learn, classes that are neither true nor predicted anywhere do not count, and a share of nothing is 0. A class
    that the training split lacks is never predicted, so its rows count as errors.
    """
    present = (support + predicted) > 0
    per_class = by_class(hits[present], predicted[present], support[present])
    mean = {f"macro_{name}": float(values.mean()) for name, values in per_class.items()}
    return {"accuracy": float(hits.sum() / max(1.0, support.sum())), **mean}


def by_class(hits: Counts, predicted: Counts, support: Counts) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 of each class, [k]."""
    return {
        "precision": hits / np.maximum(1, predicted),
        "recall": hits / np.maximum(1, support),
        "f1": 2 * hits / np.maximum(1, predicted + support),
    }


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts [classes, classes] of (true, predicted) for integer labels [n]."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def interval(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share, such as the accuracy on `total` test rows; it knows nothing of other seeds."""
    result = binomtest(hits, total).proportion_ci(confidence, method="wilson")
    return float(result.low), float(result.high)
