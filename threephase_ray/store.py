"""Finished results, each in a folder named by a hash of all it depends on; a manifest, written last, marks it as finished."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threephase_ray.config import ConfigError, JobError

MANIFEST = "manifest.json"


def key(parts: Mapping[str, Any]) -> str:
    """Short hash of everything that a result depends on.

    Raises:
        TypeError, ValueError: a part is no plain JSON value, so its hash would mean nothing.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def root(store: str) -> Path:
    """The store's folder, made when missing.

    Raises:
        ConfigError: it is a URI, or cannot be made.
    """
    if "://" in store:
        raise ConfigError(f"store: {store} is a URI; give a folder that all nodes share")
    folder = Path(store).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"store: cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"store: no permission to write into {folder}")
    return folder


def begin(folder: Path) -> Path:
    """An empty folder for a result; what an unfinished attempt left there is removed."""
    if is_finished(folder):
        raise JobError(f"{folder}: is finished and never written again")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def commit(folder: Path) -> None:
    """Mark the folder as finished: sizes and SHA-256 of its files, written last."""
    files = {str(path.relative_to(folder)): _facts(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    write_json(folder / MANIFEST, {"files": files})


def is_finished(folder: Path) -> bool:
    """Whether the folder was committed."""
    return (folder / MANIFEST).is_file()


def damage(folder: Path) -> str | None:
    """What is wrong with a finished folder, or None: every file is compared with the manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
    except ValueError:
        return f"{MANIFEST} cannot be read"
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _facts(path) != facts:
            return f"{name} has other content than when it was finished"
    return None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that it is either whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False))
    temporary.replace(path)


def _facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
