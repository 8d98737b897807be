"""Whose turn it is to train a phase: one worker group at a time, whatever run it belongs to."""

import time
from types import TracebackType

from threephase_ray.lock import Lock
from threephase_ray.results import Store
from threephase_ray.training.engine import world
from threephase_ray.training.loop import Report
from threephase_ray.training.together import first

_SECONDS = 1.0  # between two tries


class Turn:
    """Waits until the result is finished (`done`) or this worker group holds its lock; rank 0 holds it for all."""

    def __init__(self, store: Store, result: str, report: Report) -> None:
        """`result` is the phase's name in the store."""
        self._store, self._result, self._report = store, result, report
        self.lock = Lock(store.storage, result)
        self.done = False

    def __enter__(self) -> "Turn":
        """Wait."""
        self.done, self.lock.token = first(self._take)
        return self

    def _take(self) -> tuple[bool, int]:
        """Try until the result is there or the lock is held."""
        told = ""
        while not self._store.is_finished(self._result):
            if self.lock.try_acquire():
                if not self._store.is_finished(self._result):  # it may have been finished between the two lines above
                    return False, self.lock.token
                self.lock.release()
                break
            if self.lock.holder != told:
                told = self.lock.holder
                self._report({"event": "waiting", "phase": self._result, "for": told})
            time.sleep(_SECONDS)
        return True, 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let others have it."""
        if not self.done and world()[0] == 0:
            self.lock.release()
