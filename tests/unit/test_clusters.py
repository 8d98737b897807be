import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from threephase_ray.evidence.clusters import Clusters, clusters


def drawn(apart: float, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [n, 8] in float32 around one direction for each of 3 classes, and the classes."""
    rng = np.random.default_rng(0)
    classes = np.arange(rows) % 3
    return (apart * np.eye(8)[classes] + rng.normal(size=(rows, 8))).astype(np.float32), classes


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0])
def test_figures_are_those_of_scikit_learn(apart: float) -> None:
    embeddings, classes = drawn(apart)
    found = clusters(embeddings, classes)
    each = cross_val_score(KNeighborsClassifier(5, metric="cosine"), embeddings, classes, cv=LeaveOneOut())
    assert found.neighbours == pytest.approx(each.mean())
    assert found.silhouette == pytest.approx(silhouette_score(embeddings.astype(float), classes, metric="cosine"))


def test_classes_further_apart_score_higher() -> None:
    near, far = clusters(*drawn(1.0)), clusters(*drawn(20.0))
    assert near.silhouette is not None
    assert near.neighbours is not None
    assert far.silhouette is not None
    assert near.silhouette < 0.5 < 0.9 < far.silhouette
    assert near.neighbours < far.neighbours == 1


@pytest.mark.parametrize("classes", [[0, 0, 0, 0], [0, 1, 2, 3], [2]])
def test_one_class_or_only_single_rows_say_nothing(classes: list[int]) -> None:
    assert clusters(np.random.default_rng(1).normal(size=(len(classes), 8)), np.array(classes)) == Clusters(None, None)


def test_single_rows_among_others_and_few_rows_are_no_obstacle() -> None:
    found = clusters(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.array([0, 0, 1]))
    assert found.neighbours == pytest.approx(2 / 3)  # the single row has no neighbour of its class
    assert found.silhouette == pytest.approx(2 / 3, abs=0.01)


def test_embeddings_that_collapsed_are_no_obstacle() -> None:
    found = clusters(np.ones((20, 8), dtype=np.float32), np.arange(20) % 2)
    assert found.silhouette == pytest.approx(0, abs=1e-6)
    assert found.neighbours is not None
    assert clusters(np.zeros((20, 8)), np.arange(20) % 2).silhouette == 0
