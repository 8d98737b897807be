"""Files of a folder, on this machine or on storage that all nodes share (NFS too), each whole or absent for readers."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from threephase_ray.errors import ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_STILL_OPEN = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}
_PART = ".part"  # ending of a hidden file that is still being written


class StoreError(ResourceError):
    """The store cannot be read or written."""


def valid(name: str) -> str:
    """The name itself: relative, with forward slashes.

    Raises:
        ValueError: it leads elsewhere, or has an empty part.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name in a store: relative, forward slashes, no part empty, `.` or `..`")
    return name


class Folder:
    """Storage below `folder`, which the first write makes."""

    def __init__(self, folder: Path) -> None:
        self._top = folder.absolute()
        self.folder: Path | None = self._top
        self.uri = str(self._top)

    def read(self, name: str) -> bytes:
        """The file's content; FileNotFoundError when absent."""
        with self._explained(name, absent_is_fine=True):
            return (self._top / valid(name)).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Replace the file."""
        with self._explained(name), self._beside(name, lambda part: part.write_bytes(content)) as part:
            part.replace(self._top / name)

    def create(self, name: str, content: bytes) -> bool:
        """Write the file unless there is one; True if the content that is there now is this."""
        place = self._top / valid(name)
        with self._explained(name):
            try:
                with self._beside(name, lambda part: part.write_bytes(content)) as part:
                    os.link(part, place)  # whole at once, and exclusive on NFS too
            except FileExistsError:
                return _holds(place, content)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _claim(place, content)
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every file below `prefix`, or of the file itself."""
        start, found = self._top / valid(prefix), dict[str, int]()
        with self._explained(prefix):
            paths = [start] if start.is_file() else [Path(top) / file for top, _, files in os.walk(start) for file in files]
            for path in paths:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found[path.relative_to(self._top).as_posix()] = path.stat().st_size
        return {name: found[name] for name in sorted(found) if not _is_part(name)}

    def remove(self, prefix: str) -> None:
        """Remove a file or everything below; then the folder that held it, if it is empty."""
        place = self._top / valid(prefix)
        with self._explained(prefix):
            for top, folders, files in os.walk(place, topdown=False):
                for file in files:
                    (Path(top) / file).unlink(missing_ok=True)
                for folder in folders:
                    _drop(Path(top) / folder)
            _drop(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
            if place.parent != self._top:
                _drop(place.parent)

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file into the folder."""
        if path.absolute() != self._top / valid(name):
            with self._explained(name), self._beside(name, lambda part: shutil.copyfile(path, part)) as part:
                part.replace(self._top / name)

    def download(self, name: str, path: Path) -> None:
        """Copy a file of the folder to `path`; FileNotFoundError when absent."""
        with self._explained(name, absent_is_fine=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._top / valid(name), path)

    @contextlib.contextmanager
    def _beside(self, name: str, fill: Callable[[Path], object]) -> Iterator[Path]:
        """A hidden file in the same folder, filled and on the disk; gone afterwards."""
        place = self._top / valid(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{uuid.uuid4().hex}{_PART}")
        try:
            fill(part)
            sync(part)
            yield part
        finally:
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, name: str, *, absent_is_fine: bool = False) -> Iterator[None]:
        """Turn what the system refuses into a StoreError; FileNotFoundError stays what it is where the caller may expect it."""
        try:
            yield
        except OSError as error:
            if absent_is_fine and isinstance(error, FileNotFoundError):
                raise
            raise StoreError(explain(error, f"{self._top / name}")) from error


def explain(error: OSError, place: str) -> str:
    """What the system refused, where, and what to do, in a few lines."""
    if error.errno in _FULL:
        return f"store: the disk is full, or its quota used up: {place}\n  free space, or set another `store` or `scratch`"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"store: no permission for {place}\n  allow it, or set another `store` or `scratch`"
    reason = error.strerror if error.strerror else str(error)
    return f"store: {place} cannot be read or written: {reason}\n  repair it, or set another `store` or `scratch`"


def sync(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _claim(place: Path, content: bytes) -> bool:
    """Exclusive creation where there are no hard links; a reader may see the file before it is whole."""
    try:
        with place.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return _holds(place, content)
    return True


def _holds(place: Path, content: bytes) -> bool:
    """Whether the file has this content; another's may be gone by now."""
    try:
        return place.read_bytes() == content
    except FileNotFoundError:
        return False


def _is_part(name: str) -> bool:
    """Is it a file that is still being written?"""
    last = name.rsplit("/", 1)[-1]
    return last.startswith(".") and last.endswith(_PART)


def _drop(folder: Path) -> None:
    """Remove a folder if it is empty; NFS keeps the place of a removed file until its last reader is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _STILL_OPEN:
            raise
