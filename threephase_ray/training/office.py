"""The foreman as an actor of its own. Its process needs no torch, so it starts at once."""

from threephase_ray.results import Store
from threephase_ray.training import accounting, events
from threephase_ray.training.foreman import Foreman

_RETRIES = 1  # of a phase that took its worker group down with it


class Office(Foreman):
    """Writes its events to the store."""

    def __init__(self, uri: str, scratch: str, folder: str, workers: int) -> None:
        """`folder`: where the crew's files lie in the store."""
        store = Store(uri, scratch)
        self._log = events.Log(store, f"{folder}/events.jsonl")
        super().__init__(self._log.add, accounting.parse(self._log.past()), workers, _RETRIES)

    def leave(self) -> None:
        """Bring all events to the store."""
        self._log.__exit__(None, None, None)
