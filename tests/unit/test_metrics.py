import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from threephase_ray import metrics


def counted(truth: np.ndarray, said: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, predictions and support [k]."""
    table = metrics.confusion(truth, said, classes)
    return np.diag(table), table.sum(axis=0), table.sum(axis=1)


@pytest.mark.parametrize("seed", range(40))
def test_scores_equal_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    shares = rng.dirichlet(np.full(classes, 0.4))  # some classes are rare or absent
    truth = rng.choice(classes, size=int(rng.integers(1, 40)), p=shares)
    said = np.where(rng.random(len(truth)) < 0.6, truth, rng.integers(0, classes, size=len(truth)))
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
    scores = metrics.classification(*counted(truth, said, classes))
    assert scores == {
        "accuracy": pytest.approx(accuracy_score(truth, said)),
        "macro_precision": pytest.approx(precision),
        "macro_recall": pytest.approx(recall),
        "macro_f1": pytest.approx(f1),
    }


def test_classes_unseen_in_training_count_as_errors() -> None:
    truth, said = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 1, 1, 0, 1])  # 2 and 3 are never predicted
    scores = metrics.classification(*counted(truth, said, 4))
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
    assert scores["accuracy"] == pytest.approx(3 / 6)
    assert [scores["macro_precision"], scores["macro_recall"], scores["macro_f1"]] == pytest.approx([precision, recall, f1])
    assert scores["macro_recall"] == pytest.approx((1 / 2 + 1 + 0 + 0) / 4)


def test_each_class_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth, said = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, labels=range(5), zero_division=0)
    ours = metrics.by_class(*counted(truth, said, 5))
    np.testing.assert_allclose([ours["precision"], ours["recall"], ours["f1"]], [precision, recall, f1])


def test_confusion_equals_scikit_learn_and_adds_up_over_shares() -> None:
    rng = np.random.default_rng(2)
    truth, said = rng.integers(0, 6, 90), rng.integers(0, 6, 90)
    whole = metrics.confusion(truth, said, 7)
    assert (whole[:6, :6] == confusion_matrix(truth, said, labels=range(6))).all()
    assert whole[6].sum() == whole[:, 6].sum() == 0
    assert (metrics.confusion(truth[:33], said[:33], 7) + metrics.confusion(truth[33:], said[33:], 7) == whole).all()


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (10, 10), (1, 2), (690, 700), (2104, 2189)])
def test_the_interval_is_wilsons(hits: int, total: int) -> None:
    """(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), Wilson 1927."""
    for confidence in (0.9, 0.95):
        z, share = norm.ppf(0.5 + confidence / 2), hits / total
        middle, half = share + z**2 / (2 * total), z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
        expected = np.array([middle - half, middle + half]) / (1 + z**2 / total)
        np.testing.assert_allclose(metrics.interval(hits, total, confidence), np.clip(expected, 0, 1), atol=1e-12)


def test_a_known_interval() -> None:
    assert metrics.interval(15, 20) == pytest.approx((0.5313, 0.8881), abs=5e-5)
