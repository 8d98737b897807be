"""The whole demo against the same recipe written with sentence-transformers and Hugging Face's Trainer, start-up included.

    python benchmarks/demo.py --out benchmarks/results/demo.json

Ours is `train.py` with the demo's configuration: Ray, DeepSpeed, three phases, checks, probes, test, exported models; without the baseline.
The peer is `stock_recipe.py`: the same texts, batches and numbers of steps, precision and threads; no probes, no duplicate checks. CPU
seconds are those of all processes that a command starts, looked at several times a second.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measuring
import numpy as np

from threephase_ray import planning
from threephase_ray.command import read
from threephase_ray.phases import build
from threephase_ray.training import loop

ROOT = Path(__file__).parent.parent
DEMO = str(ROOT / "jobs" / "configs" / "demo.yaml")


def recipe(folder: Path) -> Path:
    """What the demo's phases do, for the peer: texts as they were split, steps and batches."""
    config = read([DEMO], ["--store", str(folder / "plan"), "--scratch", str(folder / "scratch")])
    plan = planning.outline(config, planning.prepare(config))
    data_set, config = plan.data, plan.config
    facts: dict[str, object] = {"length": config.data.max_length, "labels": data_set.label_names}
    for name in ("train", "validation", "test"):
        split = data_set.split(name)
        rows = split.padded(np.arange(len(split))).tokens
        facts[name] = [data_set.tokenizer.batch_decode(rows, skip_special_tokens=True), split.labels[:, -1].tolist()]
    for name in config.phases:
        phase = build(name, config, data_set)
        steps = loop.step_count(phase.training, len(phase.steps(0)))
        facts[name] = {"batch": phase.training.batch, "steps": steps, "rate": phase.training.learning_rate}
    path = folder / "recipe.json"
    path.write_text(json.dumps(facts))
    return path


def main() -> None:
    """Run both in turn, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    asked = parser.parse_args()
    spent: dict[str, list[float]] = {"ours": [], "stock": []}
    with tempfile.TemporaryDirectory() as temporary:
        facts = recipe(Path(temporary))
        for number in range(asked.rounds):
            store = ["--store", f"{temporary}/store-{number}", "--scratch", f"{temporary}/scratch-{number}"]
            ours = [
                sys.executable,
                "jobs/train.py",
                "--config",
                DEMO,
                *store,
                "--baseline",
                "null",
                "--compute.workers",
                str(asked.workers),
            ]
            stock = [sys.executable, "benchmarks/stock_recipe.py", str(facts), f"{temporary}/stock-{number}"]
            for name, command in (("ours", ours), ("stock", stock)):
                spent[name].append(measuring.tree_cpu_seconds(command, os.environ | {"OMP_NUM_THREADS": "1"}, ROOT))
            print({name: round(each[-1], 1) for name, each in spent.items()}, flush=True)
    ratio = measuring.ratio(spent["stock"], spent["ours"])
    print(f"the stock recipe takes {ratio['median']:.2f} times our CPU time ({statistics.median(spent['ours']):.0f} s)")
    hardware = measuring.hardware("torch", "ray", "deepspeed", "transformers", "sentence-transformers", "accelerate")
    asked.out.write_text(json.dumps(hardware | {"workers": asked.workers, "ratio": ratio, "cpu_seconds": spent}, indent=1) + "\n")


if __name__ == "__main__":
    main()
