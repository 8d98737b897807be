"""What a person sees while a job runs: a progress bar, or a plain line now and then where there is no terminal; tables."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

# No markup: labels and paths may hold brackets and colons.
console = Console(width=None if sys.stdout.isatty() else 140, markup=False, emoji=False)
_QUIET_SECONDS = 10.0  # between two plain lines
_POLL_SECONDS = 0.2
_LEFT_OUT = ("time", "seconds", "macro_precision", "macro_recall")
_WORTH_A_LINE = ("retry", "waiting", "passed_over", "skipped", "saved")  # shown beside the bars, too
_QUIET = ("checkpoint", "committed", "attempt", "start")  # for the file alone


class Follower:
    """Shows the events that workers append to a file."""

    def __init__(self, news: Callable[[], bytes]) -> None:
        """`news` gives the whole lines that came since its last call."""
        self._news = news
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=11)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, overflow="ellipsis", no_wrap=True)),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._notes: dict[str, str] = {}
        self._last_line = 0.0

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show events as they come, for as long as the block lasts."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(_POLL_SECONDS):
                self._read()

        thread = threading.Thread(target=follow, daemon=True)
        with self._progress if console.is_terminal else contextlib.nullcontext():
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
                self._read()

    def _read(self) -> None:
        """Show the lines that are new."""
        for line in self._news().splitlines():
            with contextlib.suppress(ValueError):  # a writer that was killed may leave half a line
                self._show(json.loads(line))

    def _show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        name = str(event.get("phase"))
        if event["event"] == "validation":
            self._notes[name] = f"validation {figures(event)}"
        if event["event"] in ("step", "validation"):
            loss = f"loss {event['loss']:.4f}  " if event["event"] == "step" else ""
            note = loss + self._notes.get(name, "")
            self._bar(name, event, note) if console.is_terminal else self._line(name, event, note)
        elif event["event"] in _WORTH_A_LINE or not (console.is_terminal or event["event"] in _QUIET):
            console.print(said(event))

    def _bar(self, name: str, event: dict[str, Any], note: str) -> None:
        """Move the phase's bar."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=event["steps"], note="")
        self._progress.update(self._tasks[name], completed=event["step"], total=event["steps"], note=note)

    def _line(self, name: str, event: dict[str, Any], note: str) -> None:
        """Print a plain line, unless one was printed a moment ago."""
        if event["event"] == "validation" or time.monotonic() - self._last_line > _QUIET_SECONDS:
            self._last_line = time.monotonic()
            console.print(f"{name}: step {event['step']} of {event['steps']}  {note}")


def said(event: dict[str, Any]) -> str:
    """An event in one line: what happened, where, its figures, and the reason if there is one."""
    step = f" at step {event['step']}" if event.get("step") else ""
    reasons = [str(event[name]) for name in ("for", "checkpoint", "reason") if isinstance(event.get(name), str)]
    places = ["on " + ", ".join(event["nodes"])] if "nodes" in event else []
    words = [f"{event.get('phase', 'run')}: {event['event'].replace('_', ' ')}{step}", figures(event), *places, *reasons]
    return "  ".join(word for word in words if word)


def figures(scores: dict[str, Any]) -> str:
    """Scores in one short line; results.json has them all."""
    shown = {name: value for name, value in scores.items() if isinstance(value, float) and name not in _LEFT_OUT}
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items())


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table, the first column to the left and the others to the right."""
    console.print(f"\n{title}", style="bold")
    made = Table()
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    console.print(made)


@contextlib.contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, done, total) that shows how far preparing has come; a total of 0 is one not known."""
    progress = Progress(TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    tasks: dict[str, TaskID] = {}

    def count(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage)
        progress.update(tasks[stage], completed=done, total=total if total else None)

    with progress if console.is_terminal else contextlib.nullcontext():
        yield count
