"""The run's `events.jsonl`: one writer appends, the driver follows."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from threephase_ray.errors import JobError
from threephase_ray.folder import explain
from threephase_ray.results import Store
from threephase_ray.storage import StoreError

_SECONDS = 2.0  # between two looks at, or copies to, an object store


class Log:
    """Appends events to a file of the store: at once to a folder; to an object store, which cannot append, as a whole now and then."""

    def __init__(self, store: Store, name: str) -> None:
        """Go on after what the file holds; a line that a killed writer left half is closed."""
        self._store, self._name = store, name
        self._path = store.place(name)
        if store.storage.folder is None:
            _copy_here(store, name, self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        torn = self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = self._path.open("ab")
        self._file.write(b"\n" if torn else b"")
        self._lock, self._closed, self._news = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._keep_copying, daemon=True)
        if store.storage.folder is None:
            self._thread.start()

    def add(self, event: dict[str, Any]) -> None:
        """Append an event with the time; StoreError where the disk does not take it."""
        line = json.dumps({"time": time.time(), **event}).encode() + b"\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise StoreError(explain(error, str(self._path))) from error
            self._news = True

    def past(self) -> bytes:
        """All that the file holds."""
        return self._path.read_bytes()

    def _keep_copying(self) -> None:
        """Copy what is new to the object store, in at most a twentieth of the time; a copy that fails is made up for by the next."""
        pause = _SECONDS
        while not self._closed.wait(pause):
            started = time.monotonic()
            try:
                self._copy()
            except JobError:
                pause = 10 * _SECONDS
            else:
                pause = max(_SECONDS, 20 * (time.monotonic() - started))

    def _copy(self) -> None:
        """Copy the file to the object store, if it has news."""
        with self._lock:
            news, self._news = self._news, False
            content = self._path.read_bytes() if news else b""
        try:
            if news:
                self._store.storage.write(self._name, content)
        except JobError:
            self._news = True
            raise

    def __enter__(self) -> "Log":
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Bring the rest to the store."""
        self._closed.set()
        self._file.close()
        if self._store.storage.folder is None:
            self._thread.join()
            self._copy()


def _copy_here(store: Store, name: str, path: Path) -> None:
    """The object store's file as a local one, unless that has more: what a killed writer of this node could not copy any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = read(store, name)
    if not path.exists() or not path.read_bytes().startswith(there):
        path.write_bytes(there)


def read(store: Store, name: str) -> bytes:
    """All that the store's file holds; nothing if there is none."""
    try:
        return store.storage.read(name)
    except FileNotFoundError:
        return b""


def tail(store: Store, name: str, since: int | None = None) -> Callable[[], bytes]:
    """A function that gives the whole lines that came since its last call; an object store is asked every few seconds.

    `since`: bytes to leave out at first (None: all that are there now).
    """
    size = len(read(store, name)) if since is None else since
    looked = 0.0

    def news() -> bytes:
        nonlocal size, looked
        folder = store.storage.folder
        if folder is not None:
            path = folder / name
            if not path.exists():
                return b""
            with path.open("rb") as file:
                file.seek(size)
                lines = file.read()
        elif time.monotonic() - looked < _SECONDS or store.storage.sizes(name).get(name, 0) <= size:
            return b""
        else:
            looked = time.monotonic()
            lines = read(store, name)[size:]
        whole = lines[: lines.rfind(b"\n") + 1]
        size += len(whole)
        return whole

    return news
