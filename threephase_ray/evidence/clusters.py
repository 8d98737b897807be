"""How well embeddings keep the classes apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mode
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 5


@dataclass(frozen=True)
class Clusters:
    """`silhouette`: -1 to 1; `neighbours`: share of rows whose neighbours vote for their class. None where they say nothing."""

    silhouette: float | None
    neighbours: float | None


def clusters(embeddings: NDArray[np.floating], classes: NDArray[np.int64], neighbours: int = NEIGHBOURS) -> Clusters:
    """Silhouette and leave-one-out accuracy of the `neighbours` nearest, both by cosine, of embeddings [n, h] with classes [n].

    None where there is one class, or no class with two rows. With fewer rows, all others vote.
    """
    found = len(np.unique(classes))
    if not 1 < found < len(classes):
        return Clusters(None, None)
    vectors = embeddings.astype(np.float64)
    return Clusters(float(silhouette_score(vectors, classes, metric="cosine")), _vote(vectors, classes, min(neighbours, len(classes) - 1)))


def _vote(vectors: NDArray[np.float64], classes: NDArray[np.int64], neighbours: int) -> float:
    """Share of rows whose class is the commonest among the other rows nearest to them, of equals the lowest, as in scikit-learn."""
    nearest = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(vectors)
    others = nearest.kneighbors(return_distance=False)  # asked without rows, it leaves out each row itself
    return float(np.mean(mode(classes[others], axis=1).mode == classes))
