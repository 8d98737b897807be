"""A tracker is told of a run's log. Nothing is noted about what was sent: after a start or a failure it is told everything anew."""

import contextlib
import time
from collections.abc import Callable, Iterator

from threephase_ray.console import console
from threephase_ray.errors import ResourceError
from threephase_ray.results import Store
from threephase_ray.trackers.histories import Histories, Outcome
from threephase_ray.trackers.subject import Ending, Subject, Tracker
from threephase_ray.training import accounting, events

_PAUSE = 60.0  # seconds after which a tracker that failed is tried again
_TRIES = 3  # to tell the end of a run


class Feed:
    """Tells a tracker of the log. What fails is said once, and made up for later by telling all from the beginning."""

    def __init__(self, name: str, make: Callable[[], Tracker], subject: Subject, store: Store, log: str) -> None:
        """`name`: of the tracker, for messages; `log`: the name of the run's events."""
        self.name, self._make, self._subject, self._store, self._log = name, make, subject, store, log
        self._tracker: Tracker | None = None
        self._failed, self._again = False, 0.0

    def open(self) -> None:
        """Begin at the beginning of the log."""
        tracker = self._make()
        self._position, self._histories = 0, Histories()
        self._news = events.tail(self._store, self._log, 0)
        self._tracker = tracker
        console.print(f"tracked: {tracker.place}", soft_wrap=True)

    def begin(self) -> None:
        """Open for the first time.

        Raises:
            ResourceError: the tracker cannot be used.
        """
        try:
            self.open()
        except Exception as error:
            raise ResourceError(
                f"tracking: {self.name} cannot be used: {_short(error)}\n"
                "  correct the knobs of `tracking` or the environment, or leave this one out; a run that is known there goes on without"
            ) from error

    def pump(self) -> None:
        """Tell what is new."""
        if self._tracker is not None or time.monotonic() >= self._again:
            with self._forgiving("it is tried again every minute"):
                self._tell()

    def finish(self, final: Outcome) -> bool:
        """Tell the rest and the final figures; whether it is all there now."""
        return any(self._finished(final) for _ in range(_TRIES))

    def _finished(self, final: Outcome) -> bool:
        with self._forgiving("the same command sends what is missing"):
            self._tell_rest()
            reused = frozenset(name for name, key in self._subject.phases.items() if key not in self._histories.trained)
            assert self._tracker is not None
            self._tracker.finish(final, reused)
            self._close("FINISHED")
            return True
        return False

    def give_up(self, ending: Ending) -> None:
        """Tell the rest of a run that did not come to its end."""
        if self._tracker is not None:
            with self._forgiving("the same command sends what is missing"):
                self._tell_rest()
                self._close(ending)

    def _tell(self) -> None:
        if self._tracker is None:
            self.open()
        assert self._tracker is not None
        lines = self._news()
        rows = self._histories.add(accounting.parse(lines))
        for phase, key in self._subject.phases.items():
            if key in rows:
                self._tracker.write(phase, rows[key])
        self._position += len(lines)

    def _tell_rest(self) -> None:
        """What is there now, also where an object store would not be asked yet."""
        self._tell()
        self._news = events.tail(self._store, self._log, self._position)
        self._tell()

    def _close(self, ending: Ending) -> None:
        tracker, self._tracker = self._tracker, None
        assert tracker is not None
        tracker.close(ending)

    @contextlib.contextmanager
    def _forgiving(self, advice: str) -> Iterator[None]:
        """Training goes on whatever a tracker does, so nothing that it raises leaves here."""
        try:
            yield
            self._failed = False
        except Exception as error:
            if not self._failed:
                console.print(f"tracking: {self.name} failed: {_short(error)}; {advice}", soft_wrap=True)
            self._failed, self._again, self._tracker = True, time.monotonic() + _PAUSE, None


def _short(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
