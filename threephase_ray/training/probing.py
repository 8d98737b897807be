"""What embeddings are worth, before and after a phase: simple classifiers on them, scored on validation, and some of them to be drawn."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from threephase_ray import metrics, phases, pretrained, sampling
from threephase_ray.evidence.clusters import clusters
from threephase_ray.loader import Split
from threephase_ray.models import Embedder
from threephase_ray.phases.spec import Ints
from threephase_ray.training import evaluate
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.plan import Desk, Probe
from threephase_ray.training.together import first

VERSION = 2  # raise it when the arithmetic changes: finished probes are then computed anew
MOST = 10_000  # rows of a split that are looked at
DRAWN = 1_000  # validation rows whose embeddings are kept, and told apart
NEIGHBOURS = 5

Side = tuple[NDArray[np.float32], Ints]  # embeddings [n, h] and classes [n]


def probe(job: Probe, desk: Desk) -> None:
    """Write accuracy and macro figures of logistic regression and of the nearest neighbours, as {"linear": ..., "knn": ...}.

    Beside them the silhouette of `DRAWN` validation rows, whose embeddings are kept.
    """
    if first(lambda: bool(desk.store.storage.sizes(job.result))):
        return  # another run has looked
    model = pretrained.start(desk.config.encoder, None if job.model is None else desk.store.fetch(job.model))
    train, validation = (embedded(model, desk, split) for split in ("train", "validation"))

    def write() -> dict[str, Any]:
        some = sample(len(validation[1]), DRAWN, desk.config.seed)
        rows = labelled(desk.data.split("validation"), desk.config.seed)[some]
        desk.store.storage.write(embeddings_of(job.result), _file(desk, rows, validation[0][some]))
        found = compare(train, validation, len(desk.data.label_names))
        figures = found | {"silhouette": clusters(validation[0][some], validation[1][some]).silhouette}
        desk.store.write_json(job.result, figures)
        return found

    found = first(write)
    desk.report({"event": "probe", "of": job.model, **{f"{kind}_{name}": each[name] for kind, each in found.items() for name in each}})


def embeddings_of(result: str) -> str:
    """The file with embeddings beside a probe's result: row, label, embedding."""
    return result.removesuffix(".json") + ".parquet"


def embedded(model: Embedder, desk: Desk, name: str) -> Side:
    """Embeddings and classes of the labelled rows of a split, at most `MOST`, on every worker."""
    config, device = desk.config, desk.device
    phase, split = phases.build("finetune", config, desk.data), desk.data.split(name)
    settings = Settings(stage=0, precision=config.compute.precision, clip=1.0, epsilon=1e-8, micros=1)
    engine = PlainEngine(model.to(device), [], device, settings)
    rows = labelled(split, config.seed)
    found = evaluate.per_row(
        lambda model, batch: model(batch["ids"], batch["mask"]), phase, engine, device, split, config.compute.micro_batch, rows
    )
    return found, split.labels[rows, -1]


def labelled(split: Split, seed: int) -> Ints:
    """The rows that have a label, or `MOST` of them, drawn at random, in order."""
    rows: Ints = np.flatnonzero(split.labels[:, -1] >= 0)
    return rows[sample(len(rows), MOST, seed)]


def sample(rows: int, most: int, seed: int) -> Ints:
    """So many of the numbers 0 ... rows - 1, drawn at random, in order; all where there are no more."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(sampling.generator(seed).choice(rows, most, replace=False))


def _file(desk: Desk, rows: Ints, embeddings: NDArray[np.float32]) -> bytes:
    """A Parquet file with embeddings of validation rows."""
    split, names = desk.data.split("validation"), np.array(desk.data.label_names, dtype=object)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"row": split.ids[rows], "label": names[split.labels[rows, -1]], "embedding": vectors}), buffer)
    return buffer.getvalue()


def compare(train: Side, validation: Side, classes: int) -> dict[str, dict[str, float]]:
    """Figures on validation of classifiers fitted on the training embeddings [n, h] and classes [n]."""
    kinds = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "knn": KNeighborsClassifier(min(NEIGHBOURS, len(train[1])), metric="cosine"),
    }
    figures = {}
    for kind, classifier in kinds.items():
        counts = metrics.confusion(validation[1], classifier.fit(*train).predict(validation[0]), classes)
        figures[kind] = metrics.classification(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1))
    return figures
