"""The store of finished results, and its upkeep: python -m threephase_ray.store STORE list|verify|prune."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.filesize import decimal

from threephase_ray.console import console, table
from threephase_ray.errors import ConfigError, JobError
from threephase_ray.lock import LEASE, Lock
from threephase_ray.results import MANIFEST, Manifest, Store, facts, key

__all__ = ["MANIFEST", "Manifest", "Store", "facts", "key", "main"]

_DAY = 86_400.0
_WATCH = 1.2  # leases for which a holder is watched before it counts as alive


def names(store: Store) -> list[str]:
    """The results of which the store has anything, finished or not: `data/<key>` and `phases/<phase>-<key>`."""
    found = {tuple(path.split("/")[:2]) for kind in ("data", "phases") for path in store.storage.sizes(kind)}
    found |= {("phases", path.split("/")[1]) for path in store.storage.sizes("progress")}
    return sorted("/".join(parts) for parts in found)


def show(store: Store) -> int:
    """List the results with size, age and state, and who works on them."""
    rows = []
    for name in names(store):
        sizes, manifest = store.storage.sizes(name) | store.storage.sizes(_progress(name)), store.manifest(name)
        lock = Lock(store.storage, name)
        holder = "" if lock.free() else lock.holder
        state = "finished" if manifest is not None else "in progress" if holder else "broken off"
        age = "" if manifest is None or manifest.time is None else _age(time.time() - manifest.time)
        rows.append([name, decimal(sum(sizes.values())), age, state, holder])
    table(store.storage.uri, ["result", "size", "age", "state", "held by"], rows)
    return 0


def verify(store: Store) -> int:
    """Compare every byte of the finished results with their manifests; 1 if any differs."""
    finished = [name for name in names(store) if store.is_finished(name)]
    problems = {name: problem for name in finished if (problem := store.damage(name, deep=True))}
    table(store.storage.uri, ["result", "state"], [[name, problems.get(name, "sound")] for name in finished])
    if problems:
        console.print(f"{len(problems)} of {len(finished)} damaged; remove them, to make them again: {store.advice}", soft_wrap=True)
    return int(bool(problems))


def prune(store: Store, older_than: float | None, *, damaged: bool, dry_run: bool) -> int:
    """Remove attempts that were broken off, checkpoints and locks of finished phases, and on request old or damaged results.

    Nothing whose lock is held is touched; while a run is at work, no finished result is removed, since it may read it.
    """
    runs = sorted({"/".join(path.split("/")[1:3]) for path in store.storage.sizes("locks/runs")})
    locks = [Lock(store.storage, name) for name in [*names(store), *runs]]
    held = _held(locks)
    rows = [[lock.name, "", f"left alone: held by {lock.holder}"] for lock in held]
    busy = any(lock.name in runs for lock in held)
    for lock in locks:
        if lock not in held and lock.name not in runs:
            why = None if busy else _unwanted(store, lock.name, older_than, damaged)
            rows += _clear(store, lock, why, dry_run)
    table(store.storage.uri, ["name", "size", "would be removed" if dry_run else "removed"], rows)
    return 0


def _held(locks: Sequence[Lock]) -> list[Lock]:
    """Those of the locks that are held; a holder that may have died elsewhere is watched for a lease."""
    deadline = time.monotonic() + _WATCH * LEASE
    held = [lock for lock in locks if not lock.free()]
    if held:
        console.print(f"watching for {_WATCH * LEASE:.0f} s whether the holders of {len(held)} lock(s) are alive")
    while held and time.monotonic() < deadline:
        time.sleep(LEASE / 30)
        held = [lock for lock in held if not lock.free()]
    return held


def _unwanted(store: Store, name: str, older_than: float | None, damaged: bool) -> str | None:
    """Why a finished result is to go as a whole; None if it stays."""
    manifest = store.manifest(name)
    if manifest is None:
        return None
    age = None if manifest.time is None or not name.startswith("phases/") else time.time() - manifest.time
    if older_than is not None and age is not None and age > older_than * _DAY:
        return f"finished {_age(age)} ago"
    problem = store.damage(name, deep=True) if damaged else None
    return f"damaged: {problem}" if problem else None


def _clear(store: Store, lock: Lock, why: str | None, dry_run: bool) -> list[list[str]]:
    """Remove what is superfluous of a result, under its lock; what it was, as rows of the table."""
    name, paths = lock.name, list(_superfluous(store, lock.name, why))
    if dry_run or not paths:
        return _rows(store, paths)
    with lock:
        if not lock.try_acquire():
            return [[name, "", f"left alone: held by {lock.holder}"]]
        rows = _rows(store, paths)
        for path, _ in paths:
            if not path.startswith("locks/"):
                lock.check()
                store.storage.remove(f"{path}/{MANIFEST}")  # first, so that half a result never counts
                store.storage.remove(path)
    if f"locks/{name}" in dict(paths):
        store.storage.remove(f"locks/{name}")
    return rows


def _superfluous(store: Store, name: str, why: str | None) -> Iterator[tuple[str, str]]:
    """(Name, why) of all that can go of a result: `why` the whole, if given."""
    manifest = store.manifest(name)
    if why is not None:
        yield name, why
    for attempt in store.attempts(name) if why is None else ():
        if manifest is None or attempt != manifest.attempt:
            yield f"{name}/{attempt}", "attempt that was broken off"
    if manifest is not None:  # then it was finished, and nobody needs its lock any more
        for path, reason in ((_progress(name), "checkpoints of a finished phase"), (f"locks/{name}", "lock of a finished result")):
            if store.storage.sizes(path):
                yield path, reason


def _rows(store: Store, paths: list[tuple[str, str]]) -> list[list[str]]:
    """The table's rows about things to remove."""
    return [[path, decimal(sum(store.storage.sizes(path).values())), reason] for path, reason in paths]


def _progress(name: str) -> str:
    """Where the checkpoints of a phase are."""
    return f"progress/{name.split('/', 1)[1]}"


def _age(seconds: float) -> str:
    """A span of time in the unit that fits."""
    for unit, length in (("days", _DAY), ("hours", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser("python -m threephase_ray.store", description="Upkeep of a store of results.")
    made.add_argument("store", help="folder, or URI such as s3://bucket/folder")
    commands = made.add_subparsers(dest="command", required=True, metavar="list|verify|prune")
    commands.add_parser("list", help="results with size, age and state, and who works on them")
    commands.add_parser("verify", help="compare every byte of the finished results with their manifests; exit code 1 if any differs")
    about = "remove attempts that were broken off, checkpoints and locks of finished phases; never what a live run holds"
    options = commands.add_parser("prune", help=about, description=about)
    options.add_argument("--older-than", type=float, metavar="DAYS", help="also finished phases older than so many days")
    options.add_argument("--damaged", action="store_true", help="also finished results whose bytes have changed")
    options.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes as those of the jobs."""
    asked = parser().parse_args(argv)
    try:
        with TemporaryDirectory() as scratch:
            store = Store(asked.store, scratch)
            if store.storage.folder is not None and not Path(store.storage.folder).is_dir():
                raise ConfigError(f"store: there is no folder {store.storage.folder}")
            if asked.command == "prune":
                return prune(store, asked.older_than, damaged=asked.damaged, dry_run=asked.dry_run)
            return show(store) if asked.command == "list" else verify(store)
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.code


if __name__ == "__main__":
    sys.exit(main())
