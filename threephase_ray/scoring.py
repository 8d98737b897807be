"""How good a run is: which probes and test predictions it needs, and what they gave."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from threephase_ray import keys, metrics
from threephase_ray.planning import Outline, Step
from threephase_ray.results import Store
from threephase_ray.training import probing, testing
from threephase_ray.training.plan import Prediction, Probe

START = "pretrained"  # what the first probe looks at


def classifies(step: Step) -> bool:
    """Whether a phase ends in a classifier, which can be tested."""
    return step.job.name in ("finetune", "baseline")


def tests(plan: Outline, run: str) -> dict[str, Prediction]:
    """The classifiers that predict the test split, or validation in its place, by their name in the results."""
    jobs: dict[str, Prediction] = {}
    split: str = plan.config.predict
    file = f"{run}/" + ("" if split == "test" else f"{split}_")
    if classifies(plan.chain[-1]):
        jobs[split] = Prediction("finetune", plan.chain[-1].job.result, f"{file}predictions.parquet", split)
    if plan.baseline is not None:
        jobs[f"baseline_{split}"] = Prediction("baseline", plan.baseline.job.result, f"{file}baseline_predictions.parquet", split)
    return jobs


def probes(plan: Outline) -> dict[str, Probe]:
    """The probes of a run, by the phase after which the embeddings are looked at."""
    if not plan.config.probe:
        return {}
    return {START: probe(plan, None)} | {step.job.name: probe(plan, step) for step in plan.chain}


def probe(plan: Outline, after: Step | None) -> Probe:
    """The probe of the embeddings after a phase, or of the pretrained encoder's; equal ones have equal names in the store."""
    key = keys.of_probe(probing.VERSION, plan.config, plan.data, after.job.key if after else None)
    return Probe(after.job.result if after else None, f"probes/{key}.json")


def probe_results(plan: Outline, store: Store) -> list[dict[str, Any]]:
    """What the embeddings were worth before and after each phase, and the files that hold some of them."""
    return [
        {"after": name, "figures": store.read_json(job.result), "embeddings": probing.embeddings_of(job.result)}
        for name, job in probes(plan).items()
    ]


def test_result(plan: Outline, store: Store, predictions: str) -> dict[str, Any]:
    """Scores, intervals, per-class figures, confusion counts and calibration of the predictions."""
    table = pq.read_table(pa.BufferReader(store.storage.read(predictions)), columns=["label", "predicted"])
    names = plan.data.label_names
    index = {name: i for i, name in enumerate(names)}
    truth, said = (np.array([index[name] for name in table[column].to_pylist()]) for column in ("label", "predicted"))
    counts = metrics.confusion(truth, said, len(names))
    sides = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    per_class = {name: values.tolist() for name, values in metrics.by_class(*sides).items()}
    return {
        "rows": len(truth),
        **metrics.classification(*sides),
        "accuracy_interval": metrics.interval(int(np.trace(counts)), len(truth)),
        "per_class": {"names": names, **per_class, "support": sides[2].tolist()},
        "confusion": counts.tolist(),
        "calibration": json.loads(table.schema.metadata[testing.CALIBRATION.encode()]),
    }
