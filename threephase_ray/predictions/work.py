"""What a worker does with its shards: read, score, write, each shard's file first and its record after it."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from threephase_ray import formats
from threephase_ray.predicting import Output, PredictConfig
from threephase_ray.predictions import rows
from threephase_ray.predictions.classifier import Scores, TextClassifier
from threephase_ray.predictions.fetching import fetched
from threephase_ray.predictions.rows import Shard
from threephase_ray.storage import connect

RECORDS = "_shards"  # readers of Parquet folders leave out what begins so
SCORED, ABSTAINED, EMPTY, UNDECODABLE = "scored", "abstained", "empty", "undecodable"


class Scorer:
    """An actor of Ray Data that holds the classifier; called with a batch of numbers of units."""

    def __init__(self, config: dict[str, Any], folder: str, units: Sequence[Sequence[Shard]]) -> None:
        """`folder`: where results go in the store. `units`: shards of one file each."""
        self._config, self._folder, self._units = PredictConfig(**config), folder, units
        torch.set_num_threads(max(1, int(self._config.compute.cpus_per_worker)))

    @cached_property
    def _classifier(self) -> TextClassifier:
        """Loaded with the first unit."""
        compute = self._config.compute
        device = torch.device("cuda" if compute.use_gpu else "cpu")
        embeds, tokens = self._config.output.embedding, self._config.batch_tokens
        model = fetched(self._config.model, self._config.scratch)
        return TextClassifier(model, device, precision=compute.arithmetic, tokens=tokens, embeds=embeds)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The records of the unit's shards, as they are done."""
        for number in batch["unit"]:
            for record in self.perform(self._units[int(number)]):
                yield {"record": np.array([json.dumps(record)], dtype=object)}

    def perform(self, unit: Sequence[Shard]) -> Iterator[dict[str, Any]]:
        """Score some shards of one file."""
        storage = connect(self._config.store)
        for shard, table in rows.tables(unit[0].file, list(unit), self._config.input.encoding):
            made, states = self.scored(table, shard)
            content, name = _parquet(made), file_name(shard)
            storage.write(f"{self._folder}/{name}.parquet", content)
            record = {"rows": shard.rows, "states": states, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            storage.write(f"{self._folder}/{RECORDS}/{name}.json", json.dumps(record).encode())
            yield record

    def scored(self, table: pa.Table, shard: Shard) -> tuple[pa.Table, dict[str, int]]:
        """The table with the new columns, and how many rows are in which state."""
        knobs, texts = self._config, []
        for number, value in enumerate(table[knobs.input.text_column].to_pylist()):
            texts.append(formats.text(value, f"{shard.file.name}, row {shard.first + number}"))
        states = [state_of(text) for text in texts]
        told = np.flatnonzero([state == SCORED for state in states])
        scores = self._classifier.score([str(texts[row]) for row in told], split=knobs.long_texts == "split")
        if knobs.output.abstain_below is not None:
            for row in told[scores.probabilities.max(axis=1, initial=0.0) < knobs.output.abstain_below]:
                states[row] = ABSTAINED
        for name, column in columns(scores, told, states, self._classifier.labels, knobs.output).items():
            table = table.append_column(f"{knobs.output.prefix}{name}", column)
        return table, dict(Counter(states))


def state_of(text: str | None) -> str:
    """Whether a text, without white space around it, is one to score."""
    return EMPTY if not text else UNDECODABLE if "\ufffd" in text else SCORED


def names(output: Output) -> list[str]:
    """The new columns."""
    kinds = ["label", "probability", "state", *(["labels", "probabilities"] if output.top != 1 else [])]
    return [f"{output.prefix}{kind}" for kind in [*kinds, *(["embedding"] if output.embedding else [])]]


def columns(scores: Scores, told: Any, states: list[str], labels: list[str], output: Output) -> dict[str, pa.Array]:
    """The new columns, null where a row was not scored; `told`: numbers of the rows that were."""
    count, where = len(states), np.full(len(states), -1)
    where[told] = np.arange(len(told))
    missing = where < 0
    best, kinds = scores.probabilities.argmax(axis=1) if len(told) else np.zeros(0, dtype=np.int64), pa.array(labels, pa.string())
    said = pa.array(np.where(missing, 0, best[where] if len(told) else 0), pa.int32(), mask=np.array([state != SCORED for state in states]))
    top = scores.probabilities.max(axis=1, initial=0.0)
    made = {
        "label": pa.DictionaryArray.from_arrays(said, kinds),
        "probability": pa.array(top[where] if len(told) else np.zeros(count, np.float32), pa.float32(), mask=missing),
        "state": pa.array(states, pa.string()).dictionary_encode(),
    }
    if output.top != 1:
        order = np.argsort(-scores.probabilities, axis=1, kind="stable")[:, : output.top]
        likely = np.take_along_axis(scores.probabilities, order, axis=1)
        flat = pa.DictionaryArray.from_arrays(pa.array(order.ravel(), pa.int32()), kinds)
        made["labels"] = _lists(flat, order.shape[1], missing)
        made["probabilities"] = _lists(pa.array(likely.ravel(), pa.float32()), order.shape[1], missing)
    if scores.embeddings is not None:
        made["embedding"] = _lists(pa.array(scores.embeddings.ravel(), pa.float32()), scores.embeddings.shape[1], missing)
    return made


def _lists(values: pa.Array, each: int, missing: Any) -> pa.Array:
    """`each` of the values for each row that is not missing, null for the others."""
    ends = np.concatenate([[0], np.cumsum(np.where(missing, 0, each))]).astype(np.int32)
    offsets = pa.array(ends, pa.int32(), mask=np.append(missing, False))
    return pa.ListArray.from_arrays(offsets, values)


def file_name(shard: Shard) -> str:
    """A shard's file, without its ending; in order of names the shards of a file are in the order of its rows."""
    return f"{Path(shard.file.name).name.split('.')[0]}-{_mark(shard.file.name)}-{shard.number:05d}"


def _mark(name: str) -> str:
    """Tells files of one name in several folders apart."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _parquet(table: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file, the same for the same table."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
