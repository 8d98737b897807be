"""A Ray cluster on this machine whose nodes each have one fault, planted where such faults come from, and what is said of each."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT
from tests.faults import processes
from tests.faults.processes import Limit, free_port

RAY = str(Path(sys.executable).parent / "ray")
UNSHARE = shutil.which("unshare") or "unshare"
COUNT, ATTEMPTS = itertools.count(), 5
UP = b"Ray runtime started"  # what `ray start` says in the end
START, SECONDS = 400.0, 60  # seconds for a node to start; by which a clock is off
QUIET = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": f"{START:.0f}",
    "RAY_worker_niceness": "0",
    "RAY_health_check_failure_threshold": "1000",  # a node that hangs is found by its silence, before Ray counts it as lost
    "RAY_LD_PRELOAD_ON_WORKERS": "1",  # Ray takes the variable from its workers otherwise
    "HF_HUB_OFFLINE": "1",
}
# `time` and Python ask the system's clock through this function alone.
CLOCK = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *now) {{
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(which, now);
  if (code == 0 && which == CLOCK_REALTIME) now->tv_sec += {SECONDS};
  return code;
}}
"""


@dataclass(frozen=True)
class Fault:
    """How a node differs from a sound one, and the words that the job must say of it."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    job: tuple[str, ...] = ()  # flags of the job
    hangs: bool = False


def faults(folder: Path) -> dict[str, Fault]:
    """All of them that this machine allows."""
    other = folder / "other"
    known = other / "transformers-9.9.9.dist-info" / "METADATA"
    known.parent.mkdir(parents=True)
    known.write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 9.9.9\n")
    found = {
        "other version": Fault(
            ("versions: transformers 9.9.9 instead of", "install what the driver's node has"), {"PYTHONPATH": f"{other}:{ROOT}"}
        ),
        "no GPU": Fault(
            ("GPU: Ray counts 1 there, and torch sees 0", "set compute.use_gpu: false"),
            flags=("--num-gpus=1",),
            job=("--compute.use_gpu", "true"),
        ),
        "too few CPUs": Fault(("5 workers", "lower compute.workers"), job=("--compute.workers", "5", "--compute.start_timeout_s", "3")),
        "no answer": Fault(("no answer within 15 s", "repair the node"), job=("--compute.start_timeout_s", "15"), hangs=True),
    }
    if mounts_are_allowed():
        store, shared = str(folder / "store"), ("store: ", "give a folder that all nodes share")
        found["store not shared"] = Fault(shared, prefix=mounting(store, 'mount -t tmpfs none "$0"'))
        found["disk too full"] = Fault(("disk: ", "free space"), prefix=mounting(store, 'mount -t tmpfs -o size=8m none "$0"'))
        barred = mounting(store, 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"')
        found["store not writable"] = Fault((f"store: no permission for {store}/", "allow it"), prefix=barred)
    if preload := clock(folder):
        found["clock"] = Fault((f"clock: {SECONDS} s ahead of", "NTP"), {"LD_PRELOAD": preload})
    return found


def mounting(folder: str, mount: str) -> tuple[str, ...]:
    """What starts a node for which something else is mounted at a folder, "$0" of the command."""
    return (UNSHARE, "--mount", "sh", "-c", f'{mount} && exec "$@"', folder)


def mounts_are_allowed() -> bool:
    """Whether this process may mount in a namespace of its own: asked by doing it."""
    if not Path(UNSHARE).is_file():
        return False
    tried = subprocess.run([UNSHARE, "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


def clock(folder: Path) -> str:
    """A library that moves the clock of whoever loads it; empty without a compiler."""
    if (compiler := shutil.which("cc")) is None:
        return ""
    (folder / "clock.c").write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c", "-ldl"], check=True)
    return str(folder / "clock.so")


class Misfits:
    """A head without CPUs, where the driver runs, and a node of one CPU for each fault, with an address of its own."""

    def __init__(self, folder: Path, config: Path, wanted: Mapping[str, Fault]) -> None:
        """`folder`: a short path, for sockets lie below it."""
        self._folder, self._config, self._port, self._number = folder, config, free_port(), next(COUNT)
        self._mark = f"misfits-{os.getpid()}-{self._number}"
        self._faults = wanted
        self.addresses = {name: f"127.0.0.{number}" for number, name in enumerate(wanted, start=2)}
        self._environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | QUIET
        self._store = folder / "store"
        self._store.mkdir(exist_ok=True)

    def start(self) -> None:
        """Start the head, then the nodes, a few at once."""
        flags = ["--head", f"--port={self._port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false"]
        self._start("head", "127.0.0.1", ["--num-cpus=0", *flags], Fault(()))
        with ThreadPoolExecutor(2) as pool:  # more at once would only wait for each other
            joined = [f"--address=127.0.0.1:{self._port}", "--num-cpus=1"]
            for each in [
                pool.submit(self._start, f"n{i}", self.addresses[name], [*joined, *fault.flags], fault)
                for i, (name, fault) in enumerate(self._faults.items())
            ]:
                each.result()
        for name, fault in self._faults.items():
            if fault.hangs:
                self._hang(self.addresses[name])

    def _start(self, name: str, address: str, flags: Sequence[str], fault: Fault) -> None:
        """`ray start`, until it says that it runs."""
        place, limit = self._folder / f"{self._number}{name}", Limit(START)
        log = place.with_suffix(".log")
        ports = [f"--{each}-port={free_port()}" for each in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export")]
        command = [*fault.prefix, RAY, "start", "--block", f"--node-ip-address={address}", f"--temp-dir={place}"]
        command += ["--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0", *ports, *flags]
        for _ in range(ATTEMPTS):  # on a busy machine Ray gives up
            ray = processes.start(command, self._environment | fault.environment, self._mark, str(log))
            limit.until(lambda ray=ray: UP in log.read_bytes() or ray.poll() is not None, f"{name}, see {log}", 0.1)
            if UP in log.read_bytes():
                return
        raise AssertionError(log.read_text())

    def _hang(self, address: str) -> None:
        """Stop a node's raylet, as a machine that swaps or a broken disk would."""
        for process in processes.marked(self._mark):
            if process.name() == "raylet" and f"--node_ip_address={address}" in process.cmdline():
                process.send_signal(signal.SIGSTOP)

    def train(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """The job."""
        command = [sys.executable, "jobs/train.py", "--config", str(self._config), "--store", str(self._store)]
        command += ["--compute.workers", "1", *flags]
        environment = self._environment | {"RAY_ADDRESS": f"127.0.0.1:{self._port}"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def trained(self) -> list[Path]:
        """The phases in the store."""
        return list(self._store.glob("phases/*"))

    def end(self) -> None:
        """End all nodes."""
        processes.end(self._mark, Limit(START))
