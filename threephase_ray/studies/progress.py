"""What a person sees while a study runs: a bar, and a line for each run that ended."""

import contextlib
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from threephase_ray import console
from threephase_ray.results import Store
from threephase_ray.studies.work import Planned


class Progress:
    """Runs that have ended, of those that are to be done. Test figures wait for the end, when all are compared."""

    def __init__(self, store: Store) -> None:
        self._store, self._total, self._ended = store, 0, 0
        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console.console)
        self._task = self._bar.add_task("runs", total=None)
        self._shown = contextlib.ExitStack()

    def __enter__(self) -> "Progress":
        if console.console.is_terminal:
            self._shown.enter_context(self._bar)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shown.close()

    def expect(self, runs: int) -> None:
        """So many runs more are to be done."""
        self._total += runs
        self._bar.update(self._task, total=self._total)

    def told(self, planned: Planned, reason: str) -> None:
        """A run has ended; `reason`: why it failed, if it did."""
        self._ended += 1
        self._bar.update(self._task, completed=self._ended)
        run = planned.run
        words = [f"run {self._ended} of {self._total}: {run.arm}", *([run.cell.name] if run.cell.levels else []), f"seed {run.seed}"]
        console.console.print(", ".join(words), self._outcome(planned, reason), sep="  ", highlight=False, soft_wrap=True)

    def _outcome(self, planned: Planned, reason: str) -> str:
        """How it ended, in a few words."""
        if reason:
            return f"failed: {reason.splitlines()[0]}"
        scores = self._store.read_json(f"{planned.folder}/results.json")["phases"][-1]["scores"]
        return f"validation: accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}"
