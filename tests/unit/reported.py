"""A store with a run, a sweep and a study as jobs leave them, for tests of reports: figures drawn at random, names that need escaping."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit import tiny, tiny_models
from threephase_ray import data, metrics
from threephase_ray.command import dump
from threephase_ray.config import Encoder
from threephase_ray.loader import DataSet
from threephase_ray.results import Store

EVIL = "<script>alert('x')</script>"
LABELS = ["sport & play", EVIL, "a|b_c*d*", "{{ 7 * 7 }}", "weather \N{SNOWMAN}"]


def store(folder: Path) -> Store:
    """An empty store."""
    return Store(str(folder / "store"), str(folder / "scratch"))


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of a few words with labels, the first label the most frequent."""
    rng = np.random.default_rng(seed)
    words = [piece for piece in tiny.WORDS if not piece.startswith("##")]
    weights = 0.5 ** np.arange(len(LABELS))
    chosen = rng.choice(len(LABELS), count, p=weights / weights.sum())
    chosen[: 2 * len(LABELS)] = np.repeat(np.arange(len(LABELS)), 2)
    return [(f"{' '.join(rng.choice(words, 8))} {i} <b>&", LABELS[k]) for i, k in enumerate(chosen)]


def parquet(kept: Store, name: str, columns: dict[str, Any]) -> None:
    """A Parquet file of the store."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    kept.storage.write(name, buffer.getvalue())


def guessed(truth: np.ndarray, classes: int, skill: float, seed: int) -> np.ndarray:
    """Probabilities [m, k] that are right about as often as `skill`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(truth), classes))
    logits[np.arange(len(truth)), truth] += np.where(rng.random(len(truth)) < skill, 3.5, -1.0)
    exact = np.exp(2 * logits)
    return exact / exact.sum(axis=1, keepdims=True)


def scored(truth: np.ndarray, said: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Figures on a split as a run's results hold them."""
    counts = metrics.confusion(truth, said, len(names))
    sides = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    each = {name: values.tolist() for name, values in metrics.by_class(*sides).items()}
    return {
        "rows": len(truth),
        **metrics.classification(*sides),
        "accuracy_interval": metrics.interval(int(np.trace(counts)), len(truth)),
        "per_class": {"names": names, **each, "support": sides[2].tolist()},
        "confusion": counts.tolist(),
    }


def calibration(split: str, count: int) -> dict[str, Any]:
    """What a temperature did, as a run's results tell it."""
    errors = {"before": {"log_loss": 0.5, "ece": 0.25}, "after": {"log_loss": 0.375, "ece": 0.125}}
    return {"temperature": 1.75, "reason": "", "splits": {"validation": {"rows": 60, **errors}, split: {"rows": count, **errors}}}


def phase(kept: Store, name: str, key: str, folder: str = "") -> dict[str, Any]:
    """A finished phase with curves, and its row in a run's results."""
    steps, rng = 120, np.random.default_rng(len(name))
    losses = (3 * np.exp(-np.arange(steps) / 40) + rng.normal(0, 0.15, steps) + 0.6).tolist()
    kind = {"dae": "token_accuracy", "contrastive": "neighbour_accuracy"}.get(name, "accuracy")
    checks = [{"step": step, "loss": 3 * np.exp(-step / 50) + 0.7, kind: 1 - np.exp(-step / 60)} for step in range(12, 121, 12)]
    if kind == "accuracy":
        checks = [check | {"macro_f1": 0.9 * check[kind], "macro_precision": 0.8, "macro_recall": 0.8} for check in checks]
    scores = {key: value for key, value in checks[-2].items() if key != "step"}
    cost = {
        "seconds": 61.5,
        "worker_seconds": 123.0,
        "cpu_seconds": 110.0,
        "peak_memory": 1_500_000_000,
        "parameters": 22_700_000,
        "workers": 2,
    }
    row = {"phase": name, "key": key, "scores": scores, "validations": checks, "best_step": 108, "steps": steps, **cost}
    place = kept.attempt(f"phases/{folder or name}-{key}", 1)
    (place / "metrics.json").write_text(json.dumps(row | {"losses": losses}))
    kept.commit(f"phases/{folder or name}-{key}", 1)
    return row | {"reused": name == "dae"}


def run(folder: Path, name: str = "mine", count: int = 160, baseline: bool = True, split: str = "test") -> Store:
    """A store with a run; probes before and after each phase."""
    kept = store(folder)
    source = folder / "source"
    for seed, (part, size) in enumerate({"train": 120, "validation": 60, "test": count}.items()):
        tiny.write_csv(source / f"{part}.csv", rows(size, seed))
    words = tiny.tokenizer()
    config = tiny_models.configured(Encoder(path="encoder"), source=str(source), store=kept.storage.uri, baseline={} if baseline else None)
    made = DataSet(data.prepare(config.data, words, 64, kept, seed=0))
    truth = made.split(split).labels[:, -1]
    names, place, prefix = made.label_names, f"runs/{name}", "" if split == "test" else "validation_"
    results: dict[str, Any] = {
        "name": name,
        "version": "0.1.0",
        "versions": {"python": "3.11", "torch": "2.13"},
        "data": {"folder": str(made.folder), "content": made.facts["content"], "checks": made.facts["checks"]},
        "phases": [phase(kept, each, f"{i}" * 16) for i, each in enumerate(("dae", "contrastive", "finetune"))],
        "baseline": phase(kept, "finetune", "b" * 16, "baseline") if baseline else None,
        "probes": probes(kept, made),
        "goodput": 0.97,
    }
    for who, skill in (("", 0.9), ("baseline_", 0.8)) if baseline else (("", 0.9),):
        sure = guessed(truth, made.classes, skill, len(who))
        said = sure.argmax(axis=1)
        results[f"{who}{split}"] = scored(truth, said, names) | {"calibration": calibration(split, count)}
        columns = {"row": made.split(split).ids, "label": [names[k] for k in truth], "predicted": [names[k] for k in said]}
        parquet(kept, f"{place}/{prefix}{who}predictions.parquet", {**columns, "probabilities": vectors(sure.astype(np.float32))})
    kept.storage.write(f"{place}/config.yaml", dump(config.model_copy(update={"name": name})).encode())
    kept.write_json(f"{place}/results.json", results)
    return kept


def vectors(values: np.ndarray) -> pa.Array:
    """Vectors [n, h] as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def probes(kept: Store, made: DataSet) -> list[dict[str, Any]]:
    """Embeddings that get clearer from phase to phase."""
    rng, split, found = np.random.default_rng(3), made.split("validation"), []
    labels = split.labels[:, -1]
    centres, noise = rng.normal(size=(len(made.label_names), 16)), rng.normal(size=(len(labels), 16))
    for i, after in enumerate(("pretrained", "dae", "contrastive", "finetune")):
        name = f"probes/{i}.parquet"
        places = (0.4 * i * centres[labels] + noise).astype(np.float32)
        parquet(kept, name, {"row": split.ids, "label": [made.label_names[k] for k in labels], "embedding": vectors(places)})
        scores = {"accuracy": 0.5 + 0.1 * i, "macro_f1": 0.4 + 0.1 * i}
        found.append(
            {"after": after, "figures": {"linear": scores, "knn": scores, "silhouette": None if i == 1 else 0.1 * i}, "embeddings": name}
        )
    return found
