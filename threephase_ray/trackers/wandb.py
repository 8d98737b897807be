"""Runs at Weights & Biases: one for the whole and one for each phase, in a group. Each is resumed by its id, and asked how far it is.

Credentials are in the environment (WANDB_API_KEY). With WANDB_MODE=offline the runs are files, written anew by each driver.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import wandb

from threephase_ray.trackers.histories import Outcome, Row
from threephase_ray.trackers.subject import Ending, Subject

_PRIVATE = {  # neither the machine, its packages, its load, the command, the code nor what is printed is told
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": "",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
_PATIENCE = {"init_timeout": 60, "finish_timeout": 60, "finish_timeout_raises": True}  # seconds for a server that is away


def may_begin() -> bool:
    """Whether there are credentials, or none are needed; never asks for them."""
    return wandb.setup().settings.mode != "online" or wandb.login(prompt=False, verify=False)


class WandB:
    """The runs of a subject in a project (or entity/project); `folder`: where wandb keeps its files."""

    def __init__(self, project: str, subject: Subject, folder: Path) -> None:
        """Begin the run of the whole."""
        self._entity, _, self._project = project.rpartition("/")
        self._subject, self._folder = subject, folder
        self._runs: dict[str | None, wandb.Run] = {}
        for stale in (folder / "wandb").glob(f"offline-run-*-{subject.identity}*"):
            shutil.rmtree(stale)
        run = self._run(None)
        self.place = str(folder / "wandb") if run.offline else run.url

    def write(self, phase: str, rows: Sequence[Row]) -> None:
        """Send the rows that the run has not."""
        run = self._run(phase)
        for row in rows:
            if row.step >= run.starting_step:  # that of a run which is resumed is the first one that it lacks
                run.log(row.figures | {"_timestamp": row.time}, step=row.step)

    def finish(self, outcome: Outcome, reused: frozenset[str]) -> None:
        """Final figures as the runs' summaries."""
        for phase, figures in [(None, outcome.run), *outcome.phases.items()]:
            run = self._run(phase)
            run.summary.update(figures)
            if phase in reused:
                run.tags = tuple({*(run.tags or ()), "reused"})

    def close(self, ending: Ending) -> None:
        """Wait until everything is sent, the whole run last."""
        for run in reversed(self._runs.values()):
            run.finish(exit_code=int(ending != "FINISHED"))

    def _run(self, phase: str | None) -> wandb.Run:
        """The run of a phase, or the whole one."""
        if phase not in self._runs:
            self._runs[phase] = wandb.init(
                entity=self._entity or None,
                project=self._project,
                group=f"{self._subject.name}-{self._subject.identity}",
                id=self._subject.identity_of(phase),
                name=self._subject.name if phase is None else f"{self._subject.name} {phase}",
                job_type=phase or "run",
                config=self._subject.knobs_of(phase),
                dir=self._folder,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, symlink=False, **_PRIVATE, **_PATIENCE),
            )
        return self._runs[phase]
