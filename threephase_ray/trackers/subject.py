"""What a tracker shows, and what it must be able to do."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from threephase_ray.trackers.histories import Outcome, Row

Ending = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Subject:
    """A run with the phases that it has now; another chain of phases under the same name is another subject."""

    name: str
    identity: str
    knobs: dict[str, Any]  # the resolved configuration
    phases: dict[str, str]  # their keys, by name

    def identity_of(self, phase: str | None) -> str:
        """What tells a phase of it, or the run itself (None), from everything else on a server."""
        return self.identity if phase is None else f"{self.identity}-{phase}"

    def knobs_of(self, phase: str | None) -> dict[str, Any]:
        """The knobs that describe a phase, or the run itself."""
        return self.knobs if phase is None else {"key": self.phases[phase], phase: self.knobs[phase]}


class Tracker(Protocol):
    """One place where runs are shown. Whatever it is told again it shows once."""

    place: str  # where people look

    def write(self, phase: str, rows: Sequence[Row]) -> None:
        """Show rows of a phase, in order; after a new start they come from the first one on."""

    def finish(self, outcome: Outcome, reused: frozenset[str]) -> None:
        """Show the final figures; `reused`: phases that were trained under another run's name."""

    def close(self, ending: Ending) -> None:
        """Bring everything to its place, and say how the run ended."""


def flat(knobs: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every knob by its dotted name, its value as JSON unless it is text."""
    for name, value in knobs.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
