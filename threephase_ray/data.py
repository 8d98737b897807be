"""Raw texts to a data set folder: read, checked, split and tokenised once; the folder is named by all it depends on."""

import contextlib
import hashlib
import json
import math
import sqlite3
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threephase_ray import checks, config, shards, sources
from threephase_ray.checks import Progress
from threephase_ray.console import console
from threephase_ray.errors import DataError, ResourceError
from threephase_ray.lock import Lock
from threephase_ray.pieces import Pieces
from threephase_ray.store import Store, key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1
SAMPLE = 10_000  # training texts of which the longest decides the maximum length


@dataclass(frozen=True)
class Plan:
    """What will be read for each split, by which rules, and the name of the result in the store."""

    found: dict[str, list[sources.Origin]]
    data: config.Data
    tokenizer: "PreTrainedTokenizerBase"
    limit: int
    seed: int
    name: str

    @property
    def missing(self) -> dict[str, float]:
        """Splits to be drawn from the training split, in this order, and their shares."""
        shares = {"test": self.data.test_share, "validation": self.data.validation_share}
        return {split: share for split, share in shares.items() if split not in self.found}


def plan(data: config.Data, tokenizer: "PreTrainedTokenizerBase", limit: int, seed: int) -> Plan:
    """Find the sources, and name the result by a hash of all that the data set depends on.

    Raises:
        DataError, ConfigError: as `prepare`.
    """
    if data.max_length is not None and data.max_length > limit:
        raise DataError(f"data.max_length: the encoder reads {limit} tokens at most, not {data.max_length}")
    found = sources.find(data)
    draws = not {"validation", "test"} <= found.keys() or data.rows.draws
    parts = {
        "version": VERSION,
        "content": {split: [origin.fingerprint() for origin in origins] for split, origins in found.items()},
        "data": data.model_dump(mode="json", exclude={"source", *sources.SPLITS}),
        "tokenizer": hashlib.sha256(shards.plain(tokenizer).to_str().encode()).hexdigest(),
        "limit": limit,
        "seed": seed if draws else 0,
    }
    return Plan(found, data, tokenizer, limit, seed if draws else 0, f"data/{key(parts)}")


def prepare(
    data: config.Data, tokenizer: "PreTrainedTokenizerBase", limit: int, store: Store, seed: int, progress: Progress | None = None
) -> Path:
    """The local folder with the data set of the store, made unless it is there; `limit` is the model's maximum length in tokens.

    Where there is no validation or test split, first test and then validation are drawn from the training split:
    stratified, and all copies of a text on one side. `progress` receives a stage, rows done, and rows in all (0: unknown).

    Raises:
        DataError: data that cannot be found or read, or that does not pass the checks.
        ConfigError: knobs that do not fit the data.
        ResourceError: the store cannot be written.
    """
    planned = plan(data, tokenizer, limit, seed)
    if not store.is_finished(planned.name):  # else perhaps in a store that is read-only
        with Lock(store.storage, planned.name) as lock:  # who comes second waits, and finds the work done
            lock.acquire(lambda holder: console.print(f"{planned.name} is being made by {holder}: waiting for it", soft_wrap=True))
            if not store.is_finished(planned.name):
                _make_and_commit(planned, store, lock, progress if progress is not None else _silent)
    return store.fetch(planned.name)


def _silent(stage: str, done: int, total: int) -> None:
    """The progress that nobody watches."""


def _make_and_commit(planned: Plan, store: Store, lock: Lock, progress: Progress) -> None:
    """Make the data set in an attempt of its own, which counts when it is whole, and leaves nothing when it fails."""
    folder = store.attempt(planned.name, lock.token)
    try:
        _make(planned, folder, progress)
        lock.check()
        store.commit(planned.name, lock.token)
    except BaseException as error:
        store.discard(planned.name, lock.token)
        if isinstance(error, OSError | sqlite3.OperationalError):
            raise ResourceError(f"store: {folder} cannot be written: {error}\n  free space, or set another `store`") from error
        raise


def _make(planned: Plan, folder: Path, progress: Progress) -> None:
    """Fill the folder; `dataset.json` comes last."""
    data, tokenizer = planned.data, planned.tokenizer
    with contextlib.closing(_database(folder / "rows.sqlite")) as db:
        checks.stage(db, planned.found, data, planned.seed, progress)
        report = checks.gate(db, data, planned.missing, planned.seed)
        names, classes = _label_names(db, len(data.label_columns))
        length = data.max_length if data.max_length is not None else _max_length(db, tokenizer, planned.limit)
        known = Pieces(shards.plain(tokenizer), length, left=tokenizer.truncation_side == "left")
        writer = shards.Writer(folder, [_numbers(level) for level in names], known, data.shard_rows)
        splits = {split: writer.write(split, db, size, progress) for split, size in checks.split_sizes(db).items()}
    (folder / "rows.sqlite").unlink()
    tokenizer.save_pretrained(folder / "tokenizer")
    description = {
        "version": VERSION,
        "content": _content(folder, names),
        "label_columns": list(data.label_columns),
        "label_names": names,
        "num_classes": classes,
        "max_length": length,
        "truncated": {split: written.pop("truncated") for split, written in splits.items()},
        "splits": {split: written | {"origin": _origin(split, planned)} for split, written in splits.items()},
        "checks": report,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def _origin(split: str, planned: Plan) -> str:
    """Was the split given, or taken from the training split?"""
    if split not in planned.found:
        return "drawn from train"
    joined = split == "unlabelled" and planned.data.rows.rest == "unlabelled" and planned.data.rows.cuts_train
    return "given, and left out of train" if joined else "given"


def describe(folder: Path) -> dict[str, Any]:
    """What `dataset.json` says about a data set.

    Raises:
        DataError: the folder holds no finished data set.
    """
    try:
        description: dict[str, Any] = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: holds no prepared data set; run jobs/prepare.py") from error
    return description


def _database(path: Path) -> sqlite3.Connection:
    """A scratch database: no other process opens it, and nobody needs it after a crash."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?nolock=1", uri=True, isolation_level=None)
    db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE; BEGIN")
    return db


def _label_names(db: sqlite3.Connection, levels: int) -> tuple[list[list[str]], int]:
    """Names of each level, those of the training split first, each part sorted; and how many of the finest occur in training."""
    trained, others = [set[str]() for _ in range(levels)], [set[str]() for _ in range(levels)]
    for labels, in_training in db.execute("SELECT DISTINCT labels, split = 'train' FROM rows WHERE label IS NOT NULL"):
        for names, name in zip(trained if in_training else others, json.loads(labels), strict=True):
            names.add(name)
    return [sorted(seen) + sorted(unseen - seen) for seen, unseen in zip(trained, others, strict=True)], len(trained[-1])


def _numbers(names: list[str]) -> dict[str | None, int]:
    """The number of each label name; -1 without one."""
    return {None: -1} | {name: number for number, name in enumerate(names)}


def _max_length(db: sqlite3.Connection, tokenizer: "PreTrainedTokenizerBase", limit: int) -> int:
    """The longest of a sample of training texts, in tokens, times 1.2, but at least 8, and what the model can read at most."""
    query = "SELECT text FROM rows WHERE id IN (SELECT id FROM rows WHERE split = 'train' ORDER BY digest LIMIT ?)"
    texts = (text for (text,) in db.execute(query, (SAMPLE,)))
    plain, longest = shards.plain(tokenizer), 0
    while batch := list(islice(texts, shards.BATCH)):
        longest = max(longest, *(len(encoding) for encoding in plain.encode_batch(batch)))
    return min(limit, max(8, math.ceil(longest * 6 / 5)))


def _content(folder: Path, names: list[list[str]]) -> str:
    """The data set's identity: SHA-256 over its shards and label names."""
    digest = hashlib.sha256(json.dumps(names).encode())
    for path in sorted(folder.glob("*.arrow")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
