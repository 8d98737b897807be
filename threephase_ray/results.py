"""Finished results, each named by a hash of all it depends on, in a folder or an object store.

`<name>/manifest.json` is created last, once and for all: it names the attempt that counts, and size and SHA-256 of each of its files.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from threephase_ray.errors import JobError
from threephase_ray.folder import explain, sync
from threephase_ray.storage import StoreError, connect, valid

MANIFEST = "manifest.json"
ATTEMPT = "attempt-"


def key(parts: Mapping[str, Any]) -> str:
    """Short hash of everything that a result depends on.

    Raises:
        TypeError, ValueError: a part is no plain JSON value, so its hash would mean nothing.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Manifest:
    """What a finished result consists of: size and SHA-256 of each file of the attempt that counts; and when that was, if known."""

    attempt: str
    files: dict[str, dict[str, Any]]
    time: float | None  # seconds since 1970


class Store:
    """The results at `uri`, a folder or an object store; `scratch`: folder of this node for copies from and to an object store.

    Raises:
        ConfigError: `uri` leads to no kind of store.
    """

    def __init__(self, uri: str, scratch: str) -> None:
        self.storage = connect(uri)
        mine = hashlib.sha256(self.storage.uri.encode()).hexdigest()[:16]
        self._local = self.storage.folder
        self._scratch = Path(scratch).expanduser().absolute() / mine
        self.advice = f"python -m threephase_ray.store {self.storage.uri} prune --damaged"  # what to do about damage

    def attempt(self, name: str, token: int) -> Path:
        """An empty local folder to make a result in; what an earlier holder of the same token left there is removed."""
        folder = self.place(f"{name}/{ATTEMPT}{token}")
        with _explained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    def commit(self, name: str, token: int) -> None:
        """Make the attempt the result, unless another one is already: then this one is removed.

        Raises:
            StoreError: the store does not take it.
            JobError: there is nothing to commit.
        """
        if not self.is_finished(name) and self._publish(name, f"{ATTEMPT}{token}"):
            for attempt in self.attempts(name):
                if int(attempt.removeprefix(ATTEMPT)) < token:  # a later one notices by itself
                    self._remove(f"{name}/{attempt}")
        else:
            self.discard(name, token)

    def discard(self, name: str, token: int) -> None:
        """Remove an attempt that will not be committed."""
        self._remove(f"{name}/{ATTEMPT}{token}")

    def attempts(self, name: str) -> list[str]:
        """The attempts of a result in the store, finished or not."""
        parts = {path.removeprefix(f"{name}/").split("/")[0] for path in self.storage.sizes(name)}
        return sorted(part for part in parts if part.removeprefix(ATTEMPT).isdigit() and part.startswith(ATTEMPT))

    def manifest(self, name: str) -> Manifest | None:
        """What the finished result consists of; None without one, or where it cannot be read."""
        try:
            content = json.loads(self.storage.read(f"{name}/{MANIFEST}"))
            files = {valid(path): dict(known) for path, known in content["files"].items()}  # none may lead out of the result
            return Manifest(valid(content["attempt"]), files, content.get("time"))
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def is_finished(self, name: str) -> bool:
        """Whether the result was committed; a manifest that cannot be read counts as none."""
        return self.manifest(name) is not None

    def damage(self, name: str, *, deep: bool = False) -> str | None:
        """What is wrong with a finished result, or None: every file is compared with the manifest.

        In an object store the sizes are; `deep`: every byte, which reads it all.
        """
        manifest = self.manifest(name)
        if manifest is None:
            return f"{MANIFEST} is missing or cannot be read"
        if self._local is not None:
            return _difference(self._local / name / manifest.attempt, manifest)
        sizes = self.storage.sizes(f"{name}/{manifest.attempt}")
        for path, known in manifest.files.items():
            if (remote := f"{name}/{manifest.attempt}/{path}") not in sizes:
                return f"{path} is missing"
            if sizes[remote] != known["size"] or (deep and self._digest(remote) != known["sha256"]):
                return f"{path} has other content than when it was finished"
        return None

    def fetch(self, name: str) -> Path:
        """The local folder with a finished result, every file checked; from an object store it is downloaded once per node.

        Raises:
            JobError: it is damaged.
        """
        manifest = self.manifest(name)
        if manifest is None:
            raise JobError(f"{self.storage.uri}/{name}: is not finished")
        folder = self.place(f"{name}/{manifest.attempt}")
        if self._local is not None:
            problem = _difference(folder, manifest)
        else:
            with _explained(folder), FileLock(folder.with_name(f".{manifest.attempt}.lock")):
                problem = _difference(folder, manifest) and self._download(name, manifest, folder)
        if problem:
            raise JobError(f"{self.storage.uri}/{name}: {problem}\n  remove it, to make it again: {self.advice}")
        return folder

    def read_json(self, name: str) -> Any:
        """The content of a small JSON file; FileNotFoundError when absent."""
        try:
            return json.loads(self.storage.read(name))
        except ValueError as error:
            raise StoreError(f"{self.storage.uri}/{name}: is no JSON\n  remove it, and run the same command again") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a small JSON file, whole or absent for readers."""
        self.storage.write(name, json.dumps(content, indent=1, allow_nan=False).encode())

    def place(self, name: str) -> Path:
        """The local path at which to write a file or folder before `put`; its parent is made."""
        path = (self._scratch if self._local is None else self._local) / valid(name)
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, path: Path, name: str) -> None:
        """Bring a local file or tree into the store; nothing to do where it was written in place."""
        for file in [path] if path.is_file() else _files(path):
            self.storage.upload(file, name if file == path else f"{name}/{file.relative_to(path).as_posix()}")

    def _publish(self, name: str, attempt: str) -> bool:
        """Bring the attempt into the store and create the manifest; False if another attempt was first."""
        folder = self.place(f"{name}/{attempt}")
        with _explained(folder):
            files = {path.relative_to(folder).as_posix(): facts(path) for path in _files(folder)}
            for path in files:
                sync(folder / path)
        if not files:
            raise JobError(f"{self.storage.uri}/{name}/{attempt}: has no files, so there is nothing to finish; run the same command again")
        self.put(folder, f"{name}/{attempt}")
        content = json.dumps({"attempt": attempt, "files": files, "time": time.time()}, indent=1).encode()
        if not self.storage.create(f"{name}/{MANIFEST}", content) and not self.is_finished(name):
            self.storage.remove(f"{name}/{MANIFEST}")  # torn by a machine that stopped while it wrote
            self.storage.create(f"{name}/{MANIFEST}", content)
        manifest = self.manifest(name)
        return manifest is not None and manifest.attempt == attempt

    def _download(self, name: str, manifest: Manifest, folder: Path) -> str | None:
        """Download the attempt that counts, and say what is wrong with it, if anything."""
        shutil.rmtree(folder, ignore_errors=True)
        for path in manifest.files:
            try:
                self.storage.download(f"{name}/{manifest.attempt}/{path}", folder / path)
            except FileNotFoundError:
                return f"{path} is missing"
        return _difference(folder, manifest)

    def _digest(self, name: str) -> str:
        """SHA-256 of a file of the object store."""
        copy = self.place(f"checked/{uuid.uuid4().hex}")
        try:
            self.storage.download(name, copy)
            return str(facts(copy)["sha256"])
        finally:
            copy.unlink(missing_ok=True)

    def _remove(self, name: str) -> None:
        """Remove something from the store and from this node."""
        self.storage.remove(name)
        if self._local is None:
            shutil.rmtree(self._scratch / name, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _difference(folder: Path, manifest: Manifest) -> str | None:
    """What differs between a folder and its manifest."""
    for name, known in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if facts(path) != known:
            return f"{name} has other content than when it was finished"
    return None


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses on this node into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(explain(error, os.fspath(path))) from error
