"""The exported classifier on a node: the folder itself, or a copy of what a URI holds, made once."""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import fsspec.core
from filelock import FileLock

from threephase_ray.digest import digest
from threephase_ray.errors import JobError
from threephase_ray.results import Store
from threephase_ray.sources import File

_PARTS = ("classifier", "encoder")
_RUN = r"[a-z0-9][a-z0-9-]*"


def place(model: str, store: Store) -> str:
    """Path or URI of the folder that `model`, itself a folder or the name of a run in the store, stands for."""
    if Path(model).exists():
        return str(Path(model).absolute())
    return f"{store.storage.uri.rstrip('/')}/runs/{model}/model" if re.fullmatch(_RUN, model) else model


def fetched(model: str, scratch: str) -> Path:
    """The folder on this node.

    Raises:
        JobError: nothing is there, or it cannot be fetched.
    """
    system, path = fsspec.core.url_to_fs(model)
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else [system.protocol]):
        if not Path(path, _PARTS[0]).is_dir():
            raise JobError(f"model: {model} has no folder {_PARTS[0]}\n  name a finished run, or its folder `model`")
        return Path(path)
    try:
        found = sorted(entry for part in _PARTS for entry in system.find(f"{path.rstrip('/')}/{part}"))
        version = "\n".join(File(system, entry, "model").fingerprint() for entry in found)  # a run may be trained anew
    except Exception as error:  # of a remote file system's own kind
        raise _unreachable(model, error) from error
    if not found:
        raise _unreachable(model, FileNotFoundError("there is nothing"))
    copy = Path(scratch).expanduser().absolute() / f"model-{hashlib.sha256(version.encode()).hexdigest()[:16]}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copy}.lock"):
        if not copy.is_dir():
            making = Path(tempfile.mkdtemp(dir=copy.parent))
            try:
                for part in _PARTS:
                    system.get(f"{path.rstrip('/')}/{part}", str(making / part), recursive=True)
            except Exception as error:  # of a remote file system's own kind
                shutil.rmtree(making, ignore_errors=True)
                raise _unreachable(model, error) from error
            making.rename(copy)
    return copy


def _unreachable(model: str, error: Exception) -> JobError:
    """Says what could not be fetched, and why."""
    return JobError(f"model: {model} cannot be fetched: {' '.join(str(error).split())[:200]}")


def fingerprint(model: Path) -> str:
    """SHA-256 over the files of the exported models."""
    found = hashlib.sha256()
    for path in sorted(path for part in _PARTS for path in (model / part).rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(model).as_posix()}\n".encode() + digest(path))
    return found.hexdigest()
