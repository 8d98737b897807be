"""Train tiny phases under many ways of computing them, in forked gloo ranks without Ray; the losses go to a JSON file.

    python tests/integration/replay.py WORK_FOLDER

WORK_FOLDER holds `case.json`: config, data folder, variants (name, phase, overrides) and ways (workers, engine, stage, micro).
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import deepspeed.ops
import torch
import torch.distributed as dist

from threephase_ray.command import merge
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.results import Store
from threephase_ray.training import worker
from threephase_ray.training.plan import Desk, PhaseJob, Plan


def play(folder: Path, rank: int, workers: int) -> None:
    """All ways with this number of workers, as one rank of them."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers))
    case = json.loads((folder / "case.json").read_text())
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{workers}", rank=rank, world_size=workers)
    data = DataSet(Path(case["data"]))
    for way in case["ways"]:
        if way["workers"] == workers:
            for variant in case["variants"]:
                if "ways" not in variant or name(way) in variant["ways"]:
                    train(folder, case, data, variant, way)
    dist.destroy_process_group()


def train(folder: Path, case: dict[str, Any], data: DataSet, variant: dict[str, Any], way: dict[str, Any]) -> None:
    """One variant of a phase in one way; its result stays in the folder's store."""
    compute = {"compute": {"workers": way["workers"], "micro_batch": way["micro"], "precision": "fp32"}}
    config = Config(**merge(merge(case["config"], variant["knobs"]), compute))
    plan = Plan(config.model_dump(mode="json"), "unused", "runs/golden", way["stage"], way["engine"], [], [])
    store = Store(str(folder / "store"), str(folder / "scratch"))
    desk = Desk(plan, config, store, data, torch.device("cpu"), lambda: False, lambda event: None, lambda: b"")
    worker.train_phase(PhaseJob(variant["phase"], "0" * 16, f"phases/{variant['name']}-{name(way)}", None), desk)


def name(way: dict[str, Any]) -> str:
    """A way of computing in one word."""
    return f"{way['engine']}{way['stage']}-{way['workers']}x{way['micro']}"


def in_child(folder: Path, rank: int, workers: int) -> int:
    """The exit code of a rank; a forked child must not run on into its parent's code."""
    try:
        play(folder, rank, workers)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(folder: Path) -> int:
    """Fork the ranks of each number of workers; the exit code says whether all of them ended well."""
    deepspeed.ops.__compatible_ops__ = {}
    codes = []
    for workers in sorted({way["workers"] for way in json.loads((folder / "case.json").read_text())["ways"]}):
        children = []
        for rank in range(workers):
            child = os.fork()
            if child == 0:
                os._exit(in_child(folder, rank, workers))
            children.append(child)
        codes += [os.waitpid(child, 0)[1] for child in children]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
