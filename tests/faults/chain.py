"""One run that suffers nearly everything, one after the other: the short form of all the other scenarios."""

import dataclasses
from collections.abc import Iterator

from tests.faults import attacks, course, damage, twice
from tests.faults.job import Job
from tests.faults.kills import zero
from tests.faults.material import INTERVAL
from tests.faults.report import Line
from tests.faults.stops import GRACE, STOPPED
from tests.faults.trial import Case, Trial

PHASE = "finetune"
FLAGS = (*zero(1), "--phases", PHASE)


def cases() -> list[Case]:
    """The one."""
    return [Case("chain", 1500, run)]


def run(trial: Trial) -> Iterator[Line]:
    """A worker killed; SIGTERM; the driver killed, the newest checkpoint damaged, and two drivers started at once."""
    trial.bench.reference(*FLAGS)
    job, twin = (trial.job(*FLAGS, name=name) for name in ("one", "two"))
    twin.store = job.store
    job.start()
    attacks.attack(trial, job, "worker", PHASE, trial.rng.randint(7, 12))
    attacks.wait_for(trial, job, PHASE, trial.rng.randint(22, 28))
    job.struck("SIGTERM", PHASE)
    code, seconds = job.stop(GRACE)
    job.start()
    attacks.wait_for(trial, job, PHASE, trial.rng.randint(40, 50))
    killed = job.struck("driver, newest checkpoint damaged, two drivers started", PHASE)
    job.kill_all()
    newest = damage.checkpoints(job)[0]
    damage.flip(newest / "shards" / "rank-1.safetensors")
    both(job, twin)
    lines = attacks.lines(trial, job, 1, trial.compare(job, *FLAGS, phases=[PHASE]))
    lines[1].note = f"ended with {code} after {seconds:.1f} s"
    if code != STOPPED or lines[1].wasted != [0]:
        lines[1].problems.append("SIGTERM was not obeyed, or wasted steps")
    passed = [event["checkpoint"].rsplit("/", 1)[-1] for event in job.events()[killed.position :] if event["event"] == "passed_over"]
    lines[2] = dataclasses.replace(lines[2], interval=2 * INTERVAL, problems=[], note=f"exit codes {job.code} and {twin.code}").judge()
    if newest.name not in passed or course.resumed(job.events(), PHASE)[-1] >= int(newest.name.split("-")[0]):
        lines[2].problems.append("a damaged checkpoint was believed")
    lines[2].problems += twice.problems([job, twin])
    yield from lines


def both(job: Job, twin: Job) -> None:
    """Start the same run twice at once, and wait for the end of both."""
    for each in (job, twin):
        each.start()
    for each in (job, twin):
        job.limit.until(lambda each=each: each.code is not None, "the end of both drivers")
