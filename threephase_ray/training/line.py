"""A worker group's line to its foreman."""

from typing import Any

import ray

from threephase_ray.training.accounting import Event
from threephase_ray.training.meters import Meters
from threephase_ray.training.whereabouts import Whereabouts


class Line:
    """A group's line to the foreman, see `shift.Line`. A group whose node is drained puts its plan down and takes no other."""

    def __init__(self, group: int, foreman: Any, run: str, whereabouts: Whereabouts) -> None:
        self._group, self._foreman, self._whereabouts = group, foreman, whereabouts
        self._meters = Meters(run, self.past)

    def take(self) -> dict[str, Any] | None:
        """See `Foreman`."""
        if self._whereabouts.leaving():
            return None
        plan: dict[str, Any] | None = ray.get(self._foreman.take.remote(self._group, self._whereabouts.addresses))
        return plan

    def tell(self, event: Event) -> None:
        """Send it on its way; what one process sends arrives in order."""
        self._foreman.tell.remote(self._group, event)
        self._meters.add(event)

    def past(self) -> list[Event]:
        """See `Foreman`."""
        found: list[Event] = ray.get(self._foreman.past.remote(self._group))
        return found

    def unwanted(self) -> bool:
        """See `Foreman`."""
        return self._whereabouts.leaving() or bool(ray.get(self._foreman.unwanted.remote(self._group)))

    def done(self, figures: dict[str, Any]) -> None:
        """See `Foreman`."""
        ray.get(self._foreman.done.remote(self._group, figures))

    def stopped(self) -> None:
        """See `Foreman`."""
        ray.get(self._foreman.stopped.remote(self._group))

    def failed(self, reason: str) -> None:
        """See `Foreman`."""
        ray.get(self._foreman.failed.remote(self._group, reason))
