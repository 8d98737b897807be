"""The job: find the files, leave out the shards that are done, let Ray Data's actors score the others, write what came of it."""

from collections import Counter
from pathlib import Path
from typing import Any

from threephase_ray import console, sources
from threephase_ray.errors import ConfigError, DataError
from threephase_ray.pipeline import alone
from threephase_ray.predicting import PredictConfig
from threephase_ray.predictions import rows, work
from threephase_ray.predictions.fetching import fetched, fingerprint, place
from threephase_ray.predictions.rows import Shard
from threephase_ray.results import Store, key

JOB, MANIFEST = "_job.json", "_manifest.json"


def predict(config: PredictConfig, dry_run: bool = False) -> None:
    """Score all files; shards that an earlier attempt finished are left as they are.

    Raises:
        JobError: with what is wrong, where, and what to do.
    """
    store, folder = Store(config.store, config.scratch), f"predictions/{config.name}"
    config = config.model_copy(update={"store": store.storage.uri, "model": place(config.model, store)})  # the same for all nodes
    with console.counting() as progress:
        files = sources.files(config.input.files, "input.files")
        found = []
        for number, file in enumerate(files):
            check(file, config)
            found += rows.shards(file, config.output.shard_rows, config.input.text_column, config.input.encoding)
            progress("counting", number + 1, len(files))
    show(config, files, found, len(found) - len(missing(store, folder, found)), f"{store.storage.uri}/{folder}")
    if dry_run:
        return
    with alone(store, folder):
        begin(config, store, folder, files)
        if pending := missing(store, folder, found):
            from threephase_ray.predictions.actors import score  # here, so that a plan and a job that is done need no Ray

            score(config, folder, pending, sum(shard.rows for shard in found))
        deliver(config, store, folder, found)


def check(file: sources.File, config: PredictConfig) -> None:
    """Refuse a file whose own columns have names of those that are added.

    Raises:
        DataError: names them.
    """
    taken = sorted(set(rows.header(file, config.input.encoding)) & set(work.names(config.output)))
    if taken:
        raise DataError(f"{file.name}: has the column {taken[0]!r} already\n  choose another output.prefix")


def finished(store: Store, folder: str) -> set[str]:
    """The shards that are done, as their files are called."""
    return {Path(name).stem for name in store.storage.sizes(f"{folder}/{work.RECORDS}")}


def missing(store: Store, folder: str, found: list[Shard]) -> list[Shard]:
    """The shards that are not done."""
    done = finished(store, folder)
    return [shard for shard in found if work.file_name(shard) not in done]


def show(config: PredictConfig, files: list[sources.File], found: list[Shard], done: int, where: str) -> None:
    """Say what will be done."""
    count = sum(shard.rows for shard in found)
    lines = [["files", f"{len(files):,}"], ["rows", f"{count:,}"], ["shards", f"{len(found):,}"], ["of them done", f"{done:,}"]]
    console.table("prediction", ["", ""], [*lines, ["workers", str(config.compute.most)], ["results", where]])


def begin(config: PredictConfig, store: Store, folder: str, files: list[sources.File]) -> None:
    """Note what the results depend on, or compare it with what they depended on when this job began.

    Raises:
        ConfigError: the folder holds results of other texts, another classifier or other knobs.
    """
    knobs = config.model_dump(mode="json", include={"input": True, "output": True, "long_texts": True})
    precision = config.compute.precision
    parts = {"knobs": knobs, "model": fingerprint(fetched(config.model, config.scratch)), "precision": precision}
    parts |= {"files": [file.fingerprint() for file in files]}
    name = f"{folder}/{JOB}"
    if store.storage.sizes(name) and (before := store.read_json(name))["key"] != key(parts):
        other = next(part for part in ("model", "files", "precision", "knobs") if before["parts"][part] != parts[part])
        raise ConfigError(f"{folder}: holds results of other {other}\n  choose another `name`, or remove {store.storage.uri}/{folder}")
    store.write_json(name, {"key": key(parts), "parts": parts})


def deliver(config: PredictConfig, store: Store, folder: str, found: list[Shard]) -> None:
    """Write the manifest, and show how many rows are in which state."""
    names = [work.file_name(shard) for shard in found]
    files: dict[str, Any] = {f"{name}.parquet": store.read_json(f"{folder}/{work.RECORDS}/{name}.json") for name in names}
    states: Counter[str] = Counter()
    for record in files.values():
        states.update(record["states"])
    store.write_json(f"{folder}/{MANIFEST}", {"rows": sum(shard.rows for shard in found), "states": dict(states), "files": files})
    console.table("rows", ["state", "rows"], [[state, f"{count:,}"] for state, count in sorted(states.items())])
    console.console.print(f"results: {store.storage.uri}/{folder}", highlight=False, soft_wrap=True)
