"""Where whole jobs run: this machine, or a running cluster with token authentication."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.processes import Limit, free_port
from tests.unit import tiny, tiny_models

START = 500.0  # seconds for a cluster to start
KNOBS = """
name: tiny
data: {{source: {source}}}
encoder: {{path: {encoder}}}
dae: {{steps: 3}}
contrastive: {{steps: 3, batch: 12}}
finetune: {{steps: 6, learning_rate: 1e-3, validations: 2}}
baseline: {{learning_rate: 1e-3, validations: 2}}
compute: {{workers: 2}}
"""


@dataclass(frozen=True)
class Place:
    """Where jobs run: the project, their environment, a configuration, the store."""

    root: Path
    environment: dict[str, str]
    config: Path
    store: Path
    metrics_port: int = 0  # of the cluster's node

    def train(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.job("train", "--store", str(self.store), *flags)

    def submit(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.job("submit", "--store", str(self.store), *flags)

    def job(self, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, f"jobs/{name}.py", "--config", str(self.config), *flags]
        return subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)

    @property
    def run(self) -> Path:
        return self.store / "runs" / "tiny"

    def results(self) -> dict:
        return json.loads((self.run / "results.json").read_text())


def listens(port: int) -> bool:
    """Whether somebody does, on this machine."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def make(folder: Path) -> Place:
    """A tiny checkpoint and data set, and no cluster."""
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    for seed, (split, count) in enumerate({"train": 40, "validation": 12, "test": 12}.items()):
        tiny.write_csv(folder / "source" / f"{split}.csv", tiny_models.texts(count, seed=seed))
    config = folder / "tiny.yaml"
    config.write_text(KNOBS.format(source=folder / "source", encoder=encoder.path))
    here = Path(sys.executable).parent  # as an activated environment has it
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    # On a busy machine half a minute is not enough, and workers would wait for whatever else it does.
    environment |= {"RAY_raylet_start_wait_time_s": "120", "RAY_worker_niceness": "0"}
    environment.pop("RAY_ADDRESS", None)
    return Place(ROOT, environment, config, folder / "store")


@contextlib.contextmanager
def cluster(place: Place, name: str = "ray") -> Iterator[Place]:
    """The same on a running cluster of two CPUs with token authentication, on ports of its own; `name`: of its folder."""
    temporary = Path(f"/tmp/{name}-{os.getpid()}")  # noqa: S108  # sockets need a short path
    port, dashboard, metrics = free_port(), free_port(), free_port()
    # A tiny run is over before the usual ten seconds are, and its last figures with it.
    environment = {"RAY_metrics_report_interval_ms": "100"} | place.environment
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    ports = {"port": port, "dashboard-port": dashboard, "metrics-export-port": metrics}
    ports |= {f"{name}-port": free_port() for name in ("ray-client-server", "dashboard-agent-listen", "dashboard-agent-grpc")}
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    command += [f"--temp-dir={temporary}", *(f"--{name}={number}" for name, number in ports.items())]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        Limit(START).until(lambda: listens(dashboard) or head.poll() is not None, "the dashboard", 0.2)
        assert head.poll() is None, f"ray start ended, see {temporary}"
        yield Place(place.root, environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}, place.config, place.store, metrics)
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # its group is its own; a friendlier end would drain for 30 seconds
        head.wait()
        shutil.rmtree(temporary, ignore_errors=True)
