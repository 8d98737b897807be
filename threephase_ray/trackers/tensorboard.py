"""Event files for TensorBoard. They are written anew from the run's log by each driver, so that nothing is in them twice."""

import shutil
import time
from collections.abc import Sequence

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from threephase_ray.results import Store
from threephase_ray.trackers.histories import Outcome, Row
from threephase_ray.trackers.subject import Ending

_RUN = "run"  # the folder with the figures of the whole run
_SECONDS = 60.0  # between two copies to an object store


class TensorBoard:
    """A folder for each phase, and one for the run; `folder`: name of all of it in the store."""

    def __init__(self, store: Store, folder: str) -> None:
        """Remove what an earlier driver wrote."""
        self._store, self._folder = store, folder
        self._here = store.place(folder)
        shutil.rmtree(self._here, ignore_errors=True)
        store.storage.remove(folder)
        self.place = f"{store.storage.uri}/{folder}"
        self._writers: dict[str, EventsWriter] = {}
        self._copied = time.monotonic()

    def write(self, phase: str, rows: Sequence[Row]) -> None:
        """Append the rows."""
        writer = self._writer(phase)
        for row in rows:
            for name, value in row.figures.items():
                writer.write_event(Event(wall_time=row.time, step=row.step, summary=scalar(name, value)))
        writer.flush()
        if time.monotonic() - self._copied > _SECONDS:
            self._copy()

    def finish(self, outcome: Outcome, reused: frozenset[str]) -> None:
        """Final figures as curves of one point; a phase that is reused has no others."""
        self.write(_RUN, [Row(0, time.time(), outcome.run)])
        for phase, figures in outcome.phases.items():
            self.write(phase, [Row(int(figures["cost/steps"]), time.time(), figures)])

    def close(self, ending: Ending) -> None:
        """Close the files, and bring them to an object store."""
        for writer in self._writers.values():
            writer.close()
        self._copy()

    def _copy(self) -> None:
        self._store.put(self._here, self._folder)
        self._copied = time.monotonic()

    def _writer(self, phase: str) -> EventsWriter:
        """The phase's file. A TensorBoard that is open takes the start of a session as a sign to forget the old file's points."""
        if phase not in self._writers:
            (self._here / phase).mkdir(parents=True)
            self._writers[phase] = EventsWriter(str(self._here / phase / "events"))
            self._writers[phase].write_event(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
        return self._writers[phase]
