"""What the driver notes about tracking: the run's own identity, and which tracker knows all of it."""

import uuid
from typing import Any

from threephase_ray.results import Store
from threephase_ray.trackers.subject import Subject


class Book:
    """The run's `tracking.json`: its own identity, given once, and for each tracker what it was last told of, and whether of all."""

    def __init__(self, store: Store, run: str) -> None:
        """Give the run an identity if it has none."""
        self._store, self._name = store, f"{run}/tracking.json"
        try:
            self._content: dict[str, Any] = store.read_json(self._name)
        except FileNotFoundError:
            self._content = {"identity": uuid.uuid4().hex, "trackers": {}}
            store.write_json(self._name, self._content)
        self.identity: str = self._content["identity"]

    def begun(self, tracker: str, subject: Subject) -> bool:
        """Whether the tracker was told of the subject."""
        return bool(self._content["trackers"].get(tracker, {}).get("identity") == subject.identity)

    def whole(self, tracker: str, subject: Subject) -> bool:
        """Whether it was told of the subject's end."""
        return self.begun(tracker, subject) and bool(self._content["trackers"][tracker]["whole"])

    def note(self, tracker: str, subject: Subject, *, whole: bool) -> None:
        """Note it."""
        self._content["trackers"][tracker] = {"identity": subject.identity, "whole": whole}
        self._store.write_json(self._name, self._content)
