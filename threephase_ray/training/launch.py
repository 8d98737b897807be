"""Run a plan on Ray Train workers. The only file that imports Ray."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from threephase_ray.config import Compute, JobError, ResourceError
from threephase_ray.training.worker import Plan, work


class TrainingError(JobError):
    """A worker failed."""


def launch(plan: Plan, compute: Compute, folder: Path) -> None:
    """Run `plan` on `compute.workers` workers in one `fit()`; Ray Train keeps its own records in `folder`.

    Raises:
        ResourceError: the cluster has not what was asked, also after `compute.start_timeout_s`.
        TrainingError: a worker failed; the whole trace is in `folder`/error.txt.
    """
    asked = {"CPU": compute.cpus_per_worker} | ({"GPU": 1.0} if compute.use_gpu else {})
    with cluster(compute):
        wait_for(asked, compute)
        trainer = TorchTrainer(
            _on_worker,
            train_loop_config=asdict(plan),
            torch_config=TorchConfig(backend="nccl" if compute.use_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=compute.workers, use_gpu=compute.use_gpu, resources_per_worker=asked),
            run_config=RunConfig(  # type: ignore[call-arg]  # ray.train shows type checkers the classes of Train V1
                name=f"train-{time.time_ns()}",
                storage_path=str(folder / "ray"),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),  # type: ignore[call-arg]
                worker_runtime_env={"env_vars": worker_environment(compute)},
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise _explained(error, folder) from error


def _on_worker(settings: dict[str, Any]) -> None:
    """Entry point of each Ray Train worker."""
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(max(1, int(settings["config"]["compute"]["cpus_per_worker"])))
    work(Plan(**settings), device)


def worker_environment(compute: Compute) -> dict[str, str]:
    """Environment of the workers: no more threads than reserved CPUs, and none that spins while it waits."""
    threads = str(max(1, int(compute.cpus_per_worker)))
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}
    return quiet | {"OMP_NUM_THREADS": threads} | ({} if compute.use_gpu else {"DS_ACCELERATOR": "cpu"})


@contextlib.contextmanager
def cluster(compute: Compute) -> Iterator[None]:
    """The cluster that is there (RAY_ADDRESS, or a Ray job's own), or one on this machine for as long as the work lasts."""
    if ray.is_initialized():
        yield
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def wait_for(asked: dict[str, float], compute: Compute) -> None:
    """Wait until the cluster's nodes could hold all workers at once, for an autoscaler may be bringing them.

    Raises:
        ResourceError: they could not after `compute.start_timeout_s`.
    """
    deadline = time.monotonic() + compute.start_timeout_s
    while (room := _room(asked)) < compute.workers:
        if "RAY_ADDRESS" not in os.environ or time.monotonic() > deadline:
            has = {name: round(amount, 1) for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU")}
            raise ResourceError(
                f"compute.workers: {compute.workers} workers with {asked} each do not fit; there is room for {room}\n"
                f"  the cluster has {has} on {len(ray.nodes())} node(s)\n"
                "  lower compute.workers or compute.cpus_per_worker, or add nodes"
            )
        time.sleep(1.0)


def _room(asked: dict[str, float]) -> int:
    """How many workers the nodes can hold, each worker whole on one node."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(node.get(name, 0.0) / amount for name, amount in asked.items())) for node in alive)


def _explained(error: Exception, folder: Path) -> JobError:
    """The worker's own message in a few lines; the whole trace goes to a file."""
    trace = folder / "error.txt"
    trace.write_text(str(error))
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "cause", failure) for failure in failures.values()]
    reason = next((str(cause).strip().splitlines()[-1] for cause in causes if str(cause).strip()), type(error).__name__)
    return TrainingError(f"{reason}\n  the whole trace is in {trace}")
