"""Another number of workers in the middle of a phase: the same losses."""

from collections.abc import Iterator
from functools import partial

from tests.faults import attacks, finished
from tests.faults.job import Job
from tests.faults.kills import zero
from tests.faults.material import PHASES, STEPS
from tests.faults.report import Line
from tests.faults.trial import Case, Trial

EXACT = ("--encoder.dropout", "0", "--finetune.head_dropout", "0")  # dropout is drawn by each worker for itself
NEAR = 1e-5
LONG = ("--finetune.steps", "1200")  # time enough for Ray to notice that there is room again


def cases() -> list[Case]:
    """A node that goes and comes, and a run that is stopped and continued with other numbers."""
    return [Case("elastic/node-zero1", 1500, partial(node, stage=1)), Case("elastic/stop-zero3", 1500, partial(stopped, stage=3))]


def stopped(trial: Trial, stage: int) -> Iterator[Line]:
    """2 workers, stopped in the first phase; 1 worker, stopped in the second; 2 workers to the end."""
    flags = (*zero(stage), *EXACT)
    trial.bench.reference(*flags)
    job = trial.job()
    for workers, phase in (("2", "dae"), ("1", "contrastive"), ("2", None)):
        job.flags = [*flags, "--compute.workers", workers]
        job.start()
        if phase is not None:
            job.reach(phase, trial.rng.randint(2, STEPS[phase] // 2))
            job.struck("SIGTERM", phase)
            job.stop()
    job.finish()
    yield compared(trial, job, stage, flags, "SIGTERM")


def node(trial: Trial, stage: int) -> Iterator[Line]:
    """1 or 2 workers: a node is lost in the first phase and comes back in the second; two work again in the third."""
    flags = (*zero(stage), *EXACT, *LONG)
    trial.bench.reference(*flags)
    job = trial.job(*flags, "--compute.workers", "1,2")
    job.start()
    job.reach("dae", attacks.moment(trial, "dae"))
    job.struck("node", "dae")
    trial.cluster.b.kill()
    try:
        job.reach("contrastive", attacks.moment(trial, "contrastive"))
    finally:
        trial.cluster.join(trial.cluster.b)
    job.finish()
    yield compared(trial, job, stage, flags, "node")


def compared(trial: Trial, job: Job, stage: int, flags: tuple[str, ...], what: str) -> Line:
    """The losses of all steps against those of the run that never changed; the numbers of workers that were at work."""
    reference = str(trial.bench.reference(*flags))
    line = Line(trial.name, "all", stage, what, len(job.kills), cluster=trial.cluster.kind)
    worst = 0.0
    for phase in PHASES:
        ours, theirs = (finished.figures(store, phase, job.environment)["losses"] for store in (job.store, reference))
        if len(ours) != len(theirs):
            line.problems.append(f"{phase}: {len(ours)} steps instead of {len(theirs)}")
        worst = max([worst, *(abs(one - other) for one, other in zip(ours, theirs, strict=False))])
    workers = [event["workers"] for event in job.events() if event["event"] == "phase"]
    line.note = f"workers {', '.join(map(str, workers))}; largest difference of a loss {worst:.1e}"
    if worst > NEAR:
        line.problems.append(f"losses differ by {worst:.1e}")
    if workers[0] != 2 or 1 not in workers or workers[-1] != 2:
        line.problems.append("not 2, then 1, then 2 workers")
    costs = [kill.cost(job.events()) for kill in job.kills]
    line.moments, line.wasted = [cost.step for cost in costs], [cost.wasted for cost in costs]
    line.recovery = [cost.seconds for cost in costs if cost.seconds is not None]
    return line.judge()
