"""One worker group: a single `fit()` of Ray Train, and what its failure means."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch
from ray.exceptions import OutOfMemoryError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from threephase_ray.errors import JobError, ResourceError
from threephase_ray.machine import Compute
from threephase_ray.results import Store
from threephase_ray.training.cluster import asked
from threephase_ray.training.whereabouts import Leaving

_SHOWN = 160  # characters of an error that is not our own
_ELASTIC_SECONDS = 20.0
_RESIZE_SECONDS = 10.0  # between two looks for more room, where the number of workers may change
# Each step needs the same large tensors anew: what glibc gives back to the system comes again as pages to be cleared one by one.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26), "MALLOC_ARENA_MAX": "1"}
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)  # the same steps will not fit the next time


class TrainingError(JobError):
    """A worker failed."""


def set_up(compute: Compute) -> None:
    """Tell Ray Train, through this process's environment, what it knows no other way to be told."""
    os.environ |= {
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(compute.hang_timeout_s),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(_patience(compute)),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more at each start, for retries that are ours
    }


def _patience(compute: Compute) -> float:
    """Seconds to wait for a group's room. A lost node still counts for a while: an elastic group asks again soon, for fewer workers."""
    return compute.start_timeout_s if compute.least == compute.most else min(compute.start_timeout_s, _ELASTIC_SECONDS)


def fit(entry: Callable[[dict[str, Any]], None], settings: dict[str, Any], compute: Compute, folder: str) -> BaseException | None:
    """Run `entry(settings)` on each worker of a new group, until all return; what was raised. `folder`: for Ray's own records."""
    trainer = TorchTrainer(
        entry,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if compute.use_gpu else "gloo", timeout_s=int(compute.hang_timeout_s)),
        scaling_config=_scaling(compute),
        run_config=RunConfig(  # type: ignore[call-arg]  # ray.train shows type checkers the classes of Train V1
            name=f"train-{time.time_ns()}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),  # type: ignore[call-arg]
            worker_runtime_env={"env_vars": worker_environment(compute)},
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        return error
    return None


def _scaling(compute: Compute) -> ScalingConfig:
    """How many workers, and what each needs."""
    elastic = {"elastic_resize_monitor_interval_s": _RESIZE_SECONDS} if compute.least < compute.most else {}
    count = (compute.least, compute.most) if elastic else compute.most
    return ScalingConfig(num_workers=count, use_gpu=compute.use_gpu, resources_per_worker=asked(compute), **elastic)  # type: ignore[arg-type]


def worker_environment(compute: Compute) -> dict[str, str]:
    """Environment of the workers: no more threads than reserved CPUs, none that spins while it waits, and memory that stays."""
    threads = str(max(1, int(compute.cpus_per_worker)))
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}
    return quiet | KEEP_MEMORY | {"OMP_NUM_THREADS": threads} | ({} if compute.use_gpu else {"DS_ACCELERATOR": "cpu"})


def explained(error: BaseException, store: Store, run: str) -> tuple[JobError, bool]:
    """What happened, and whether no repetition can mend it; the whole trace goes to the run's `error.txt`."""
    trace = f"{run}/error.txt"
    store.storage.write(trace, str(error).encode())
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "_base_exc", failure) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, JobError):
            return cause, not isinstance(cause, Leaving)
        if isinstance(cause, OUT_OF_MEMORY):
            return TrainingError(f"out of memory: {_last_line(cause)}\n  lower compute.micro_batch or data.max_length"), True
    where = f"\n  the whole trace is in {store.storage.uri}/{trace}"
    if short := next((each for each in (error, *causes) if isinstance(each, OutOfMemoryError)), None):
        said = str(short).partition("\n")[0]
        return ResourceError(f"a node ran short of memory: {said}\n  give it more, or have fewer processes on a node{where}"), False
    if getattr(error, "controller_failure", None) is not None:
        return ResourceError(f"the workers could not be started: {_last_line(error)}{where}"), False
    reason = next((f"{type(cause).__name__}: {_last_line(cause)}" for cause in causes), _last_line(error))
    return TrainingError(f"{reason}{where}"), False


def _last_line(error: BaseException) -> str:
    """What an error says in the end."""
    last = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return last if len(last) <= _SHOWN else last[:_SHOWN] + " ..."
