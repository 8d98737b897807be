"""The foreman as an actor of its own. Its process needs no torch, so it starts at once."""

from typing import Any

from threephase_ray.results import Store
from threephase_ray.training import accounting, events
from threephase_ray.training.foreman import Foreman
from threephase_ray.training.meters import Meters
from threephase_ray.training.tasks import PROBE, TEST

_RETRIES = 1  # of a phase that took its worker group down with it


class Office(Foreman):
    """Writes its events to the store."""

    def __init__(self, uri: str, scratch: str, folder: str, workers: int) -> None:
        """`folder`: where the crew's files lie in the store."""
        store = Store(uri, scratch)
        self._meters = Meters(folder)
        self._log = events.Log(store, f"{folder}/events.jsonl")
        super().__init__(self._log.add, accounting.parse(self._log.past()), workers, _RETRIES)

    def withdraw(self, number: int) -> dict[str, Any]:
        """See `Foreman`; a trial's phases that others had made are counted once."""
        before = self._entries[number].over
        found = super().withdraw(number)
        if not before:
            self._meters.reused(name for name in found["reused"] if name not in (PROBE, TEST))
        return found

    def leave(self) -> None:
        """Bring all events to the store."""
        self._log.__exit__(None, None, None)
