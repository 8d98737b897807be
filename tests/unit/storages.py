"""Storages for tests: a folder and an object store in memory, and object stores with the faults of real ones."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

KINDS = ("folder", "memory")


def uri(kind: str, folder: Path) -> str:
    """A place that nobody used before."""
    return str(folder / "store") if kind == "folder" else f"{kind}://{uuid.uuid4().hex}/store"


class Flaky(MemoryFileSystem):
    """An object store that fails: `fault` is called before each request, `after` when it is done."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012  # as in the class above
    pseudo_dirs = [""]  # noqa: RUF012
    fault: Callable[[], None] = staticmethod(lambda: None)
    after: Callable[[], None] = staticmethod(lambda: None)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self.fault()
        super().pipe_file(path, value, mode, **options)
        self.after()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.fault()
        return bytes(super().cat_file(path, start, end, **options))


class Careless(MemoryFileSystem):
    """An object store that does not know of exclusive creation, as old ones do."""

    protocol = "careless"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, "overwrite", **options)


def register() -> None:
    """Make fsspec know them."""
    for system in (Flaky, Careless):
        fsspec.register_implementation(system.protocol, system, clobber=True)


register()
