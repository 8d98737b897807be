"""A run is followed by its trackers for as long as its driver works."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from threephase_ray.config import Config
from threephase_ray.results import Store, key
from threephase_ray.trackers.book import Book
from threephase_ray.trackers.choosing import makers
from threephase_ray.trackers.feed import Feed
from threephase_ray.trackers.histories import outcome
from threephase_ray.trackers.subject import Subject
from threephase_ray.training.signals import Stopped

_POLL = 2.0  # seconds between two looks at the log
Finish = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def following(config: Config, phases: dict[str, str], store: Store, run: str, *, finished: bool) -> Iterator[Finish]:
    """Tell the trackers of the run while the block lasts; it is given a function that takes the results.

    `phases`: their keys, by name; `finished`: the results are there already, so that trackers which know them are left alone.

    Raises:
        ResourceError: a tracker that was never told of these phases of the run cannot be reached; later on that is only said.
    """
    book = Book(store, run)
    knobs = config.model_dump(mode="json", exclude={"tracking"})
    subject = Subject(config.name, key({"run": book.identity, "phases": phases}), knobs, phases)
    feeds = [Feed(name, make, subject, store, f"{run}/events.jsonl") for name, make in makers(config, subject, store, run).items()]
    pumps = Pumps([feed for feed in feeds if not (finished and book.whole(feed.name, subject))])

    def finish(results: dict[str, Any]) -> None:
        pumps.stop()
        for feed in pumps.feeds:
            book.note(feed.name, subject, whole=feed.finish(outcome(results)))

    try:
        for feed in pumps.feeds:
            if not book.begun(feed.name, subject):
                feed.begin()
            book.note(feed.name, subject, whole=False)
        pumps.start()
        yield finish
    except BaseException as error:
        pumps.stop()
        for feed in pumps.feeds:
            feed.give_up("KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED")
        raise


class Pumps:
    """Threads that look at the log, one for each feed, so that none waits for another's server."""

    def __init__(self, feeds: list[Feed]) -> None:
        self.feeds, self._over, self._threads = feeds, threading.Event(), list[threading.Thread]()

    def start(self) -> None:
        """Begin."""
        self._threads = [threading.Thread(target=self._keep_pumping, args=(feed,), daemon=True) for feed in self.feeds]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, after what is under way."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _keep_pumping(self, feed: Feed) -> None:
        while not self._over.wait(_POLL):
            feed.pump()
