"""A Ray cluster of two nodes or more: real raylets, which can be killed and come back."""

import contextlib
import itertools
import os
import string
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.faults import network, processes
from tests.faults.processes import SLOWLY, Limit, free_port

RAY = str(Path(sys.executable).parent / "ray")
COUNT = itertools.count(1)
# A lost node is noticed after seconds, not after half a minute. The agents of a node take ports that nobody asked for.
QUICK = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "10", "RAY_health_check_initial_delay_ms": "2000"}
START = 240.0
UP = b"Ray runtime started"  # what `ray start` says in the end


class Node:
    """One raylet with everything that it started; a head also has the cluster's own services."""

    def __init__(self, name: str, place: network.Place, folder: Path, environment: dict[str, str], cpus: int) -> None:
        """`name` marks its processes."""
        self.name, self.place, self._folder = name, place, folder
        self.environment = environment | dict(place.environment)
        self.command = [
            *place.prefix,
            RAY,
            "start",
            "--block",
            f"--num-cpus={cpus}",
            "--disable-usage-stats",
            "--object-store-memory=100000000",
        ]
        self.command += [f"--node-ip-address={place.address}", f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0"]
        self.command += [f"--{agent}-port={free_port()}" for agent in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export")]

    def start(self, *flags: str) -> None:
        """Start it, and wait until it runs; Ray itself gives up after half a minute, so on a busy machine it is asked again."""
        log, limit = self._folder.with_suffix(".log"), Limit(START)
        began = log.stat().st_size if log.exists() else 0
        while True:
            ray = processes.start([*self.command, *flags], self.environment, self.name, str(log))
            limit.until(lambda ray=ray: UP in log.read_bytes()[began:] or ray.poll() is not None, f"{self.name}, see {log}", SLOWLY)
            if UP in log.read_bytes()[began:]:
                return
            processes.end(self.name, limit)

    def kill(self) -> None:
        """SIGKILL everything on the node at once."""
        processes.end(self.name, Limit(START))

    def named(self, name: str) -> list[psutil.Process]:
        """Its processes whose name starts so."""
        found = []
        for process in processes.marked(self.name):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith(name):
                    found.append(process)
        return found


class Cluster:
    """Nodes, `a` with the head, `b` and maybe others, and where a driver finds them."""

    def __init__(self, word: str, places: Sequence[network.Place], folder: Path, environment: dict[str, str], cpus: Sequence[int]) -> None:
        """Nothing runs yet. `cpus`: of each node."""
        self.has_dashboard = True
        self.kind = "one address" if places[0] == places[1] else f"{'two' if len(places) == 2 else len(places)} namespaces"
        self.place, self._port, self._dashboard, self._folder = places[0], free_port(), free_port(), folder
        self.nodes = [
            Node(f"{word}-{letter}", place, folder / letter, environment, count)
            for letter, place, count in zip(string.ascii_lowercase, places, cpus, strict=False)
        ]
        self.a, self.b = self.nodes[:2]

    @property
    def address(self) -> str:
        """The head's."""
        return f"{self.place.address}:{self._port}"

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self.place.address}:{self._dashboard}"

    def start(self) -> None:
        """Start all nodes."""
        host, client = f"--dashboard-host={self.place.address}", f"--ray-client-server-port={free_port()}"
        board = f"--include-dashboard={str(self.has_dashboard).lower()}"
        self.a.start("--head", f"--port={self._port}", f"--dashboard-port={self._dashboard}", host, client, board)
        Limit(START).until(self._listens, f"the head at {self.address}", SLOWLY)
        for node in self.nodes[1:]:
            self.join(node)

    def join(self, node: Node) -> None:
        """Start a node that is not the head, or start it again."""
        node.start(f"--address={self.address}")

    def kill(self) -> None:
        """End all nodes, the head last."""
        for node in reversed(self.nodes):
            node.kill()

    def workers(self) -> list[psutil.Process]:
        """The processes that train."""
        return [process for node in self.nodes for process in node.named("ray::RayTrainWorker")]

    def environment(self) -> dict[str, str]:
        """What a driver on the head needs."""
        return self.a.environment | {"RAY_ADDRESS": self.address}

    def _listens(self) -> bool:
        """Whether the head's port is open, as the kernel tells it of the head's own network."""
        tables = [Path(f"/proc/{server.pid}/net/{kind}") for server in self.a.named("gcs_server") for kind in ("tcp", "tcp6")]
        return any(f":{self._port:04X} " in table.read_text() for table in tables)


@contextlib.contextmanager
def running(folder: Path, environment: dict[str, str], dashboard: bool = True, cpus: Sequence[int] = (1, 1)) -> Iterator[Cluster]:
    """A cluster for as long as the block lasts, of nodes with so many `cpus`; its records lie in `folder`, whose path must be short."""
    number = next(COUNT)
    with network.places(f"tpr{number}-{os.getpid()}", len(cpus)) as places:
        cluster = Cluster(f"tpr{number}-{os.getpid()}", places, folder / f"c{number}", environment | QUICK, cpus)
        cluster.has_dashboard = dashboard
        (folder / f"c{number}").mkdir(parents=True)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()
