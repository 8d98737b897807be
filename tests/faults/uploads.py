"""Kills while a checkpoint is on its way into the store, and between its last byte and its commit."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from tests.faults import attacks, course, processes
from tests.faults.job import Job
from tests.faults.kills import zero
from tests.faults.material import INTERVAL
from tests.faults.processes import TooLong
from tests.faults.report import Line
from tests.faults.trial import Case, Trial

PHASE = "finetune"
ROUNDS = 8  # so many checkpoints are watched for one in the window


def cases() -> list[Case]:
    """A worker alone, and driver and workers all at once, in both windows."""
    windows = {"shards": uploading, "receipts": uncommitted}
    return [
        Case(f"uploads/{what}-{name}", 1000, partial(run, what=what, window=window))
        for what in ("worker", "driver")
        for name, window in windows.items()
    ]


def run(trial: Trial, what: str, window: Callable[[Path], bool]) -> Iterator[Line]:
    """Kill `what` in such a moment of a phase; the phases before are taken from the reference."""
    job = trial.job(*zero(1), local=what == "driver")
    trial.seeded(job, ("dae", "contrastive"), *zero(1))
    job.start()
    job.reach(PHASE, 5)
    caught = catch(job, window, attacks.chosen(trial, job, what))
    job.struck(what, PHASE)
    still = not committed(caught)
    if what == "driver":
        job.kill()
        job.start()
    job.finish()
    (line,) = attacks.lines(trial, job, 1, trial.compare(job, *zero(1), phases=[PHASE]))
    left = {Path(event["checkpoint"]).name for event in job.events() if event["event"] == "passed_over"}
    line.note = f"{caught.name} was {'not ' if still else ''}whole, and {'' if caught.name in left else 'not '}passed over"
    yield line


def catch(job: Job, window: Callable[[Path], bool], victims: list[psutil.Process]) -> Path:
    """Wait until a checkpoint is in the window, and kill at once: the window is a few milliseconds wide."""
    last = course.last_step(job.events(), PHASE) + ROUNDS * INTERVAL
    root = next(Path(job.store).glob(f"progress/{PHASE}-*"))
    while True:
        for checkpoint in root.iterdir():
            if window(checkpoint):
                for victim in victims:
                    processes.strike(victim)
                return checkpoint
        if not root.exists() or course.last_step(job.events(), PHASE) > last:
            raise TooLong(f"no checkpoint was caught under way in {ROUNDS} rounds")


def uploading(checkpoint: Path) -> bool:
    """Some of its files are there, but not all workers' receipts."""
    return any(checkpoint.glob("shards/*")) and len(list(checkpoint.glob("receipts/*.json"))) < 2 and not committed(checkpoint)


def uncommitted(checkpoint: Path) -> bool:
    """All receipts are there, but no manifest."""
    return len(list(checkpoint.glob("receipts/*.json"))) == 2 and not committed(checkpoint)


def committed(checkpoint: Path) -> bool:
    """Whether it counts."""
    return (checkpoint / "manifest.json").exists()
