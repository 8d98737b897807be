import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax

from threephase_ray.evidence.calibration import calibration, diagram


def drawn(seed: int, seeds: int = 3, rows: int = 400, classes: int = 4, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels [m] and probabilities [n, m, k] in float32; with a sharpness of 1 the labels are drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    labels = np.array([rng.choice(classes, p=softmax(row)) for row in logits])
    noise = rng.normal(size=(seeds, rows, classes)) * 0.3
    return labels, softmax(sharpness * (logits + noise), axis=2).astype(np.float32)


def naive_error(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    """The expected calibration error of one run by its definition, bins (low, high]."""
    total = 0.0
    for b in range(bins):
        inside = [row for row in range(len(labels)) if b / bins < probabilities[row].max() <= (b + 1) / bins]
        if inside:
            right = np.mean([probabilities[row].argmax() == labels[row] for row in inside])
            total += len(inside) / len(labels) * abs(right - np.mean([probabilities[row].max() for row in inside]))
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_errors_equal_their_definitions(bins: int) -> None:
    labels, probabilities = drawn(1)
    found, truth = calibration(labels, probabilities, bins), np.eye(4)[labels]
    assert found.error == pytest.approx(np.mean([naive_error(labels, run, bins) for run in probabilities]), abs=1e-6)
    assert found.brier == pytest.approx(((probabilities - truth) ** 2).sum(axis=2).mean(), rel=1e-5)
    assert found.log_loss == pytest.approx(-np.log(probabilities[:, np.arange(400), labels]).mean(), rel=1e-5)


def test_the_diagram_holds_all_predictions_of_all_seeds() -> None:
    labels, probabilities = drawn(2)
    points = calibration(labels, probabilities).points
    assert sum(point.rows for point in points) == 1200
    assert sum(point.rows * point.accuracy for point in points) == pytest.approx((probabilities.argmax(axis=2) == labels).sum())
    assert sum(point.rows * point.confidence for point in points) == pytest.approx(probabilities.max(axis=2).sum(), rel=1e-5)
    assert [point.confidence for point in points] == sorted(point.confidence for point in points)


def test_too_sure_is_worse_than_honest() -> None:
    labels, sharp = drawn(3, rows=3000, sharpness=3.0)
    _, honest = drawn(3, rows=3000, sharpness=1.0)
    assert calibration(labels, honest).error < 0.05 < 0.1 < calibration(labels, sharp).error


def test_confidence_on_an_edge_lies_in_the_lower_bin() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0], [0.0, 1.0]])
    points = diagram(np.array([0, 1, 0, 1]), probabilities, bins=4)
    assert [(point.confidence, point.accuracy, point.rows) for point in points] == [(0.5, 1, 1), (0.75, 0, 1), (1, 1, 2)]


def test_sure_and_right_has_no_error_and_sure_and_wrong_a_finite_one() -> None:
    certain = np.eye(3)[np.array([0, 1, 1, 0])][None]  # class 2 is never true and never said
    right, wrong = calibration(np.array([0, 1, 1, 0]), certain), calibration(np.array([1, 0, 0, 1]), certain)
    assert (right.error, right.brier) == (0, 0)
    assert right.log_loss == pytest.approx(0, abs=1e-9)
    assert (wrong.error, wrong.brier) == (1, 2)
    assert 10 < wrong.log_loss < 1000
    json.dumps(asdict(wrong), allow_nan=False)


def test_labels_may_lack_classes() -> None:
    labels, probabilities = drawn(4)
    assert calibration(np.zeros_like(labels), probabilities).log_loss == pytest.approx(-np.log(probabilities[:, :, 0]).mean(), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 4), (1, 5, 4), (0, 3, 4), (1, 3, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        calibration(np.zeros(3, dtype=np.int64), np.ones(shape))
