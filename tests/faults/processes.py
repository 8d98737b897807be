"""Processes that the harness started: found by a mark in their environment, ended, and waited for with a limit."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

MARK = "THREEPHASE_FAULTS"  # the variable that all of them inherit
POLL, SLOWLY = 0.02, 0.25  # seconds between two looks; a look at all processes costs more
T = TypeVar("T")


class TooLong(AssertionError):
    """Something did not happen in time."""


class Limit:
    """The time that a case may take in all: every wait of it ends with that."""

    def __init__(self, seconds: float) -> None:
        """Starts now."""
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def until(self, condition: Callable[[], T], what: str, pause: float = POLL) -> T:
        """Wait until `condition()` is true, and return it."""
        while not (found := condition()):
            if time.monotonic() > self._end:
                raise TooLong(f"no end after {self.seconds:.0f} s: waited for {what}")
            time.sleep(pause)
        return found


def marked(mark: str) -> list[psutil.Process]:
    """The living processes that carry the mark, and their descendants: some of Ray's overwrite their environment."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found |= {each.pid: each for each in [process, *process.children(recursive=True)]}
    found.pop(os.getpid(), None)
    return [process for process in found.values() if alive(process)]


def alive(process: psutil.Process) -> bool:
    """Whether it runs and is no zombie."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end(mark: str, limit: Limit) -> None:
    """SIGKILL everything that carries the mark, until nothing is left."""

    def nothing_left() -> bool:
        processes = marked(mark)
        for process in processes:
            strike(process)
        return not processes

    limit.until(nothing_left, f"the end of the processes of {mark}", SLOWLY)


def strike(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def start(command: list[str], environment: dict[str, str], mark: str, output: str) -> subprocess.Popen[bytes]:
    """Start a marked process in a session of its own; what it prints is appended to the file `output`."""
    with open(output, "ab") as file:  # noqa: PTH123
        return subprocess.Popen(command, env=environment | {MARK: mark}, stdout=file, stderr=file, start_new_session=True)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
