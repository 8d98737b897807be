"""Ways to hurt a run, each at a random moment."""

import signal
import time

import psutil

from tests.faults import processes
from tests.faults.course import Kill
from tests.faults.job import Job
from tests.faults.material import INTERVAL, STEPS
from tests.faults.report import Line
from tests.faults.trial import LOCAL, Trial

DOWN = 2.0  # seconds until a lost node comes back
WITHIN = 0.15  # a moment is drawn within about one step


def moment(trial: Trial, phase: str) -> int:
    """A step of the phase, drawn, that is neither its first nor its last."""
    return trial.rng.randint(2, STEPS[phase] - 3)


def wait_for(trial: Trial, job: Job, phase: str, step: int) -> None:
    """Until somewhere in the step after this one."""
    job.reach(phase, step)
    time.sleep(trial.rng.uniform(0, WITHIN))


def attack(trial: Trial, job: Job, what: str, phase: str) -> Kill:
    """Kill `what` now, and bring back what does not come back by itself."""
    kill = job.struck(what, phase)
    {"worker": worker, "node": node, "driver": driver, "hang": hang}[what](trial, job)
    return kill


def worker(trial: Trial, job: Job) -> None:
    """SIGKILL one training process; the driver replaces it by itself."""
    processes.strike(chosen(trial, job))


def hang(trial: Trial, job: Job) -> None:
    """SIGSTOP one training process."""
    processes.strike(chosen(trial, job), signal.SIGSTOP)


def node(trial: Trial, job: Job) -> None:
    """SIGKILL everything on the second node, and start it again as an autoscaler would."""
    trial.cluster.b.kill()
    time.sleep(DOWN)
    trial.cluster.start_b()


def driver(trial: Trial, job: Job) -> None:
    """SIGKILL the driver, and type the same command again."""
    job.kill()
    job.start()


def chosen(trial: Trial, job: Job) -> psutil.Process:
    """One training process of the run, drawn."""
    if job.cluster is not None:
        found = job.cluster.workers()
    else:
        found = [process for process in processes.marked(job.mark) if process.name().startswith("ray::RayTrainWorker")]
    return trial.rng.choice(sorted(found, key=lambda process: process.pid))


def lines(trial: Trial, job: Job, stage: int, same: dict[str, bool]) -> list[Line]:
    """A line for each kill of a finished run; `same`: by phase, whether it equals the reference."""
    found = []
    for kill in job.kills:
        cost = kill.cost(job.events())
        line = Line(trial.name, kill.phase, stage, kill.what, 1, [cost.step], [cost.wasted], INTERVAL, identical=same[kill.phase])
        line.in_flight, line.recovery = cost.in_flight, [] if cost.seconds is None else [cost.seconds]
        line.cluster = LOCAL if job.cluster is None else job.cluster.kind
        line.note = f"driver started again {job.again} time(s)" if job.again else ""
        found.append(line.judge())
    return found
