"""What the embeddings of a finished phase are worth: simple classifiers on them, scored on validation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from threephase_ray import metrics, phases, pretrained, sampling
from threephase_ray.loader import Split
from threephase_ray.phases.spec import Ints
from threephase_ray.training import evaluate
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.plan import Desk, Probe
from threephase_ray.training.together import first

VERSION = 1  # raise it when the arithmetic changes: finished probes are then computed anew
MOST = 10_000  # rows of a split that are looked at
NEIGHBOURS = 5


def probe(job: Probe, desk: Desk) -> None:
    """Write accuracy and macro figures of logistic regression and of the nearest neighbours, as {"linear": ..., "knn": ...}."""
    config, data, device = desk.config, desk.data, desk.device
    phase = phases.build("finetune", config, data)
    model = pretrained.start(config.encoder, desk.store.fetch(job.model)).to(device)
    engine = PlainEngine(model, [], device, Settings(stage=0, precision=config.compute.precision, clip=1.0, epsilon=1e-8, micros=1))
    sides = []
    for split in (phase.train, phase.validation):
        rows = labelled(split, config.seed)
        embeddings = evaluate.per_row(
            lambda model, batch: model(batch["ids"], batch["mask"]), phase, engine, device, split, config.compute.micro_batch, rows
        )
        sides.append((embeddings, split.labels[rows, -1]))
    figures = first(lambda: compare(sides[0], sides[1], len(data.label_names)))
    desk.report({"event": "probe", "of": job.model, **{f"{kind}_{name}": each[name] for kind, each in figures.items() for name in each}})
    first(lambda: desk.store.write_json(job.result, figures))


def labelled(split: Split, seed: int) -> Ints:
    """The rows that have a label, or `MOST` of them, drawn at random, in order."""
    rows: Ints = np.flatnonzero(split.labels[:, -1] >= 0)
    if len(rows) <= MOST:
        return rows
    return np.sort(sampling.generator(seed).choice(rows, MOST, replace=False))


def compare(
    train: tuple[NDArray[np.float32], Ints], validation: tuple[NDArray[np.float32], Ints], classes: int
) -> dict[str, dict[str, Any]]:
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
