"""Two drivers of the same name at once: one works, the other waits or is refused; never a corrupt result."""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.faults import finished
from tests.faults.job import Job
from tests.faults.report import Line
from tests.faults.trial import Case, Trial

TRIALS = 20
SHORT = ("--phases", "finetune", "--finetune.steps", "4", "--finetune.validations", "1", "--compute.workers", "1")
DOCUMENTED = (0, 1, 4)  # done; a worker noticed that it was replaced; the run is being worked on
APART = 6.0  # seconds between the two starts at most


def cases(trials: int = TRIALS) -> list[Case]:
    """All trials as one line."""
    return [Case("twice", 120 * trials + 60, partial(run, trials=trials))]


def run(trial: Trial, trials: int) -> Iterator[Line]:
    """Each time a fresh store, and another distance between the two starts."""
    line = Line("twice", "finetune", killed="nothing: two drivers", cluster=trial.cluster.kind)
    codes = []
    for number in range(trials):
        apart = 0.0 if number < trials // 4 else trial.rng.uniform(0, APART)
        pair = [driver(trial, f"pair-{number}-{side}", trial.folder / f"store-{number}") for side in "ab"]
        pair[0].start()
        time.sleep(apart)
        pair[1].start()
        for job in pair:
            trial.limit.until(lambda job=job: job.code is not None, "the end of both drivers")
        codes.append("/".join(str(job.code) for job in pair))
        line.problems += [f"trial {number}: {problem}" for problem in problems(pair)]
    line.note = f"{trials} trials; exit codes {', '.join(codes)}"
    yield line


def driver(trial: Trial, name: str, store: Path) -> Job:
    """One of the two."""
    job = trial.job(*SHORT, name=name)
    job.store = str(store)
    return job


def problems(pair: list[Job]) -> list[str]:
    """What is wrong after both ended."""
    found = finished.verify(pair[0].store, pair[0].environment)
    if all(job.code != 0 for job in pair):
        found.append(f"neither came to an end: {pair[0].tail()} || {pair[1].tail()}")
    for job in pair:
        if job.code not in DOCUMENTED:
            found.append(f"exit code {job.code}: {job.tail()}")
        elif job.code and ("Traceback" in job.printed() or "worked on by" not in job.printed()):
            found.append(f"no clear word: {job.tail()}")
    results = [json.loads(path.read_text()) for path in Path(pair[0].store).glob("runs/*/results.json")]
    if len(results) != 1:
        found.append("there are no results")
    if (ends := sum(event["event"] == "phase_end" for event in pair[0].events())) != 1:
        found.append(f"the phase was trained {ends} times")
    return found
