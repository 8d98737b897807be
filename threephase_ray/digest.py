"""SHA-256 of large files, read once in a process as long as they stay the same."""

import hashlib
from functools import cache
from pathlib import Path


def digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    facts = path.stat()
    return _content(path, facts.st_size, facts.st_mtime_ns)


@cache
def _content(path: Path, size: int, changed: int) -> bytes:
    """The same; `size` and time of its last change say whether it is still the file that was read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
