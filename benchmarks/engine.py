"""What Ray and DeepSpeed cost on top of bare torch, and what a second worker brings: phase 3 on a CPU, one thread for each worker.

    python benchmarks/engine.py --texts FOLDER --out benchmarks/results/engine.json

FOLDER holds train and validation files with columns text and label; the encoder is the demo's, all-MiniLM-L6-v2. Ours is the job
`train.py` itself, with Ray Train, DeepSpeed, events and checks; bare torch is DistributedDataParallel over gloo with the same
model, batches and clipping, in the same environment. Each is run twice, with few steps and with many: the difference, divided by the steps,
leaves out all that comes once. CPU seconds are the workers' own. Efficiency: texts that two workers pass in a CPU second (or a second
on the clock) against twice what one passes, with equally many texts for each worker. What the machine allows of it is told by two
processes of bare torch that train at the same time and know nothing of each other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from threephase_ray import phases, planning, pretrained, sampling
from threephase_ray.command import dump, read
from threephase_ray.config import Config
from threephase_ray.training import loop
from threephase_ray.training.fit import worker_environment

ROOT = Path(__file__).parent.parent
FEW = 10  # steps of the short run


def configured(asked: argparse.Namespace, folder: Path, workers: int, steps: int) -> Config:
    """Phase 3 alone."""
    return Config(
        name=f"run-{workers}-{steps}-{time.time_ns()}",  # nothing is to be reused
        seed=time.time_ns() % 2**31,
        data={"source": str(asked.texts), "max_length": 128, "rows": {"train": 2000, "validation": 64, "test": 64}},
        encoder={"path": "demo:all-minilm-l6-v2"},
        store=str(folder / "store"),
        scratch=str(folder / "scratch"),
        phases=["finetune"],
        probe=False,
        predict="validation",
        finetune={"batch": asked.batch * workers, "steps": steps, "validations": 1, "head_start": "random", "patience": None},
        compute={"workers": workers, "zero_stage": asked.stage},
    )


def ours(asked: argparse.Namespace, folder: Path, workers: int, steps: int) -> dict[str, float]:
    """The job's cost: of its workers, from their figures; on the clock, from the times of its steps."""
    config = configured(asked, folder, workers, steps)
    path = folder / f"{config.name}.yaml"
    path.write_text(dump(config))
    subprocess.run([sys.executable, "jobs/train.py", "--config", str(path)], cwd=ROOT, check=True, capture_output=True)
    run = folder / "store" / "runs" / config.name
    results = json.loads((run / "results.json").read_text())
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    times = [event["time"] for event in events if event["event"] == "step"]
    return {"cpu": results["phases"][-1]["cpu_seconds"], "clock": times[-1] - times[0]}


def bare(asked: argparse.Namespace, folder: Path, workers: int, steps: int) -> dict[str, float]:
    """The same of bare torch, in as many processes."""
    config = configured(asked, folder, workers, steps)
    return cost([start(asked, config, folder, rank) for rank in range(workers)])


def strangers(asked: argparse.Namespace, folder: Path, workers: int, steps: int) -> dict[str, float]:
    """The same of as many processes of bare torch, each of which trains alone."""
    return cost([start(asked, configured(asked, folder, 1, steps), folder, 0) for _ in range(workers)])


def start(asked: argparse.Namespace, config: Config, folder: Path, rank: int) -> subprocess.Popen[str]:
    """A process of bare torch."""
    path = folder / f"{config.name}.yaml"
    path.write_text(dump(config))
    environment = os.environ | worker_environment(config.compute) | {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    environment |= {"MASTER_PORT": str(20_000 + config.seed % 20_000), "WORLD_SIZE": str(config.compute.most), "RANK": str(rank)}
    command = [sys.executable, __file__, "--texts", str(asked.texts), "--bare", str(path)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def cost(processes: list[subprocess.Popen[str]]) -> dict[str, float]:
    """CPU seconds of all of them, and the first one's on the clock."""
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return {"cpu": sum(each["cpu"] for each in told), "clock": told[0]["clock"]}


def train_bare(config: Config) -> None:
    """A worker of bare torch: its CPU seconds, and those on the clock from its first step's end to its last's."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    data_set = planning.prepare(config)
    began = time.process_time()
    phase = phases.build("finetune", config, data_set)
    torch.manual_seed(0)
    model: nn.Module = DistributedDataParallel(phase.model(None).train())
    optimizer = torch.optim.AdamW(phase.groups(model.module), fused=True)
    visits = [each for epoch in range(-(-phase.training.steps // len(phase.steps(0)))) for each in phase.steps(epoch)][
        : phase.training.steps
    ]
    ended = []
    for number, step in enumerate(visits):
        (part,) = sampling.share(step, dist.get_rank(), dist.get_world_size(), config.compute.micro_batch)
        batch = phase.collate(phase.train, part, step, 0)
        loss = nn.functional.cross_entropy(model(batch["ids"], batch["mask"]), batch["target"])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), phase.training.clip)
        for group in optimizer.param_groups:
            group["lr"] = phase.training.learning_rate * loop.factor(number, len(visits), phase.training.warmup_share)
        optimizer.step()
        optimizer.zero_grad()
        ended.append(time.time())
    print(json.dumps({"cpu": time.process_time() - began, "clock": ended[-1] - ended[0]}))
    dist.destroy_process_group()


def per_text(way: Any, asked: argparse.Namespace, folder: Path, workers: int) -> dict[str, float]:
    """Seconds for each text, over all workers."""
    many = FEW + asked.steps
    short, long = way(asked, folder, workers, FEW), way(asked, folder, workers, many)
    return {name: (long[name] - short[name]) / asked.steps / asked.batch / workers for name in short}


def main() -> None:
    """Run all in turn, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder with train and validation files")
    parser.add_argument("--batch", type=int, default=32, help="texts of a step for each worker")
    parser.add_argument("--steps", type=int, default=40, help="by which the long run is longer")
    parser.add_argument("--stage", default="0", help="DeepSpeed's ZeRO stage, or auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--bare", type=Path, help="be a worker of bare torch, with this configuration")
    asked = parser.parse_args()
    pretrained.quiet()
    if asked.bare:
        return train_bare(read([str(asked.bare)]))
    rounds = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            pairs = [(ours, 1), (bare, 1), (ours, 2), (bare, 2), (strangers, 2)]
            rounds.append({f"{way.__name__} {workers}": per_text(way, asked, Path(temporary), workers) for way, workers in pairs})
        print(json.dumps(rounds[-1]), flush=True)
    column = lambda name, kind: [each[name][kind] for each in rounds]  # noqa: E731
    found = {f"ours to bare, {n} worker(s), CPU": measuring.ratio(column(f"ours {n}", "cpu"), column(f"bare {n}", "cpu")) for n in (1, 2)}
    for kind, scale in (("cpu", 1.0), ("clock", 0.5)):  # two workers share the clock
        found |= {
            f"efficiency of {way}, {kind}": measuring.ratio([scale * each for each in column(f"{one} 1", kind)], column(f"{way} 2", kind))
            for one, way in (("ours", "ours"), ("bare", "bare"), ("bare", "strangers"))
        }
    for name, each in found.items():
        print(f"{name:34} {each['median']:.3f}")
    facts = measuring.hardware("torch", "ray", "deepspeed", "transformers")
    asked_for = {name: str(value) for name, value in vars(asked).items() if value is not None and name != "out"}
    asked.out.write_text(json.dumps(facts | {"asked": asked_for, "found": found, "seconds_per_text": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
