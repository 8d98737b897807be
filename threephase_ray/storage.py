"""Where a store's bytes are: the few words that a folder and an object store have in common."""

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from threephase_ray.bucket import PATIENCE, Bucket
from threephase_ray.errors import ConfigError
from threephase_ray.folder import Folder, StoreError, valid

__all__ = ["Storage", "StoreError", "connect", "valid"]


class Storage(Protocol):
    """Files by name: relative, with forward slashes; any other name is a ValueError, and what fails for good a StoreError."""

    uri: str  # as given; of a folder its absolute path
    folder: Path | None  # the folder on this machine; None for an object store

    def read(self, name: str) -> bytes:
        """The file's content; FileNotFoundError when absent."""

    def write(self, name: str, content: bytes) -> None:
        """Replace the file; for readers it is whole or absent."""

    def create(self, name: str, content: bytes) -> bool:
        """Write the file unless there is one; True if the content that is there now is this. Of many at once, one wins."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every file below `prefix`, or of the file itself."""

    def remove(self, prefix: str) -> None:
        """Remove a file or everything below; absent is fine."""

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to `name`."""

    def download(self, name: str, path: Path) -> None:
        """Copy a file to the local `path`; FileNotFoundError when absent."""


def connect(uri: str, patience: float = PATIENCE) -> Storage:
    """The storage at a path or URI; nothing is read or written yet. `patience`: seconds for which an object store may be away.

    Raises:
        ConfigError: an unknown scheme, a driver that is not installed, credentials or a query inside the URI.
    """
    if "://" not in uri:
        return Folder(Path(uri).expanduser())
    parts = urlsplit(uri)
    user = parts.netloc.rpartition("@")[0]
    if ":" in user or (user and parts.scheme.startswith("s3")):
        shown = f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise ConfigError(f"store: {shown}: credentials do not belong into a URI\n  set them in the environment, or use a profile or role")
    if parts.query or parts.fragment:
        raise ConfigError(f"store: {uri.split('?')[0]}: a store's URI has no ? or #\n  give a plain place such as s3://bucket/folder")
    if parts.scheme == "file":
        return Folder(Path(parts.path))
    if not parts.netloc:
        raise ConfigError(f"store: {uri}: has no bucket\n  give a place such as s3://bucket/folder")
    return Bucket(uri, patience)
