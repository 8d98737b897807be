"""A cluster of three nodes with addresses of their own and token authentication: every job goes through `submit.py`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.faults import cluster, network
from tests.faults.processes import Limit
from tests.faults.runner import ENVIRONMENT, UNWANTED
from tests.integration.places import Place
from tests.unit import tiny, tiny_models
from threephase_ray.training import accounting
from threephase_ray.training.accounting import Event

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not network.allowed(f"tpr{os.getpid()}"), reason="needs network namespaces: root on Linux, with iproute2"),
]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
HEAD, FIRST, SECOND = "10.77.0.1", "10.77.0.2", "10.77.0.3"
ONE = ("--phases", "finetune", "--probe", "false", "--baseline", "null", "--compute.workers", "2")
WIDE = (*ONE, "--name", "wide", "--compute.cpus_per_worker", "2")  # a worker fills a node
LONG = (*ONE, "--name", "long", "--seed", "6", "--finetune.steps", "400", "--finetune.validations", "1", "--checkpoint.steps", "50")
GRID = """
sweep:
  space:
    dae.noise_ratio: {grid: [0.3, 0.6]}
    contrastive.loss.temperature: {grid: [0.05, 0.2]}
  search: {method: grid}
"""


@dataclass(frozen=True)
class Site:
    """The cluster, and a user's place on its head."""

    cluster: cluster.Cluster
    user: Place

    def submit(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*flags), cwd=ROOT, env=self.user.environment, capture_output=True, text=True, check=False)

    def command(self, *flags: str) -> list[str]:
        config = () if "predict" in flags else ("--config", str(self.user.config))
        return [*self.cluster.place.prefix, sys.executable, "jobs/submit.py", *config, "--store", str(self.user.store), *flags]

    def ray(self, *words: str) -> str:
        """What a command of Ray prints."""
        command = [*self.cluster.place.prefix, cluster.RAY, *words]
        return subprocess.run(command, env=self.user.environment, capture_output=True, text=True, check=True).stdout

    def node(self, address: str) -> str:
        """The id of a living node."""
        found = json.loads(self.ray("list", "nodes", "--format", "json", "--filter", "state=ALIVE"))
        return next(str(node["node_id"]) for node in found if node["node_ip"] == address)

    def events(self, run: str) -> list[Event]:
        path = self.user.store / "runs" / run / "events.jsonl"
        return accounting.parse(path.read_bytes()) if path.exists() else []

    def groups(self, run: str) -> list[list[str]]:
        """Addresses of the workers of each group that a run had."""
        return [event["nodes"] for event in self.events(run) if event["event"] == "group"]


@pytest.fixture(scope="module")
def site(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A head without CPUs, and two nodes of two."""
    environment = {name: value for name, value in place.environment.items() if name not in UNWANTED} | ENVIRONMENT | TOKEN
    with (
        tempfile.TemporaryDirectory(prefix="tpr", dir="/tmp") as folder,  # a short path
        cluster.running(Path(folder), environment, cpus=(0, 2, 2)) as nodes,
    ):
        store = tmp_path_factory.mktemp("cluster") / "store"
        yield Site(nodes, replace(place, environment=environment | {"RAY_ADDRESS": nodes.address}, store=store))


def losses(store: Path) -> dict[str, list[float]]:
    """Of every phase, by its name and key."""
    found = {path.parts[-3]: json.loads(path.read_text())["losses"] for path in store.glob("phases/*/attempt-*/metrics.json")}
    return dict(sorted(found.items()))


def done(answer: subprocess.CompletedProcess[str]) -> str:
    """What a job printed that has to end well."""
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    return answer.stdout


@pytest.mark.parametrize("token", [{"RAY_AUTH_TOKEN": "f" * 32}, {"RAY_AUTH_MODE": "disabled"}])
def test_nothing_is_accepted_without_the_right_token(site: Site, token: dict[str, str]) -> None:
    jobs = lambda: site.ray("job", "list").rpartition(" -- ")[2]  # noqa: E731  # what stands before it is the time
    before = jobs()
    stranger = Site(site.cluster, replace(site.user, environment=site.user.environment | token))
    assert stranger.submit(*ONE).returncode == 4
    assert jobs() == before


def test_texts_are_prepared_on_the_cluster_and_serve_a_run(site: Site) -> None:
    assert "data set:" in done(site.submit("--job", "prepare"))
    (folder,) = (site.user.store / "data").iterdir()
    made = folder.stat().st_mtime_ns
    done(site.submit(*WIDE))
    assert [path.stat().st_mtime_ns for path in (site.user.store / "data").iterdir()] == [made]


def test_workers_of_a_run_are_on_both_nodes(site: Site) -> None:
    done(site.submit(*WIDE))
    assert [sorted(addresses) for addresses in site.groups("wide")] == [[FIRST, SECOND]]


def test_files_are_scored_on_the_cluster(site: Site, tmp_path: Path) -> None:
    texts = tiny_models.texts(12, seed=2)  # the run's test split
    tiny.write_csv(tmp_path / "test.csv", texts)
    done(site.submit(*WIDE))
    files = ("--input.files", str(tmp_path / "test.csv"), "--output.shard_rows", "4")
    done(site.submit("--job", "predict", "--name", "scored", "--model", "wide", "--compute.workers", "2", *files))
    found = pq.read_table(site.user.store / "predictions" / "scored", columns=["text", "predicted_label"]).to_pylist()
    expected = pq.read_table(site.user.store / "runs" / "wide" / "predictions.parquet").to_pylist()
    assert [row["text"] for row in found] == [text for text, _ in texts]
    assert [row["predicted_label"] for row in found] == [row["predicted"] for row in expected]


def test_trials_of_a_sweep_run_on_both_nodes(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(site.user.config.read_text() + GRID)
    asked = Site(site.cluster, replace(site.user, config=config))
    done(asked.submit("--job", "sweep", "--name", "grid", "--compute.workers", "1", "--compute.cpus_per_worker", "2"))
    events = accounting.parse((site.user.store / "sweeps" / "grid" / "events.jsonl").read_bytes())
    assert {address for event in events if event["event"] == "group" for address in event["nodes"]} == {FIRST, SECOND}
    assert [event["phase"] for event in events if event["event"] == "task_done"].count("dae") == 2


def test_a_run_leaves_a_drained_node_and_loses_nothing(site: Site, place: Place, tmp_path: Path) -> None:
    alone = replace(place, store=tmp_path / "store")
    local = alone.train(*LONG)
    assert local.returncode == 0, local.stderr[-3000:]
    with subprocess.Popen(site.command(*LONG), cwd=ROOT, env=site.user.environment, stdout=subprocess.PIPE, text=True) as job:
        stepped = lambda: [event for event in site.events("long") if event["event"] == "step" and event["step"] >= 60]  # noqa: E731
        Limit(600).until(lambda: stepped() or job.poll() is not None, "the sixtieth step", 0.2)
        ((left, other),) = site.groups("long")
        assert left == other in (FIRST, SECOND)
        reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "wanted back")
        site.ray("drain-node", "--node-id", site.node(left), *reason, "--deadline-remaining-seconds", "600")
        output, _ = job.communicate()
    assert job.returncode == 0, output[-3000:]
    assert "is being drained" in output
    stays = SECOND if left == FIRST else FIRST
    assert site.groups("long") == [[left] * 2, [stays] * 2]
    key = next(event["key"] for event in site.events("long") if event["event"] == "phase")
    first, second = accounting.attempts(site.events("long"), key)
    assert 60 <= first.to_step == second.from_step < second.to_step == 400
    assert first.steps_wasted == 0
    (ours,) = (path for path in site.user.store.glob("phases/finetune-*") if path.name.endswith(key))
    theirs = alone.store / "phases" / ours.name
    found = [json.loads(next(folder.glob("attempt-*/metrics.json")).read_text())["losses"] for folder in (ours, theirs)]
    assert found[0] == found[1]
    gone = next(node for node in site.cluster.nodes if node.place.address == left)
    gone.kill()
    site.cluster.join(gone)


def test_the_demo_has_the_losses_of_a_laptop(site: Site, place: Place, tmp_path: Path) -> None:
    demo = ROOT / "jobs" / "configs" / "demo.yaml"
    alone = replace(place, store=tmp_path / "here", config=demo)
    local = alone.train()
    assert local.returncode == 0, local.stderr[-3000:]
    there = replace(site.user, store=tmp_path / "there", config=demo)
    done(Site(site.cluster, there).submit())
    assert losses(there.store) == losses(alone.store)
    assert sorted(len(each) for each in losses(there.store).values()) == [6, 8, 45, 93]  # contrastive, dae, phase 3, plain fine-tuning
