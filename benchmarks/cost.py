"""What a step would take on 8, 64 and 512 GPUs: a model of computation and communication, and how near it comes to two workers here.

    python benchmarks/cost.py --gpu RESULTS/gpu-h200.json --engine RESULTS/engine.json --out RESULTS/cost.json

Computation: floating-point operations of real tokens over the rate that one H200 reached (benchmarks/gpu.py). Communication: a ring moves
each byte of its share once, so with n GPUs and P parameters in float32 a step moves 2 x 4P (n - 1) / n bytes to and from each GPU at ZeRO
stages 0 to 2 (gradients summed; or reduced, and weights gathered) and 3 x 4P (n - 1) / n at stage 3 (weights gathered twice), in rings of
n - 1 hops each way (Rajbhandari et al. 2020, arXiv 1910.02054, section 7). Links are the makers' figures: 450 GB/s to and from each H200 by
NVLink inside a node of eight, 50 GB/s by one 400 Gb/s InfiniBand port for each GPU between nodes, of which a ring reaches about 80 %.
Without overlap of the two a step takes their sum, with full overlap the longer one: the truth lies between.

The check: gloo's all-reduce of the same gradients between two processes of this machine is timed by itself, added to one worker's step, and
compared with the step of two workers that benchmarks/engine.py measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import measuring
import torch
import torch.distributed as dist
from gpu import TIMED

from threephase_ray import pretrained
from threephase_ray.config import Encoder

PARAMETERS = 125e6  # of RoBERTa-base
NVLINK, INFINIBAND, REACHED = 450e9, 50e9, 0.8  # bytes a second, and the share of it that is reached
HOP = {"nvlink": 3e-6, "infiniband": 6e-6}  # seconds
NODE, ROUNDS = 8, 10  # GPUs of a node; all-reduces


def communication(gpus: int, stage: int) -> float:
    """Seconds that a step's communication takes by itself."""
    volume = (3 if stage == 3 else 2) * 4 * PARAMETERS * (gpus - 1) / gpus
    link, hop = (NVLINK, HOP["nvlink"]) if gpus <= NODE else (INFINIBAND, HOP["infiniband"])
    return volume / (REACHED * link) + (3 if stage == 3 else 2) * (gpus - 1) * hop


def predicted(step: float, gpus: int, stage: int) -> dict[str, Any]:
    """Of a step that computes for so many seconds: what it communicates, and the efficiency between its two bounds."""
    moves = communication(gpus, stage)
    return {
        "gpus": gpus,
        "stage": stage,
        "communicates_s": moves,
        "efficiency_without_overlap": step / (step + moves),
        "efficiency_with_full_overlap": step / max(step, moves),
    }


def steps(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of a step of each phase on one GPU, over the largest batch of the longest texts that were measured."""
    run = max(runs, key=lambda each: (int(each["max_length"]), int(each["batch"])))
    return {line["phase"]: statistics.median(line["seconds"]) / TIMED for line in run["lines"] if line["way"] == "ours"}


def all_reduce(numbers: int) -> float:
    """Seconds on the clock in which gloo adds up so many numbers of two processes here."""
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000), "WORLD_SIZE": "2"}
    command = [sys.executable, __file__, "--numbers", str(numbers)]
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    pair = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    return max(float(process.communicate()[0]) for process in pair)


def reduce_here(numbers: int) -> None:
    """One of the two."""
    dist.init_process_group("gloo")
    tensor, taken = torch.ones(numbers), []
    for _ in range(ROUNDS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        taken.append(time.perf_counter() - began)
    print(statistics.median(taken))
    dist.destroy_process_group()


def check(engine: dict[str, Any]) -> dict[str, float]:
    """Seconds of a step of two workers, as the model has it and as it was measured."""
    batch = int(engine["asked"]["batch"])
    one, two = (statistics.median(each[f"ours {n}"]["clock"] for each in engine["seconds_per_text"]) * n * batch for n in (1, 2))
    encoder = pretrained.pretrained(Encoder(path="demo:all-minilm-l6-v2")).encoder
    moves = all_reduce(sum(parameter.numel() for parameter in encoder.parameters()))
    return {"one_worker_s": one, "all_reduce_s": moves, "two_workers_predicted_s": one + moves, "two_workers_measured_s": two}


def main() -> None:
    """Compute, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=Path, help="what gpu.py wrote")
    parser.add_argument("--engine", type=Path, help="what engine.py wrote")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--numbers", type=int, help="be one of two processes that add up so many numbers")
    asked = parser.parse_args()
    if asked.numbers:
        return reduce_here(asked.numbers)
    lines = []
    for phase, step in steps(json.loads(asked.gpu.read_text())).items():
        lines += [{"phase": phase, "computes_s": step} | predicted(step, gpus, stage) for gpus in (8, 64, 512) for stage in (0, 3)]
    for line in lines:
        span = f"{line['efficiency_without_overlap']:.0%} to {line['efficiency_with_full_overlap']:.0%}"
        print(f"{line['phase']:12} {line['gpus']:4} GPUs, stage {line['stage']}: {span}")
    compared = check(json.loads(asked.engine.read_text()))
    print(compared)
    asked.out.write_text(json.dumps(measuring.hardware("torch") | {"check": compared, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
