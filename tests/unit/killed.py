"""The events of a run whose workers and whose driver were killed, and what its trackers are told."""

import json

from threephase_ray.results import Store
from threephase_ray.trackers.histories import Histories, Outcome, Row
from threephase_ray.trackers.subject import Subject
from threephase_ray.training.accounting import Event

DAE, TUNE = "aa", "bb"


def begin(key: str, step: int) -> list[Event]:
    return [{"event": "phase", "phase": key, "key": key}, {"event": "resume", "step": step, "steps": 99, "validations": []}]


def steps(numbers: range, shift: float = 0.0) -> list[Event]:
    return [{"event": "step", "step": number, "steps": 99, "loss": 1 / number + shift} for number in numbers]


def validation(step: int, accuracy: float) -> list[Event]:
    return [{"event": "validation", "phase": "x", "step": step, "steps": 99, "accuracy": accuracy}]


def timed(*parts: list[Event]) -> list[Event]:
    """An event each second."""
    return [{"time": 1000.0 + number, **event} for number, event in enumerate(event for part in parts for event in part)]


# Workers die after step 7, whose validation is due and does not come, and go on from step 4; then the driver dies after step 9.
KILLED = timed(
    [{"event": "start"}, {"event": "group", "nodes": ["a"]}],
    begin(DAE, 0), steps(range(1, 5)), [{"event": "checkpoint", "step": 4, "stall": 0.1}], steps(range(5, 8)), [{"event": "retry"}],
    begin(DAE, 4), steps(range(5, 8), 0.5), validation(7, 0.25), [{"event": "checkpoint", "step": 8, "stall": 0.1}], steps(range(8, 10)),
    [{"event": "start"}],
    begin(DAE, 8), steps(range(9, 13), 0.25), validation(12, 0.5), [{"event": "phase_end", "key": DAE, "steps": 12, "accuracy": 0.5}],
    begin(TUNE, 0), validation(0, 0.125), steps(range(1, 4)), [{"event": "skipped", "step": 4}], steps(range(5, 7)), validation(6, 0.75),
    [{"event": "phase_end", "key": TUNE, "steps": 6}, {"event": "probe", "linear_accuracy": 0.5}, {"event": "test", "rows": 3}],
)  # fmt: skip


def whole(events: list[Event]) -> dict[str, list[Row]]:
    return Histories().add(events)


RUN, LOG = "runs/mine", "runs/mine/events.jsonl"
PHASES = {"dae": DAE, "finetune": TUNE, "contrastive": "cc"}
SUBJECT = Subject("mine", "id", {"seed": 0, "dae": {"steps": 3}, "contrastive": {}, "finetune": {}}, PHASES)
FINAL = Outcome(
    {"test/accuracy": 0.75},
    {"dae": {"cost/steps": 12.0}, "finetune": {"cost/steps": 6.0}, "contrastive": {"cost/steps": 4.0, "best/accuracy": 0.5}},
)


def append(store: Store, stop: int) -> None:
    """The first events, as a writer of each kind of store leaves them; the last line is torn."""
    lines = [json.dumps(event).encode() + b"\n" for event in KILLED[:stop]]
    store.storage.write(LOG, b"".join(lines) + b'{"time": 5, "event": "st')
