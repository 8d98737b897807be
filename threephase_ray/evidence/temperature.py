"""Temperature scaling: logits divided by one number, so that probabilities mean what they say (Guo et al. 2017, arXiv 1706.04599)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from threephase_ray.evidence.calibration import diagram, expected_error

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]
LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are taken from so few numbers as a validation split gives


@dataclass(frozen=True)
class Temperature:
    """What the logits are divided by; `reason`: why it is 1 where none was fitted, else empty."""

    value: float
    reason: str = ""


def fit(logits: Logits, labels: Labels) -> Temperature:
    """The T that minimises the mean negative log-likelihood of softmax(logits / T) for logits [n, k] and labels [n].

    It is convex in 1 / T, so that its slope changes its sign once at most. Rows whose label is none of the k classes do not count.
    """
    rows = np.flatnonzero(_known(logits, labels))
    if not len(rows):
        return Temperature(1.0, "no validation row has a label of the training split")
    exact = logits[rows].astype(np.float64)
    behind = exact - exact[np.arange(len(rows)), labels[rows]][:, None]  # the true class's logit is the origin of each row

    def slope(log_temperature: float) -> float:
        """Derivative of the mean negative log-likelihood by 1 / T."""
        return float((softmax(behind * math.exp(-log_temperature), axis=1) * behind).sum(axis=1).mean())

    ends = math.log(LOWEST), math.log(HIGHEST)
    if slope(ends[0]) <= 0:
        return Temperature(1.0, f"validation has so few errors that the smallest temperature ({LOWEST}) would do best")
    if slope(ends[1]) >= 0:
        return Temperature(1.0, f"on validation the logits are so wrong that the largest temperature ({HIGHEST:.0f}) would do best")
    return Temperature(math.exp(brentq(slope, *ends, xtol=1e-12)))


def probabilities(logits: Logits, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / T), [n, k]."""
    made: NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return made


def errors(logits: Logits, labels: Labels, temperature: float) -> dict[str, float | None]:
    """Mean negative log-likelihood, in nats, and expected calibration error of softmax(logits / T).

    Rows whose label is none of the k classes are errors to the second; the first, which would be infinite, leaves them out, and is None
    without any other.
    """
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    rows = np.flatnonzero(_known(logits, labels))
    likelihood = -float(logs[rows, labels[rows]].mean()) if len(rows) else None
    return {"log_loss": likelihood, "ece": expected_error(diagram(labels, np.exp(logs)))}


def _known(logits: Logits, labels: Labels) -> NDArray[np.bool_]:
    """Whether each label is one of the classes."""
    return np.asarray((labels >= 0) & (labels < logits.shape[1]), dtype=bool)
