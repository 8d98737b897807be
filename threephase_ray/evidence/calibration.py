"""Whether probabilities mean what they say."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

BINS = 15
_LEAST = 2  # classes


@dataclass(frozen=True)
class Point:
    """A point of the reliability diagram: `rows` predictions with this mean confidence, of which this share is right."""

    confidence: float
    accuracy: float
    rows: int


@dataclass(frozen=True)
class Calibration:
    """Errors of the probabilities, means over the seeds, and the reliability diagram of all seeds' predictions together."""

    error: float
    brier: float
    log_loss: float
    points: list[Point]


def calibration(labels: NDArray[np.int64], probabilities: NDArray[np.floating], bins: int = BINS) -> Calibration:
    """How well the probabilities [n, m, k] of n seeds fit the labels [m].

    `error`: the expected calibration error of the most probable class, sum over bins of rows_b / m |accuracy_b - confidence_b|
    with bins of equal width (Guo et al. 2017). `brier`: mean over rows of sum_k (p_k - [label = k])^2, from 0 to 2 (Brier 1950).
    `log_loss`: in nats. A row's probabilities are divided by their sum, which is 1 but for rounding.

    Raises:
        ValueError: the shapes do not fit.
    """
    if probabilities.ndim != 3 or probabilities.shape[1] != len(labels) or not probabilities.size or probabilities.shape[2] < _LEAST:
        raise ValueError(f"probabilities [seeds, {len(labels)}, classes] are needed, not {probabilities.shape}")
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=2, keepdims=True)
    each, classes = [diagram(labels, run, bins) for run in exact], np.arange(exact.shape[2])
    return Calibration(
        float(np.mean([expected_error(points) for points in each])),
        float(np.mean([brier_score_loss(labels, run, labels=classes, scale_by_half=False) for run in exact])),
        float(np.mean([log_loss(labels, run, labels=classes) for run in exact])),
        diagram(np.tile(labels, len(exact)), np.concatenate(exact), bins),
    )


def diagram(labels: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int = BINS) -> list[Point]:
    """The reliability diagram of one run's probabilities [m, k]: a point for each bin of the confidence that is not empty."""
    confidence = np.minimum(probabilities.max(axis=1), 1.0)
    right = (probabilities.argmax(axis=1) == labels).astype(int)
    accuracy, mean = calibration_curve(right, confidence, n_bins=bins, pos_label=1)
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)  # as calibration_curve has them: (low, high]
    rows = np.bincount(places)
    return [Point(float(c), float(a), int(r)) for c, a, r in zip(mean, accuracy, rows[rows > 0], strict=True)]


def expected_error(points: list[Point]) -> float:
    """The expected calibration error of a reliability diagram."""
    rows = sum(point.rows for point in points)
    return sum(point.rows * abs(point.accuracy - point.confidence) for point in points) / rows
