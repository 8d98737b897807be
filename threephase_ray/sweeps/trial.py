"""A trial of a sweep: a point of the space, and what became of it."""

from dataclasses import dataclass, field
from typing import Any, Literal

Point = dict[str, Any]  # dotted knob -> value, of the axes that count at this point; "configs": a file
Status = Literal["waiting", "running", "paused", "done", "stopped", "failed"]
ENDED = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Mark:
    """A figure of a trial on the validation split, larger is better; `progress`: 100 for each phase that is done."""

    progress: int
    phase: str
    score: float


@dataclass
class Trial:
    """What a sweep knows of a trial."""

    number: int
    point: Point
    keys: dict[str, str] = field(default_factory=dict)  # phase -> key
    status: Status = "waiting"
    marks: list[Mark] = field(default_factory=list)
    score: float | None = None  # the sweep's metric at the end; None unless done
    probe: float | None = None  # of the embeddings after the last phase but one
    scores: dict[str, float] = field(default_factory=dict)  # the last phase's figures on validation
    reused: list[str] = field(default_factory=list)  # phases that were there, made by another trial or run
    cost: float = 0.0  # worker seconds spent for this trial
    alone: float = 0.0  # worker seconds of all its phases, whoever made them
    reason: str = ""  # why it was stopped, or failed
