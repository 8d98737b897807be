"""One run under test: the same command, started, stopped and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults import course, processes
from tests.faults.cluster import Cluster
from tests.faults.course import Event, Kill
from tests.faults.processes import Limit

ROOT = Path(__file__).resolve().parent.parent.parent
AGAIN = 3  # how often a driver that gave up may be started again


class Unexpected(AssertionError):
    """A driver ended otherwise than it should."""


class Job:
    """A run by its store and name. Without a cluster each driver starts Ray for itself."""

    script = "train.py"

    def __init__(self, folder: Path, config: Path, environment: dict[str, str], cluster: Cluster | None, limit: Limit) -> None:
        """Logs, scratch and, if `store` is not changed, the store lie in `folder`."""
        self.folder, self.config, self.cluster, self.limit = folder, config, cluster, limit
        self.environment = environment if cluster is None else cluster.environment()
        self.name, self.store, self.flags = "run", str(folder / "store"), list[str]()
        self.mark = f"{folder.name}-{os.getpid()}-{time.monotonic_ns()}"
        self.again, self.kills = 0, list[Kill]()
        self.driver: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def command(self) -> list[str]:
        """What is started, each time."""
        words = [sys.executable, str(ROOT / "jobs" / self.script), "--config", str(self.config), "--store", self.store]
        return [*words, "--scratch", str(self.folder / "scratch"), "--name", self.name, *self.flags]

    def start(self) -> None:
        """Start the driver."""
        prefix = [] if self.cluster is None else self.cluster.place.prefix
        self.driver = processes.start([*prefix, *self.command], self.environment, self.mark, str(self.log))

    @property
    def log(self) -> Path:
        """What all its drivers printed."""
        return self.folder / f"{self.name}.log"

    @property
    def code(self) -> int | None:
        """Exit code of the driver, None while it runs, or where it is not ours."""
        return None if self.driver is None else self.driver.poll()

    def kill(self) -> None:
        """SIGKILL the driver and, where it has one, its own Ray. On a cluster its workers end a little later."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()
        processes.end(self.mark, self.limit)

    def kill_all(self) -> None:
        """The same, and wait until its workers are gone."""
        self.kill()
        cluster = self.cluster
        if cluster is not None:
            self.limit.until(lambda: not cluster.workers(), "the end of the workers", processes.SLOWLY)

    def stop(self, grace: float = 20.0) -> tuple[int, float]:
        """SIGTERM to the driver; its exit code and the seconds it took. SIGKILL after `grace` seconds."""
        assert self.driver is not None
        before = time.monotonic()
        self.driver.send_signal(signal.SIGTERM)
        try:
            self.driver.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.driver.wait(), time.monotonic() - before

    def reach(self, phase: str, step: int) -> None:
        """Wait until a step of the phase was done that is no earlier than `step`, by those who work since the last kill."""

        def there() -> bool:
            events = self.events()
            since = course.restart(events, self.kills[-1].position) if self.kills else 0
            return course.last_step(events[since:], phase) >= step

        self.limit.until(lambda: there() or not self._goes_on(), f"step {step} of {phase}")
        if not there():
            raise Unexpected(f"ended with {self.code} before step {step} of {phase}: {self.tail()}")

    def finish(self, code: int = 0) -> None:
        """Wait for the driver's end, which must be with this code."""
        self.limit.until(lambda: not self._goes_on(), "the end of the run")
        if self.code != code:
            raise Unexpected(f"ended with {self.code} instead of {code}: {self.tail()}")

    def _goes_on(self) -> bool:
        """Whether the driver runs; after a kill, one that gave up is started again, and counted."""
        if self.code == 1 and self.kills and self.again < AGAIN:
            self.again += 1
            self.start()
        return self.code is None

    def events(self) -> list[Event]:
        """All events so far."""
        return course.read(self.events_path())

    def events_path(self) -> Path | None:
        """Where the workers write them: in the store, or below the scratch folder if the store is no folder."""
        if "://" not in self.store:
            return Path(self.store) / "runs" / self.name / "events.jsonl"
        return next((self.folder / "scratch").rglob(f"{self.name}/events.jsonl"), None)

    def struck(self, what: str, phase: str) -> Kill:
        """Note that a kill comes now."""
        self.kills.append(Kill(what, phase, len(self.events()), time.time()))
        return self.kills[-1]

    def printed(self) -> str:
        """All that its drivers printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        """The end of what it printed."""
        return " / ".join(self.printed().strip().splitlines()[-6:])[-600:]
