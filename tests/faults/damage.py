"""Checkpoints whose bytes changed: passed over with the reason, never believed, never executed."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.faults import attacks, course
from tests.faults.job import Job
from tests.faults.kills import zero
from tests.faults.report import Line
from tests.faults.trial import Case, Trial

PHASE = "finetune"
SHARDS = ("shards/rank-0.safetensors", "shards/rank-1.safetensors")
OTHERS = ("shards/best.safetensors", "manifest.json", "shards/course.json")
MANY = ("--checkpoint.steps", "1", "--checkpoint.keep", "99")  # a checkpoint for each kind of damage
KILL_AT = 48


def cases() -> list[Case]:
    """Every kind of damage to every file; and pickles."""
    harms = {"shards": partial(every_file, SHARDS), "others": partial(every_file, OTHERS), "pickles": pickles}
    return [Case(f"damage/{name}", 1000, partial(run, harm=harm)) for name, harm in harms.items()]


def run(trial: Trial, harm: Callable[[list[Path], Path], dict[str, str]]) -> Iterator[Line]:
    """Kill the driver in mid-phase, damage the newest checkpoints, each in another way, and type the same command again."""
    job, marker = trial.job(*zero(1), *MANY), trial.folder / "executed"
    trial.seeded(job, ("dae", "contrastive"), *zero(1))
    job.start()
    job.reach(PHASE, KILL_AT)
    kill = job.struck("driver", PHASE)
    job.kill_all()
    whole = checkpoints(job)
    harmed = harm(whole, marker)
    sound = next(path for path in whole if path.name not in harmed)
    job.start()
    job.finish()
    yield judged(trial, job, kill, harmed, sound, marker)


def judged(trial: Trial, job: Job, kill: course.Kill, harmed: dict[str, str], sound: Path, marker: Path) -> Line:
    """Every damaged checkpoint was passed over with a reason, the newest sound one was taken, and the weights are the same."""
    (line,) = attacks.lines(trial, job, 1, trial.compare(job, *zero(1), phases=[PHASE]))
    line.interval, line.problems, line.killed = None, [], f"driver; then {len(harmed)} checkpoints damaged"
    events = job.events()[kill.position :]
    passed = {Path(event["checkpoint"]).name: event["reason"] for event in events if event["event"] == "passed_over"}
    line.problems += [f"{what}: passed over without a word" for name, what in harmed.items() if not passed.get(name)]
    step = int(sound.name.split("-")[0])
    if (taken := course.resumed(events, PHASE)[0]) != step:
        line.problems.append(f"went on from step {taken} instead of {step}")
    if marker.exists():
        line.problems.append("a pickle was executed")
    reasons = sorted({reason.split(":", 1)[-1].strip() for reason in passed.values()})
    line.note = f"reasons: {'; '.join(reasons)}"[:300]
    return line.judge()


def checkpoints(job: Job) -> list[Path]:
    """The whole ones, the newest first."""
    found = Path(job.store).glob(f"progress/{PHASE}-*/*/manifest.json")
    return sorted((path.parent for path in found), key=lambda path: path.name, reverse=True)


def every_file(files: tuple[str, ...], whole: list[Path], marker: Path) -> dict[str, str]:
    """Truncate, flip a bit of, and remove each file, in one checkpoint after another; what was done, by checkpoint."""
    kinds = [(file, kind) for file in files for kind in (truncate, flip, Path.unlink)]
    harmed = {}
    for checkpoint, (file, kind) in zip(whole, kinds, strict=False):
        kind(checkpoint / file)
        harmed[checkpoint.name] = f"{file} {kind.__name__}"
    if len(harmed) < len(kinds) or len(whole) == len(harmed):
        raise AssertionError(f"only {len(whole)} checkpoints for {len(kinds)} kinds of damage")
    return harmed


def truncate(path: Path) -> None:
    """Leave half of it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pickles(whole: list[Path], marker: Path) -> dict[str, str]:
    """Put a pickle in place of each shard: a bare one and one that torch wrote; as it is, and with a manifest that fits."""
    trap = Trap(str(marker))
    zipped = io.BytesIO()
    torch.save(trap, zipped)
    kinds = [(rank, content, fits) for rank in (0, 1) for content in (pickle.dumps(trap), zipped.getvalue()) for fits in (False, True)]
    for checkpoint, (rank, content, fits) in zip(whole, kinds, strict=False):
        name = f"rank-{rank}.safetensors"
        (checkpoint / "shards" / name).write_bytes(content)
        if fits:
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    return {path.name: f"pickle as rank {rank}" for path, (rank, _, _) in zip(whole, kinds, strict=False)}


class Trap:
    """Whoever unpickles it makes the marker file."""

    def __init__(self, marker: str) -> None:
        """`marker`: path of the file."""
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        """What unpickling calls."""
        return open, (self.marker, "w")
