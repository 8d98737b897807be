"""Ends that are asked for, requests that cannot be met, workers that hang, losses that are no numbers."""

import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial

from tests.faults import attacks
from tests.faults.cluster import RAY
from tests.faults.job import ROOT, Job
from tests.faults.kills import zero
from tests.faults.material import STEPS
from tests.faults.report import Line
from tests.faults.trial import Case, Trial

PHASE = "finetune"
GRACE = 20.0  # seconds that a driver has after SIGTERM
STOPPED = 128 + 15
STEEP = ("--finetune.learning_rate", "1", "--finetune.head_learning_rate", "1", "--finetune.weight_decay", "1e9")


def cases() -> list[Case]:
    """Each of them once, SIGTERM in both kinds of clusters."""
    return [
        Case("sigterm/cluster", 1000, partial(sigterm, local=False)),
        Case("sigterm/local", 1000, partial(sigterm, local=True)),
        Case("sigterm/job-stop", 1000, job_stop),
        Case("infeasible", 700, infeasible),
        Case("hang", 1000, hang),
        Case("nonfinite", 700, nonfinite),
    ]


def begun(trial: Trial, *flags: str, local: bool = False) -> Job:
    """A run of phase 3 alone, the others taken from the reference, and on its way."""
    job = trial.job(*zero(1), *flags, local=local)
    trial.seeded(job, ("dae", "contrastive"), *zero(1))
    return job


def sigterm(trial: Trial, local: bool) -> Iterator[Line]:
    """SIGTERM to the driver: it ends in time, and the same command wastes nothing."""
    job = begun(trial, local=local)
    job.start()
    attacks.wait_for(trial, job, PHASE, trial.rng.randint(2, STEPS[PHASE] // 2))  # workers look for it twice a second
    job.struck("SIGTERM", PHASE)
    code, seconds = job.stop(GRACE)
    job.start()
    job.finish()
    yield saved(trial, job, f"code {code}", seconds, [] if code == STOPPED else [f"ended with {code} instead of {STOPPED}"])


def saved(trial: Trial, job: Job, how: str, seconds: float, problems: list[str]) -> Line:
    """The line of a run that was asked to stop and was continued."""
    (line,) = attacks.lines(trial, job, 1, trial.compare(job, *zero(1)))
    line.problems += problems
    if line.wasted != [0]:
        line.problems.append("steps were wasted")
    line.note = f"{how} after {seconds:.1f} s"
    return line


def job_stop(trial: Trial) -> Iterator[Line]:
    """`ray job stop` of a submitted job, which is SIGTERM to its driver; the job submitted again wastes nothing."""
    job, name = trial.job(*zero(1)), f"job-{trial.rng.randrange(10**6)}"
    trial.bench.reference(*zero(1))
    submit(job, f"{name}-a")
    job.reach("dae", 2)  # the command takes seconds: the stop comes in one of the phases that follow
    before = time.monotonic()
    ray(job, "stop", f"{name}-a")
    seconds, status = time.monotonic() - before, ended(job, f"{name}-a")
    job.struck("ray job stop", [event["phase"] for event in job.events() if event["event"] == "step"][-1])
    submit(job, f"{name}-b")
    job.limit.until(lambda: ended(job, f"{name}-b"), "the end of the second job", pause=1.0)
    last = ended(job, f"{name}-b")
    problems = [] if (status, last) == ("STOPPED", "SUCCEEDED") else [f"the jobs {status} and {last}"]
    yield saved(trial, job, f"{status}, then {last},", seconds, problems)


def submit(job: Job, name: str) -> None:
    """Submit the run's command as a job that has time to save when it is stopped."""
    runtime = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(int(GRACE))}})
    ray(job, "submit", "--no-wait", "--submission-id", name, "--runtime-env-json", runtime, "--", *job.command)


def ended(job: Job, name: str) -> str:
    """The status of a job that has ended, else nothing."""
    said = ray(job, "status", name)
    return next((word for word in ("SUCCEEDED", "STOPPED", "FAILED") if word in said.upper()), "")


def ray(job: Job, *words: str) -> str:
    """A command of `ray job`, on the head; what it printed."""
    assert job.cluster is not None
    environment = {name: value for name, value in job.environment.items() if name != "RAY_ADDRESS"}
    command = [*job.cluster.place.prefix, RAY, "job", words[0], f"--address={job.cluster.dashboard}", *words[1:]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


def infeasible(trial: Trial) -> Iterator[Line]:
    """More workers than the cluster has room for: a clear end, and soon."""
    job = begun(trial, "--compute.workers", "5", "--compute.start_timeout_s", "5")
    before = time.monotonic()
    job.start()
    job.finish(4)
    line = Line(trial.name, PHASE, 1, "nothing: 5 workers", cluster=trial.cluster.kind)
    line.note = f"code 4 after {time.monotonic() - before:.0f} s"
    if "5 workers" not in job.printed():
        line.problems.append(f"no clear word: {job.tail()}")
    yield line


def hang(trial: Trial) -> Iterator[Line]:
    """A worker that does not go on (SIGSTOP) is replaced."""
    job = begun(trial, "--compute.hang_timeout_s", "15")
    job.start()
    attacks.attack(trial, job, "hang", PHASE, attacks.moment(trial, PHASE))
    job.finish()
    yield from attacks.lines(trial, job, 1, trial.compare(job, *zero(1), phases=[PHASE]))


def nonfinite(trial: Trial) -> Iterator[Line]:
    """Weights that overflow: the run names step and rows, and is not tried again."""
    job = begun(trial, *STEEP)
    job.start()
    job.finish(1)
    kinds = [event["event"] for event in job.events()]
    line = Line(trial.name, PHASE, 1, "nothing: a loss that is no number", cluster=trial.cluster.kind)
    line.note = next((text for text in job.printed().splitlines() if "at step" in text), "")
    if "at step" not in job.printed() or "rows" not in job.printed():
        line.problems.append("names no step or no rows")
    if kinds.count("phase") != 1 or "retry" in kinds:
        line.problems.append("was tried again")
    yield line
