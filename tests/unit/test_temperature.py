"""The temperature against a search over a grid, against one that is known, and where there is none."""

import numpy as np
import pytest
from scipy.special import softmax

from threephase_ray.evidence import temperature
from threephase_ray.evidence.calibration import calibration


def drawn(true: float, rows: int, seed: int = 0, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, k], and labels [n] drawn from softmax(logits / true)."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, classes)) * 3 * true).astype(np.float32)
    labels = (softmax(logits / true, axis=1).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=classes - 1)
    return logits, labels


def naive_loss(logits: np.ndarray, labels: np.ndarray, t: float) -> float:
    """Mean negative log-likelihood, row by row."""
    rows = [np.exp((row - row.max()).astype(np.float64) / t) for row in logits]
    return float(np.mean([-np.log(row[label] / row.sum()) for row, label in zip(rows, labels, strict=True)]))


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_it_is_the_best_of_a_fine_grid(true: float) -> None:
    logits, labels = drawn(true, rows=150)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 1201))  # 0.5 % from one to the next
    best = grid[np.argmin([naive_loss(logits, labels, t) for t in grid])]
    found = temperature.fit(logits, labels)
    assert found.value == pytest.approx(best, rel=0.006)
    assert found.reason == ""
    assert naive_loss(logits, labels, found.value) <= min(naive_loss(logits, labels, t) for t in (best, 0.99 * best, 1.01 * best))


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_it_finds_the_temperature_that_labels_were_drawn_with(true: float) -> None:
    assert temperature.fit(*drawn(true, rows=100_000)).value == pytest.approx(true, rel=0.02)


def test_errors_are_those_of_the_probabilities_and_calibration_helps() -> None:
    logits, labels = drawn(2.0, rows=3000)
    found = temperature.fit(logits, labels)
    before, after = (temperature.errors(logits, labels, t) for t in (1.0, found.value))
    for t, each in ((1.0, before), (found.value, after)):
        expected = calibration(labels, temperature.probabilities(logits, t)[None])
        assert (each["log_loss"], each["ece"]) == (pytest.approx(expected.log_loss), pytest.approx(expected.error))
        assert each["log_loss"] == pytest.approx(naive_loss(logits, labels, t))
    assert after["log_loss"] < before["log_loss"]
    assert after["ece"] < 0.03 < 0.08 < before["ece"]
    assert (temperature.probabilities(logits, found.value).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_labels_that_training_lacks_count_as_errors_and_do_not_fit() -> None:
    logits, labels = drawn(2.0, rows=400)
    odd = np.concatenate([labels, [4, 4, -1]])
    more = np.concatenate([logits, logits[:3]])
    assert temperature.fit(more, odd) == temperature.fit(logits, labels)
    with_them, without = (temperature.errors(*each, 1.0) for each in ((more, odd), (logits, labels)))
    assert with_them["log_loss"] == without["log_loss"]
    assert with_them["ece"] > without["ece"]
    assert temperature.errors(logits[:3], odd[-3:], 1.0)["log_loss"] is None


def test_where_none_fits_it_is_one_and_says_why() -> None:
    logits, labels = drawn(1.0, rows=50)
    for given, reason in (
        ((logits[:0], labels[:0]), "no validation row"),
        ((logits, np.full(50, 4)), "no validation row"),
        ((logits, logits.argmax(axis=1)), "so few errors"),
        ((logits[:, :1], np.zeros(50, dtype=int)), "so few errors"),  # a single class
        ((logits, logits.argmin(axis=1)), "so wrong"),
    ):
        found = temperature.fit(*given)
        assert found.value == 1.0
        assert reason in found.reason
