"""SIGTERM and SIGINT: the first one asks for an orderly end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from threephase_ray.errors import JobError


class Stopped(JobError):
    """The job was told to stop, and has saved where it is."""

    def __init__(self, message: str, signum: int) -> None:
        """The exit code is that of a process which the signal ends."""
        super().__init__(message)
        self.code = 128 + signum


@contextlib.contextmanager
def caught(ask: Callable[[], None]) -> Iterator[list[int]]:
    """The first SIGTERM or SIGINT calls `ask`, in a thread, and stands in the list; a second one ends this process as ever."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may have handlers
        yield came
        return
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = {signum: signal.getsignal(signum) for signum in wanted}

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        restore()
        threading.Thread(target=ask).start()  # a store may take its time, and a handler must not

    for signum in wanted:
        signal.signal(signum, on_signal)
    try:
        yield came
    finally:
        restore()
