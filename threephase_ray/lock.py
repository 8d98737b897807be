"""One holder at a time for a name, on nothing but exclusive creation of files.

Token n is taken by creating `locks/<name>/<n>.json`; its holder writes `<n>.beat` again and again, and `<n>.released` at the end.
Whoever finds the newest token released, or its beat unchanged for a whole lease by the own clock, may take the next one. So a
holder that was only asleep can find itself replaced: it asks `check` before it makes anything final. No two clocks are compared.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from threephase_ray.errors import JobError
from threephase_ray.storage import Storage, StoreError, valid

LEASE = 30.0


class LockLost(JobError):
    """Another run has taken over, for this one did not show itself for too long."""


class Lock:
    """The lock of a name; `lease`: seconds without a beat after which this holder counts as dead."""

    def __init__(self, storage: Storage, name: str, lease: float = LEASE) -> None:
        self.name, self.token, self.holder = valid(name), 0, "nobody"
        self._storage, self._lease = storage, lease
        self._mine = b""  # what this holder wrote into its token's file; empty: holds nothing
        self._seen: tuple[int, bytes] | None = None  # newest token of another, and its beat
        self._since = 0.0  # when, by our clock, that was first seen
        self._stop = threading.Event()

    def try_acquire(self) -> bool:
        """Take the lock if it is free, without waiting; True if this object holds it now. To be called again and again."""
        if self._mine:
            return True
        files = self._files()
        token = self._next(files)
        if token is None:
            return False
        content = json.dumps(_identity() | {"lease": self._lease}).encode()
        if not self._storage.create(self._file(token, "json"), content):
            return False
        if max(self._files(), default=0) > token:  # our list was old: later tokens came, and the files of this one were removed
            self._storage.remove(self._file(token, "json"))
            return False
        self.token, self._mine, self._seen = token, content, None
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(token, self._stop), daemon=True, name=f"lock {self.name}").start()
        self._prune(files)
        return True

    def free(self) -> bool:
        """Whether `try_acquire` would take the lock; takes nothing, but watches the holder likewise."""
        return bool(self._mine) or self._next(self._files()) is not None

    def acquire(self, tell: Callable[[str], None], every: float = 1.0) -> None:
        """Wait for the lock; `tell` receives words about each holder that is waited for."""
        told = ""
        while not self.try_acquire():
            if self.holder != told:
                told = self.holder
                tell(told)
            time.sleep(every)

    def check(self) -> None:
        """Make sure that nobody else took over; to be called before anything becomes final.

        Raises:
            LockLost: a newer token exists, or this one was released or removed.
        """
        files = self._files()
        newest = max(files, default=0)
        if not self._mine or newest != self.token or "released" in files[newest] or self._read(newest, "json") != self._mine:
            self._stop.set()
            self._mine = b""
            raise LockLost(
                f"{self._storage.uri}: another run took over {self.name}, for this one did not answer for {self._lease:.0f} s\n"
                "  nothing is lost: the other run goes on from the last saved step; run this one again when it is done"
            )

    def release(self) -> None:
        """Let others have it at once. Where the store is away they have it after the lease."""
        if self._mine:
            self._mine = b""
            self._stop.set()
            with contextlib.suppress(StoreError):
                self._storage.write(self._file(self.token, "released"), b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def _file(self, token: int, kind: str) -> str:
        """The name of a token's file."""
        return f"locks/{self.name}/{token:08d}.{kind}"

    def _read(self, token: int, kind: str) -> bytes:
        """The content of a token's file, empty without one."""
        try:
            return self._storage.read(self._file(token, kind))
        except FileNotFoundError:
            return b""

    def _files(self) -> dict[int, set[str]]:
        """The kinds of files of each token; names below this one have locks of their own."""
        found: dict[int, set[str]] = {}
        pattern = re.compile(re.escape(f"locks/{self.name}/") + r"(\d{8,})\.(json|beat|released)")
        for name in self._storage.sizes(f"locks/{self.name}"):
            if match := pattern.fullmatch(name):
                found.setdefault(int(match[1]), set()).add(match[2])
        return found

    def _next(self, files: dict[int, set[str]]) -> int | None:
        """The token that may be taken now; None while the newest one's holder lives, as far as can be told."""
        newest, began = max(files, default=0), time.monotonic()
        if not newest or "released" in files[newest] or "json" not in files[newest]:
            return newest + 1
        owner = _parsed(self._read(newest, "json"))
        seen, now = (newest, self._read(newest, "beat")), time.monotonic()
        lease = float(owner["lease"]) if "lease" in owner else self._lease
        if seen != self._seen or now - began > lease / 6:  # while the store was away from us, no beat could be seen
            self._seen, self._since = seen, now
        self.holder = _words(owner)
        return newest + 1 if _is_dead(owner) or now - self._since >= lease else None

    def _beat(self, token: int, stop: threading.Event) -> None:
        """Show that this holder lives. A beat that cannot be written kills nobody: `check` decides."""
        beats = 0
        while not stop.wait(self._lease / 6):
            beats += 1
            with contextlib.suppress(StoreError):
                self._storage.write(self._file(token, "beat"), str(beats).encode())

    def _prune(self, files: dict[int, set[str]]) -> None:
        """Remove what earlier holders left; never the newest token, by which all others are measured."""
        with contextlib.suppress(StoreError):
            for old, kind in ((old, kind) for old, kinds in files.items() for kind in kinds):
                self._storage.remove(self._file(old, kind))


def _identity() -> dict[str, Any]:
    """Who holds a lock: host, process, and since when, for people; and what tells whether that process still runs."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "since": now, "machine": _machine(), "start": _start(pid), "id": uuid.uuid4().hex}


def _parsed(content: bytes) -> dict[str, Any]:
    """What the holder wrote, empty if it cannot be read."""
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _words(owner: dict[str, Any]) -> str:
    """Words about a holder."""
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if "pid" in owner else "a process that cannot be told"


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the holder ran here and has ended; another process may have its number now."""
    return "machine" in owner and owner["machine"] is not None and owner["machine"] == _machine() and _start(owner["pid"]) != owner["start"]


def _machine() -> str | None:
    """This machine since its last start, and this process's own world of process numbers; None where it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """When a process of this machine started, in ticks; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
