"""A case of a scenario and what it works with: jobs, a cluster, a random generator, runs to compare with."""

import contextlib
import itertools
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import finished, processes
from tests.faults.cluster import Cluster, running
from tests.faults.job import Job
from tests.faults.material import PHASES
from tests.faults.processes import Limit
from tests.faults.report import Line

PATIENCE = 600.0  # seconds for a run that nobody disturbs, on a machine that does much else
END = 60.0  # seconds for the end of what was killed
LOCAL = "this machine"  # a run that starts Ray for itself


class Bench:
    """What all cases share: material, environment, cluster, references."""

    def __init__(self, folder: Path, config: Path, environment: dict[str, str], seed: int) -> None:
        """`folder` must have a short path: sockets lie below it."""
        self.folder, self.config, self.environment, self.seed = folder, config, environment, seed
        self._clusters = contextlib.ExitStack()
        self._cluster: Cluster | None = None
        self._references: dict[tuple[str, ...], Path] = {}
        self._numbers = itertools.count()

    def cluster(self) -> Cluster:
        """The cluster of two nodes, started when first asked for."""
        if self._cluster is None:
            self._cluster = self._clusters.enter_context(running(self.folder, self.environment))
        return self._cluster

    def close(self) -> None:
        """End the cluster; whoever asks for one then gets a new one."""
        self._cluster = None
        self._clusters.close()

    def reference(self, *flags: str) -> Path:
        """Store of an undisturbed run with these flags, made when first asked for."""
        if flags not in self._references:
            folder = self.folder / f"reference-{next(self._numbers)}"
            job = Job(folder, self.config, self.environment, self.cluster(), Limit(PATIENCE))
            job.flags = list(flags)
            try:
                job.start()
                job.finish()
            finally:
                processes.end(job.mark, Limit(END))
            self._references[flags] = Path(job.store)
        return self._references[flags]


class Trial:
    """One case at work; at its end nothing of it runs any more."""

    def __init__(self, bench: Bench, name: str, seconds: float) -> None:
        """`seconds`: after so many it has failed."""
        self.bench, self.name, self.limit = bench, name, Limit(seconds)
        self.folder = bench.folder / name.replace("/", "-")
        self.rng = random.Random(f"{bench.seed} {name}")  # noqa: S311
        self._jobs: list[Job] = []

    @property
    def cluster(self) -> Cluster:
        """The cluster of two nodes."""
        return self.bench.cluster()

    def job(self, *flags: str, local: bool = False, name: str = "", kind: type[Job] = Job) -> Job:
        """A run with a store of its own."""
        cluster = None if local else self.cluster
        job = kind(self.folder / name, self.bench.config, self.bench.environment, cluster, self.limit)
        job.flags = list(flags)
        self._jobs.append(job)
        return job

    def seeded(self, job: Job, phases: Iterable[str], *flags: str) -> None:
        """Give the job's store the data set and finished phases of the reference with these flags."""
        source, store = self.bench.reference(*flags), Path(job.store)
        for pattern in ("data/*", *(f"phases/{phase}-*" for phase in phases)):
            for path in source.glob(pattern):
                shutil.copytree(path, store / path.relative_to(source))

    def compare(self, job: Job, *flags: str, phases: Iterable[str] = PHASES) -> dict[str, bool]:
        """By phase, whether the job's weights are bit for bit those of the reference with these flags."""
        both = job.store, str(self.bench.reference(*flags))
        pairs = {phase: [finished.weights(store, phase, job.environment) for store in both] for phase in phases}
        return {phase: finished.same(*pair) for phase, pair in pairs.items()}

    def close(self) -> None:
        """End what still runs."""
        for job in self._jobs:
            processes.end(job.mark, Limit(END))


@dataclass(frozen=True)
class Case:
    """A case by its name, the seconds it may take, and what it does."""

    name: str
    seconds: float
    work: Callable[[Trial], Iterable[Line]]
