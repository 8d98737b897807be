"""Embeddings as a map: 2-D by t-SNE, where near points are alike and far ones tell nothing."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from threephase_ray.reports import charts, reading
from threephase_ray.reports.charts import COLOURS
from threephase_ray.results import Store

MOST = 200  # points on a map
LEAST = 12
_ITERATIONS = 400
_FEWEST = 2  # dimensions that can be drawn
_COMPONENTS = 30  # principal components that t-SNE starts from


def flat(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Places [n, 2] of embeddings [n, h]: principal components, then t-SNE."""
    from sklearn.decomposition import PCA  # here, since it takes seconds
    from sklearn.manifold import TSNE

    few = min(_COMPONENTS, *embeddings.shape)
    if few < _FEWEST or not embeddings.std(axis=0).any():
        return np.zeros((len(embeddings), 2))
    with threadpool_limits(1):  # for so few points, threads cost more than they do
        main = PCA(few, svd_solver="full").fit_transform(embeddings)
        start, near = main[:, :2] / main[:, 0].std() * 1e-4, min(30.0, (len(main) - 1) / 3)
        placed = TSNE(2, init=start, perplexity=near, max_iter=_ITERATIONS, random_state=0).fit_transform(main)
    return np.asarray(placed, dtype=np.float64)


def classes(labels: Sequence[Sequence[str]]) -> list[str]:
    """The names that the maps tell apart, most frequent first; further ones share the last, as "others"."""
    counted = [name for name, _ in Counter(name for each in labels for name in each).most_common()]
    return counted if len(counted) <= COLOURS else [*counted[: COLOURS - 1], f"{len(counted) - COLOURS + 1} others"]


def drawn(store: Store, probes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each probe with its figures and a map; without a file of embeddings there is no map."""
    tables = [_embeddings(store, probe) for probe in probes]
    names = classes([labels for labels, _ in filter(None, tables)])
    return [_told(probe, known, names) for probe, known in zip(probes, tables, strict=True)]


def _embeddings(store: Store, probe: dict[str, Any]) -> tuple[list[str], NDArray[np.float32]] | None:
    """Labels and embeddings of at most `MOST` rows, evenly chosen."""
    raw = reading.content(store, probe["embeddings"]) if probe.get("embeddings") else None
    if raw is None:
        return None
    found = pq.read_table(io.BytesIO(raw), columns=["label", "embedding"])
    found = found.take(
        np.unique(np.linspace(0, found.num_rows - 1, MOST).astype(int)) if found.num_rows > MOST else np.arange(found.num_rows)
    )
    if found.num_rows < LEAST:
        return None
    vectors = found["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return found["label"].to_pylist(), vectors.reshape(found.num_rows, -1)


def _told(probe: dict[str, Any], known: tuple[list[str], NDArray[np.float32]] | None, names: Sequence[str]) -> dict[str, Any]:
    """A probe for the page."""
    figures = probe["figures"]
    map_ = None
    if known is not None:
        kinds = [names.index(label) if label in names else len(names) - 1 for label in known[0]]
        caption = f"Map of {len(kinds)} validation texts by their embeddings, {_when(probe['after'])}"
        map_ = charts.scatter([(float(x), float(y)) for x, y in flat(known[1])], kinds, names, caption)
    return {
        "after": probe["after"],
        "title": _when(probe["after"]),
        "map": map_,
        "knn": figures["knn"]["accuracy"],
        "linear": figures["linear"]["accuracy"],
        "silhouette": figures.get("silhouette"),
    }


def _when(after: str) -> str:
    """Of which stage the embeddings are."""
    return "before any phase" if after == "pretrained" else f"after {after}"
