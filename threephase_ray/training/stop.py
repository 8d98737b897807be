"""A wish to stop, on its way from the driver to the workers through the store."""

import threading
from types import TracebackType

from threephase_ray.errors import JobError
from threephase_ray.results import Store
from threephase_ray.training.engine import world

_SECONDS = 0.5  # between two looks


def _name(run: str) -> str:
    return f"{run}/stop"


def ask(store: Store, run: str) -> None:
    """Ask the workers of `run` to save and stop."""
    store.storage.write(_name(run), b"")


def forget(store: Store, run: str) -> None:
    """Take an earlier wish back."""
    store.storage.remove(_name(run))


class Stop:
    """Looks for the wish, on rank 0, for as long as the block lasts."""

    def __init__(self, store: Store, run: str) -> None:
        """`run` is the run's name in the store."""
        self._store, self._run = store, run
        self._wanted, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def wanted(self) -> bool:
        """Whether a stop was asked for."""
        return self._wanted.is_set()

    def _look(self) -> None:
        """Look now and then; a store that does not answer is asked again."""
        while not self._wanted.is_set() and not self._over.wait(_SECONDS):
            try:
                if self._store.storage.sizes(_name(self._run)):
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
