"""Ways to hurt a run, each at a random moment."""

import signal
import time

import psutil

from tests.faults import course, processes
from tests.faults.course import Kill
from tests.faults.job import Job
from tests.faults.material import INTERVAL, STEPS
from tests.faults.report import Line
from tests.faults.trial import LOCAL, Trial

DOWN = 2.0  # seconds until a lost node comes back
WITHIN = 0.05  # seconds: a moment is drawn within about one step


def moment(trial: Trial, phase: str) -> int:
    """A step of the phase, drawn, that is neither its first nor its last."""
    return trial.rng.randint(2, STEPS[phase] - 3)


def wait_for(trial: Trial, job: Job, phase: str, step: int) -> None:
    """Until somewhere in the step after this one."""
    job.reach(phase, step)
    time.sleep(trial.rng.uniform(0, WITHIN))


def attack(trial: Trial, job: Job, what: str, phase: str, step: int) -> Kill:
    """Kill `what` in the step after this one, and bring back what does not come back by itself."""
    job.reach(phase, 1)
    victims = chosen(trial, job, what)
    wait_for(trial, job, phase, step)
    return strike(trial, job, what, phase, victims)


def chosen(trial: Trial, job: Job, what: str) -> list[psutil.Process]:
    """The processes to kill: a training process that is drawn, all of the second node, or the driver with its own Ray.

    Looking for them takes as long as many steps, so it is done ahead.
    """
    if what == "node":
        return processes.marked(trial.cluster.b.name)
    if what == "driver":
        return processes.marked(job.mark)
    if job.cluster is not None:
        found = job.cluster.workers()
    else:
        found = [process for process in processes.marked(job.mark) if process.name().startswith("ray::RayTrainWorker")]
    return [trial.rng.choice(sorted(found, key=lambda process: process.pid))]


def strike(trial: Trial, job: Job, what: str, phase: str, victims: list[psutil.Process]) -> Kill:
    """Kill them now; a node comes back as an autoscaler would bring it, and the driver's command is typed again."""
    kill = job.struck(what, phase)
    for victim in victims:
        processes.strike(victim, signal.SIGSTOP if what == "hang" else signal.SIGKILL)
    if what == "node":
        trial.cluster.b.kill()
        time.sleep(DOWN)
        trial.cluster.join(trial.cluster.b)
    if what == "driver":
        job.kill()
        job.start()
    return kill


def lines(trial: Trial, job: Job, stage: int, same: dict[str, bool]) -> list[Line]:
    """A line for each kill of a finished run; `same`: by phase, whether it equals the reference."""
    found, events = [], job.events()
    for kill in job.kills:
        cost = kill.cost(events)
        line = Line(trial.name, kill.phase, stage, kill.what, 1, [cost.step], [cost.wasted], INTERVAL, identical=same[kill.phase])
        line.in_flight, line.recovery = cost.in_flight, [] if cost.seconds is None else [cost.seconds]
        line.cluster = LOCAL if job.cluster is None else job.cluster.kind
        line.note = f"driver started again {job.again} time(s)" if job.again else ""
        line.problems += ["hit nothing: no attempt followed"] if course.restart(events, kill.position) == len(events) else []
        found.append(line.judge())
    return found
