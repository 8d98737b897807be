"""A wish to stop, on its way from the driver to the workers."""

import threading
from collections.abc import Callable
from types import TracebackType

from threephase_ray.errors import JobError
from threephase_ray.results import Store
from threephase_ray.training.engine import world

_SECONDS = 0.5  # between two looks


def _name(run: str) -> str:
    return f"{run}/stop"


def ask(store: Store, run: str) -> None:
    """Ask the workers of `run` to save and stop, through the store."""
    store.storage.write(_name(run), b"")


def forget(store: Store, run: str) -> None:
    """Take an earlier wish back."""
    store.storage.remove(_name(run))


def asked(store: Store, run: str) -> bool:
    """Whether the workers of `run` are asked to stop."""
    return bool(store.storage.sizes(_name(run)))


class Stop:
    """Looks for the wish, on rank 0, for as long as the block lasts."""

    def __init__(self, look: Callable[[], bool]) -> None:
        """`look` says whether there is one; where it raises a JobError it is asked again."""
        self._ask = look
        self._wanted, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def wanted(self) -> bool:
        """Whether a stop was asked for."""
        return self._wanted.is_set()

    def _look(self) -> None:
        """Look now and then."""
        while not self._wanted.is_set() and not self._over.wait(_SECONDS):
            try:
                if self._ask():
                    self._wanted.set()
            except JobError:
                continue

    def __enter__(self) -> "Stop":
        """Begin to look."""
        if world()[0] == 0:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Look no more."""
        self._over.set()
