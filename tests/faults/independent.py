"""The trials of a sweep, each by itself: a store of its own, nothing shared. `python -m tests.faults.independent SWEEP.json OUT.json`."""

import io
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from threephase_ray import command, planning
from threephase_ray.results import Store
from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps import chains
from threephase_ray.sweeps.space import Space
from threephase_ray.training import shift, worker
from threephase_ray.training.plan import Plan

KEPT = ("scores", "validations", "best_step", "steps")  # figures that must not depend on who else was at work


def figures(store: Store, plan: Plan) -> tuple[dict[str, Any], float]:
    """Of a finished phase: what it came to, and what it cost in CPU seconds of its workers."""
    found = shift.known(store, plan)
    return {name: found[name] for name in KEPT}, found["cpu_seconds"]


def train(config: SweepConfig, point: dict[str, Any], store: str) -> dict[str, tuple[dict[str, Any], float]]:
    """One trial's phases, by key."""
    own = Space(config).configuration(point).model_copy(update={"store": store})
    outline = planning.outline(own, planning.prepare(own))
    made = {}
    for item in chains.items(outline, "runs/alone", config.sweep):
        plan, log = Plan(**item.plan), io.BytesIO()
        if plan.phases:
            worker.perform(plan, torch.device("cpu"), partial(record, log), log.getvalue, lambda: False)
            made[item.key] = figures(Store(store, own.scratch), plan)
    return made


def record(log: io.BytesIO, event: dict[str, Any]) -> None:
    """Append an event to a log."""
    log.write(json.dumps({"time": time.time(), **event}).encode() + b"\n")


def main(asked: Path, out: Path) -> None:
    """All trials, one after another, in this process."""
    told = json.loads(asked.read_text())
    torch.set_num_threads(1)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    dist.init_process_group("gloo", init_method=f"file://{out}.meeting", rank=0, world_size=1)
    config = command.read(told["files"], told["flags"], SweepConfig)
    made = [train(config, point, f"{out}.stores/{number}") for number, point in enumerate(told["points"])]
    out.write_text(json.dumps([phase for trial in made for phase in trial.items()]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
