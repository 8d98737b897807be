"""Workers, nodes and drivers killed at random moments: every phase, every ZeRO stage, the same weights as without."""

from collections.abc import Iterator
from functools import partial

from tests.faults import attacks, finished
from tests.faults.material import PHASES
from tests.faults.report import Line
from tests.faults.trial import Case, Trial

STAGES = (0, 1, 3)
ORDERS = (("worker", "node", "driver"), ("node", "driver", "worker"), ("driver", "worker", "node"))


def cases() -> list[Case]:
    """A reference and three runs for each stage, so that each phase meets each kind of kill."""
    found = [Case(f"reference/zero{stage}", 700, partial(reference, stage=stage)) for stage in STAGES]
    for stage in STAGES:
        found += [Case(f"kills/zero{stage}-{order[0]}-first", 1500, partial(run, stage=stage, order=order)) for order in ORDERS]
    return found


def reference(trial: Trial, stage: int) -> Iterator[Line]:
    """One undisturbed run."""
    store = trial.bench.reference(*zero(stage))
    for phase in PHASES:
        figures = finished.figures(str(store), phase, trial.bench.environment)
        yield Line(trial.name, phase, stage, cluster=trial.cluster.kind, note=f"{len(figures['losses'])} steps")


def zero(stage: int) -> tuple[str, str]:
    """The flags of a stage."""
    return "--compute.zero_stage", str(stage)


def run(trial: Trial, stage: int, order: tuple[str, ...]) -> list[Line]:
    """Three kills of one run, one in each phase."""
    trial.bench.reference(*zero(stage))
    job = trial.job(*zero(stage))
    job.start()
    for phase, what in zip(PHASES, order, strict=True):
        attacks.attack(trial, job, what, phase, attacks.moment(trial, phase))
    job.finish()
    lines = attacks.lines(trial, job, stage, trial.compare(job, *zero(stage)))
    lines[-1].problems += finished.verify(job.store, job.environment)
    return lines
