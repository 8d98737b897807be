"""Run a plan on Ray Train workers, again after every failure that can pass. The only file that imports Ray."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import FrameType
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from threephase_ray.errors import JobError, ResourceError
from threephase_ray.machine import Compute
from threephase_ray.results import Store
from threephase_ray.training import stop
from threephase_ray.training.plan import Plan
from threephase_ray.training.worker import work

Report = Callable[[dict[str, Any]], None]
_LONGEST_PAUSE = 60.0  # seconds between two attempts at most; the first pause is a second, the next twice as long
_SHOWN = 160  # characters of an error that is not our own
_RESIZE_SECONDS = 10.0  # between two looks for more room, where the number of workers may change


class TrainingError(JobError):
    """A worker failed."""


class Stopped(JobError):
    """The job was told to stop, and has saved where it is."""

    def __init__(self, message: str, signum: int) -> None:
        """The exit code is that of a process which the signal ends."""
        super().__init__(message)
        self.code = 128 + signum


def launch(plan: Plan, compute: Compute, store: Store, progress: Callable[[], str], report: Report) -> None:
    """Run `plan` on workers, one `fit()` for each attempt. After a failure they start again, from the last checkpoint.

    `progress` says in words how far the store is: failures in a row that leave it there are counted. `report` receives the retries.

    Raises:
        ResourceError: the cluster has not what was asked, also after `compute.start_timeout_s`.
        TrainingError: workers failed more than `compute.max_failures` times in a row.
        Stopped: SIGTERM or SIGINT arrived, and everything is saved.
        JobError: what a worker said that no repetition can mend.
    """
    os.environ |= {
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(compute.hang_timeout_s),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(compute.start_timeout_s),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more at each start, for retries that are ours
    }
    stop.forget(store, plan.run)
    with cluster(), _signals(lambda: stop.ask(store, plan.run)) as signals:
        failures, reached = 0, progress()
        while True:
            wait_for(compute)
            error = _attempt(plan, compute, store)
            if signals:
                raise Stopped(f"stopped as asked: {progress()}\n  run the same command again to go on from there", signals[0])
            if error is None:
                return
            before, reached = reached, progress()
            failures = 1 if reached != before else failures + 1
            reason, lasting = _explained(error, plan, store)
            if lasting or failures > compute.max_failures:
                raise reason from error
            pause = min(_LONGEST_PAUSE, 2.0 ** (failures - 1))
            report({"event": "retry", "reason": str(reason).splitlines()[0], "failures": failures, "pause": pause})
            time.sleep(pause)


def _attempt(plan: Plan, compute: Compute, store: Store) -> BaseException | None:
    """One `fit()`, in a side thread, so that signals reach this one at once; what it raised."""
    trainer = TorchTrainer(
        _on_worker,
        train_loop_config=asdict(plan),
        torch_config=TorchConfig(backend="nccl" if compute.use_gpu else "gloo", timeout_s=int(compute.hang_timeout_s)),
        scaling_config=_scaling(compute),
        run_config=RunConfig(  # type: ignore[call-arg]  # ray.train shows type checkers the classes of Train V1
            name=f"train-{time.time_ns()}",
            storage_path=str(store.place(f"{plan.run}/ray")),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),  # type: ignore[call-arg]
            worker_runtime_env={"env_vars": worker_environment(compute)},
        ),
    )
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(trainer.fit).exception()


def _scaling(compute: Compute) -> ScalingConfig:
    """How many workers, and what each needs."""
    elastic = {"elastic_resize_monitor_interval_s": _RESIZE_SECONDS} if compute.least < compute.most else {}
    count = (compute.least, compute.most) if elastic else compute.most
    return ScalingConfig(num_workers=count, use_gpu=compute.use_gpu, resources_per_worker=asked(compute), **elastic)  # type: ignore[arg-type]


def asked(compute: Compute) -> dict[str, float]:
    """What Ray reserves for each worker."""
    return {"CPU": compute.cpus_per_worker} | ({"GPU": 1.0} if compute.use_gpu else {})


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
def cluster() -> Iterator[None]:
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


@contextlib.contextmanager
def _signals(ask: Callable[[], None]) -> Iterator[list[int]]:
    """The first SIGTERM or SIGINT asks the workers to save and stop, and stands in the list; a second one ends this process as ever."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may have handlers
        yield came
        return
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = {signum: signal.getsignal(signum) for signum in wanted}

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    def on_signal(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        restore()
        threading.Thread(target=ask).start()  # a store may take its time, and a handler must not

    for signum in wanted:
        signal.signal(signum, on_signal)
    try:
        yield came
    finally:
        restore()


def wait_for(compute: Compute) -> None:
    """Wait until the cluster's nodes could hold all workers at once, for an autoscaler may be bringing them.

    Raises:
        ResourceError: they could not after `compute.start_timeout_s`.
    """
    deadline = time.monotonic() + compute.start_timeout_s
    while (room := _room(asked(compute))) < compute.least:
        if "RAY_ADDRESS" not in os.environ or time.monotonic() > deadline:
            has = {name: round(amount, 1) for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU")}
            raise ResourceError(
                f"compute.workers: {compute.least} workers with {asked(compute)} each do not fit; there is room for {room}\n"
                f"  the cluster has {has} on {len(ray.nodes())} node(s)\n"
                "  lower compute.workers or compute.cpus_per_worker, or add nodes"
            )
        time.sleep(1.0)


def _room(needs: dict[str, float]) -> int:
    """How many workers the nodes can hold, each worker whole on one node."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(node.get(name, 0.0) / amount for name, amount in needs.items())) for node in alive)


def _explained(error: BaseException, plan: Plan, store: Store) -> tuple[JobError, bool]:
    """A worker's own message where it has one, which no repetition mends, else what happened; the whole trace goes to a file."""
    trace = f"{plan.run}/error.txt"
    store.storage.write(trace, str(error).encode())
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "_base_exc", failure) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, JobError):
            return cause, True
    where = f"\n  the whole trace is in {store.storage.uri}/{trace}"
    if getattr(error, "controller_failure", None) is not None:
        return ResourceError(f"the workers could not be started: {_last_line(error)}{where}"), False
    reason = next((f"{type(cause).__name__}: {_last_line(cause)}" for cause in causes), _last_line(error))
    return TrainingError(f"{reason}{where}"), False


def _last_line(error: BaseException) -> str:
    """What an error says in the end."""
    last = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return last if len(last) <= _SHOWN else last[:_SHOWN] + " ..."
