"""Files of an object store, through fsspec: every request repeated while the store is away, and none believed to be atomic but one."""

import contextlib
import errno
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import tenacity

from threephase_ray.errors import ConfigError, JobError
from threephase_ray.folder import StoreError, explain, valid

PATIENCE = 300.0  # seconds for which a request is repeated, and
ATTEMPTS = 4  # how often at least, for a large file may take longer than that
LONGEST_PAUSE = 15.0  # seconds between two requests
_PART = 16 * 2**20  # bytes of one part of a large upload
_DEAD_AFTER = 60_000  # milliseconds without an answer from the other machine's network
_HOPELESS = (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_HOPELESS_CODES = {errno.EINVAL, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG}
# Base classes of what may pass, of packages that need not be installed: botocore, aiohttp, gcsfs, google.auth, azure.core.
_PASSING = {
    "HTTPClientError",
    "ConnectionError",
    "IncompleteReadError",
    "ResponseParserError",
    "ClientError",
    "HttpError",
    "TransportError",
}
_PASSING |= {"ServiceRequestError", "ServiceResponseError"}
_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "TokenRetrievalError"}
_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Bucket:
    """Storage below a URI such as s3://bucket/folder.

    Raises:
        ConfigError: no such scheme, its driver is not installed, or the URI is no plain place.
    """

    folder: Path | None = None

    def __init__(self, uri: str, patience: float = PATIENCE) -> None:
        self.uri = uri.rstrip("/")
        self._patience = patience
        self._scheme = uri.split("://")[0]
        self._s3 = self._scheme in ("s3", "s3a")
        with _driver(uri):
            self._system, self._root = fsspec.core.url_to_fs(self.uri, **(_s3_options() if self._s3 else {"use_listings_cache": False}))
        if self._s3:
            self._system.retries = 2  # of each part of a file, for losing one must not lose all
        self._exclusive = False  # whether the store was seen to refuse a second creation

    def read(self, name: str) -> bytes:
        """The file's content; FileNotFoundError when absent."""
        return self._do(name, lambda: self._content(name), absent_is_fine=True)

    def write(self, name: str, content: bytes) -> None:
        """Replace the file."""
        self._do(name, lambda: self._system.pipe_file(self._path(name), content))

    def create(self, name: str, content: bytes) -> bool:
        """Write the file unless there is one; True if the content that is there now is this."""
        made = self._do(name, lambda: self._create(name, content))
        if made and not self._exclusive:
            self._check_exclusive()
        return made

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every file below `prefix`, or of the file itself."""
        found = self._do(prefix, lambda: self._system.find(self._path(prefix), detail=True))
        names = {path[len(self._root) + 1 :]: int(facts["size"]) for path, facts in found.items() if facts["type"] == "file"}
        return {name: names[name] for name in sorted(names)}

    def remove(self, prefix: str) -> None:
        """Remove a file or everything below."""
        names = self.sizes(prefix)
        if names:
            self._do(prefix, lambda: self._remove([self._path(name) for name in names]))
            if left := names.keys() & self.sizes(prefix).keys():  # a refusal is not reported
                raise StoreError(f"store: no permission to remove {self.uri}/{min(left)}\n  allow it (on S3: s3:DeleteObject)")

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file into the store."""
        options = {"chunksize": _PART, "max_concurrency": 4} if self._s3 else {}
        self._do(name, lambda: self._system.put_file(str(path), self._path(name), **options))

    def download(self, name: str, path: Path) -> None:
        """Copy a file of the store to `path`, which appears when it is whole; FileNotFoundError when absent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            self._do(name, lambda: self._system.get_file(self._path(name), str(part)), absent_is_fine=True)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        """The file system's own path of a name."""
        return f"{self._root}/{valid(name)}"

    def _content(self, name: str) -> bytes:
        """The file's content, asked for once."""
        return bytes(self._system.cat_file(self._path(name), **({"max_concurrency": 1} if self._s3 else {})))

    def _create(self, name: str, content: bytes) -> bool:
        """One attempt to create; after an answer that was lost, the file may be there already and be this one."""
        try:
            self._system.pipe_file(self._path(name), content, mode="create")
        except OSError as error:
            if not isinstance(error, FileExistsError) and _code(error) not in ("PreconditionFailed", "412"):
                raise
            return self._holds(name, content)
        return True

    def _holds(self, name: str, content: bytes) -> bool:
        """Whether the file has this content; another's may be gone by now."""
        try:
            return self._content(name) == content
        except FileNotFoundError:
            return False

    def _check_exclusive(self) -> None:
        """Some stores ignore the condition of a creation, and then a lock would hold nothing."""
        name = f"locks/.probe-{uuid.uuid4().hex}"
        held = self._do(name, lambda: self._create(name, b"1") and not self._create(name, b"2"))
        self._do(name, lambda: self._remove([self._path(name)]))
        if not held:
            raise StoreError(
                f"store: {self.uri} overwrites a file that is to be created only if absent (If-None-Match): no run could exclude others\n"
                "  use a store that honours it (S3 does), or a folder that all nodes share"
            )
        self._exclusive = True

    def _remove(self, paths: list[str]) -> None:
        """Remove files, of which some may be gone."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(paths)

    def _do(self, name: str, work: Callable[[], _T], *, absent_is_fine: bool = False) -> _T:
        """Do it, again and again while the failure may pass, and explain the one that remains."""
        valid(name)
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_delay(self._patience) & tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=LONGEST_PAUSE),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return attempts(work)
        except Exception as error:
            if absent_is_fine and isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket":
                raise
            raise self._failure(name, error) from error

    def _tell(self, state: tenacity.RetryCallState) -> None:
        """Say that the store is away, after a few attempts."""
        if state.attempt_number == 4 and state.outcome is not None:
            log.warning("%s does not answer, trying on for %.0f s: %s", self.uri, self._patience, _short(state.outcome.exception()))

    def _failure(self, name: str, error: Exception) -> JobError:
        """What failed, where, and what to do."""
        place = f"{self.uri}/{name}"
        if isinstance(error, JobError):
            return error
        if isinstance(error, FileNotFoundError):
            return StoreError(f"store: the bucket of {self.uri} does not exist (any more)\n  make it, or set another `store`")
        if isinstance(error, PermissionError) or type(error).__name__ in _CREDENTIALS:
            return StoreError(
                f"store: no permission for {place}: {_short(error)}\n"
                "  check the credentials of this machine (environment, profile or role), and what they allow"
            )
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(explain(error, "the folder of `scratch`"))
        if _may_pass(error):
            waited = f"{self.uri} could not be reached for {self._patience:.0f} s"
            return StoreError(f"store: {waited}: {_short(error)}\n  check the network and the endpoint, then run the same command again")
        return StoreError(f"store: {place} cannot be read or written: {_short(error)}\n  repair it, or set another `store`")


def _s3_options() -> dict[str, Any]:
    """No listing from memory; each request repeated a little by the client, the whole operation by us."""
    timeouts = {"connect_timeout": 10, "read_timeout": 60, "tcp_keepalive": True, "retries": {"mode": "standard", "total_max_attempts": 2}}
    sockets = {"connector_args": {"socket_factory": _socket}}
    return {"use_listings_cache": False, "config_kwargs": timeouts | sockets}


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices within a minute that the other side is gone, also in the middle of an upload."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER)
    return made


@contextlib.contextmanager
def _driver(uri: str) -> Iterator[None]:
    """Say what is missing where fsspec cannot make a file system for the URI."""
    scheme = uri.split("://")[0]
    try:
        yield
    except ImportError as error:
        extra = 'pip install "threephase-ray[s3]"' if scheme in ("s3", "s3a") else _short(error)
        raise ConfigError(f"store: {scheme}:// needs a package that is not installed: {extra}") from error
    except ValueError as error:
        advice = "give a folder that all nodes share, or a URI such as s3://bucket/folder"
        raise ConfigError(f"store: {uri}: {_short(error)}\n  {advice}") from error


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, FileNotFoundError):
        return _code(error) == "NoSuchUpload"  # the store forgot the parts of an upload: it starts afresh
    if isinstance(error, OSError):
        return not isinstance(error, _HOPELESS) and error.errno not in _HOPELESS_CODES
    return bool(_PASSING & {kind.__name__ for kind in type(error).__mro__})


def _code(error: BaseException) -> str | None:
    """The store's own code for a failure, if it gave one."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response["Error"]["Code"])
        cause = cause.__cause__
    return None


def _short(error: BaseException | None) -> str:
    """The beginning of an error's text, or its name."""
    return " ".join(str(error).split())[:200] or type(error).__name__
