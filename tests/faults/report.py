"""What the scenarios found: a table, and the same as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

UNSEEN = 2  # steps that may be lost beyond the interval: one under way, one whose event was not yet written

SHOWN = 3  # problems in the table; the JSON has all


@dataclass
class Line:
    """One line of the table; whatever stands in `problems` makes it fail."""

    scenario: str
    phase: str = ""
    stage: int | None = None
    killed: str = ""
    kills: int = 0
    moments: list[int] = field(default_factory=list)  # steps after which it was killed
    wasted: list[int] = field(default_factory=list)  # steps done again
    interval: int | None = None  # steps between checkpoints
    in_flight: int = 0  # of these, steps done while a checkpoint was still on its way into the store
    recovery: list[float] = field(default_factory=list)  # seconds until the phase went on
    identical: bool | None = None  # weights, bit by bit, with those of the reference
    cluster: str = ""
    note: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def judge(self) -> "Line":
        """Add the problems that the figures themselves show."""
        if self.identical is False:
            self.problems.append("weights differ")
        if self.interval is not None and any(wasted > self.interval + self.in_flight + UNSEEN for wasted in self.wasted):
            self.problems.append(f"more than {self.interval} + {self.in_flight} + {UNSEEN} steps wasted")
        if any(wasted < 0 for wasted in self.wasted):
            self.problems.append("went on beyond what was done")
        return self

    def cells(self) -> list[str]:
        """Its words in the table."""
        identical = "" if self.identical is None else "yes" if self.identical else "NO"
        wasted = ", ".join(map(str, self.wasted)) + (f" ({self.in_flight} in flight)" if self.in_flight else "")
        figures = [", ".join(map(str, self.moments)), wasted, "" if self.interval is None else str(self.interval)]
        recovery = ", ".join(f"{seconds:.0f}" for seconds in self.recovery)
        head = [self.scenario, self.phase, "" if self.stage is None else str(self.stage), self.killed, str(self.kills), *figures, recovery]
        more = [f"and {len(self.problems) - SHOWN} more"] if len(self.problems) > SHOWN else []
        verdict = "FAIL: " + "; ".join(self.problems[:SHOWN] + more) if self.problems else "ok:"
        return [*head, identical, self.cluster, f"{verdict} {self.note}".strip(" :")]


COLUMNS = ["scenario", "phase", "ZeRO", "killed", "kills", "at step", "wasted", "interval", "recovery s", "identical", "cluster", "verdict"]


def show(lines: list[Line]) -> None:
    """Print the table."""
    table = Table(title="faults")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line.cells())
    console = Console(markup=False, emoji=False, width=None if Console().is_terminal else 200)
    console.print(table)
    failed = sum(bool(line.problems) for line in lines)
    console.print(f"{len(lines)} lines, {sum(line.kills for line in lines)} kills, {failed} failed")


def write(lines: list[Line], path: Path) -> None:
    """The same as JSON."""
    path.write_text(json.dumps([asdict(line) | {"ok": not line.problems} for line in lines], indent=1))
