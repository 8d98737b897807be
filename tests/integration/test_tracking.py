"""Trackers of a whole run whose driver is killed and started again: each phase is one history, and it is that of the run's events."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.processes import Limit
from tests.integration import s3, tracked
from tests.integration.places import Place
from tests.integration.tracked import Curves
from tests.unit import killed
from threephase_ray.results import Store
from threephase_ray.trackers import feed
from threephase_ray.trackers.feed import Feed
from threephase_ray.trackers.mlflow import MLflow
from threephase_ray.training import accounting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
STEPS = {"dae": 5, "contrastive": 1500, "finetune": 6}
FLAGS = ("--name", "tracked", "--baseline", "null", "--probe", "false", "--compute.workers", "1", "--checkpoint.steps", "20")
PHASES = ("--dae.steps", "5", "--contrastive.steps", "1500", "--contrastive.validations", "30")
TRACKING = ("--tracking.experiment", "tests", "--tracking.wandb", "tests", "--tracking.mlflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracked.mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


def sent(server: str) -> list[tuple[int, float]]:
    """The losses of the second phase that MLflow has."""
    runs = tracked.Runs(server, "tests")
    return runs.curves(runs.phases["contrastive"]).get("loss", []) if "contrastive" in runs.phases else []


@pytest.fixture(scope="module")
def run(cluster: Place, server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in its second phase, when trackers knew a part of it, and started again."""
    secret = {"MLFLOW_TRACKING_TOKEN": "token-of-the-test", "WANDB_API_KEY": "key-of-the-test", "WANDB_MODE": "offline"}
    place = replace(cluster, store=tmp_path_factory.mktemp("tracking") / "store", environment=cluster.environment | secret)
    flags, made = [*FLAGS, *PHASES, *TRACKING, server], place.store / "runs" / "tracked"
    command = [sys.executable, "jobs/train.py", "--config", str(place.config), "--store", str(place.store), *flags]
    job = subprocess.Popen(command, cwd=place.root, env=place.environment, start_new_session=True)
    limit = Limit(200)
    limit.until(lambda: (made / "tensorboard" / "contrastive").exists() or job.poll() is not None, "the second phase")
    limit.until(lambda: len(sent(server)) > 30 or job.poll() is not None, "a part of it at MLflow", 0.1)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    assert 30 < len(sent(server)) < STEPS["contrastive"]
    assert tracked.Runs(server, "tests").whole.info.status == "RUNNING"
    done = place.train(*flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tracking:" not in done.stdout  # no tracker failed
    return made


def expected(run: Path) -> dict[str, Curves]:
    """Loss and validation scores of each phase, each step as it was the first time."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for event in accounting.parse((run / "events.jsonl").read_bytes()):
        curves = found.setdefault(event.get("phase", ""), {})
        if event["event"] == "step":
            curves.setdefault("loss", {}).setdefault(event["step"], event["loss"])
        if event["event"] == "validation":
            for name in event.keys() - {"event", "phase", "time", "step", "steps"}:
                curves.setdefault(f"validation/{name}", {}).setdefault(event["step"], event[name])
    return {phase: {name: [*curve.items()] for name, curve in found[phase].items()} for phase in STEPS}


def without_speed(curves: Curves) -> Curves:
    """The curves that the events tell at once; speed is there for all steps but the first one of each start."""
    assert 0 < len(curves["loss"]) - len(curves["steps_per_second"]) <= 2
    return {name: curve for name, curve in curves.items() if name == "loss" or name.startswith("validation/")}


def test_the_kill_made_steps_be_done_again(run: Path) -> None:
    steps = [event for event in accounting.parse((run / "events.jsonl").read_bytes()) if event["event"] == "step"]
    assert len(steps) > sum(STEPS.values())
    assert {phase: [step for step, _ in curves["loss"]] for phase, curves in expected(run).items()} == {
        phase: [*range(1, count + 1)] for phase, count in STEPS.items()
    }


def test_mlflow_has_one_history_of_each_phase(run: Path, server: str) -> None:
    runs = tracked.Runs(server, "tests")
    assert {phase: without_speed(runs.curves(each)) for phase, each in runs.phases.items()} == expected(run)
    assert {each.info.status for each in runs.all} == {"FINISHED"}
    assert {each.data.tags["reused"] for each in runs.phases.values()} == {"false"}
    results = json.loads((run / "results.json").read_text())
    assert runs.whole.data.metrics["test/accuracy"] == results["test"]["accuracy"]
    assert runs.phases["finetune"].data.metrics["best/accuracy"] == results["phases"][2]["scores"]["accuracy"]
    assert runs.phases["contrastive"].data.metrics["cost/goodput"] == results["phases"][1]["accounting"]["goodput"]
    assert all(len(curve) == 1 for name, curve in runs.curves(runs.whole).items())
    assert runs.whole.data.params["contrastive.steps"] == "1500"
    assert runs.phases["dae"].data.params["dae.noise_ratio"] == "0.6"


def test_weights_and_biases_has_one_history_of_each_phase(run: Path) -> None:
    runs = tracked.wandb(run)
    identity = min(runs, key=len)
    assert set(runs) == {identity, *(f"{identity}-{phase}" for phase in STEPS)}
    assert {phase: without_speed(tracked.history(runs[f"{identity}-{phase}"])) for phase in STEPS} == expected(run)
    summary: dict[str, Any] = {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json) for record in runs[identity] for item in record.summary.update
    }
    assert summary["test/accuracy"] == json.loads((run / "results.json").read_text())["test"]["accuracy"]


def test_tensorboard_has_one_history_of_each_phase(run: Path) -> None:
    read = tracked.tensorboard(run / "tensorboard")
    assert set(read) == {*STEPS, "run"}
    for phase, curves in expected(run).items():
        found = without_speed(read[phase])
        assert {name: [step for step, _ in curve] for name, curve in found.items()} == {
            name: [step for step, _ in curve] for name, curve in curves.items()
        }
        for name, curve in curves.items():  # event files hold 32 bits
            assert [value for _, value in found[name]] == np.array([value for _, value in curve], dtype=np.float32).tolist()


def test_no_credentials_are_written_and_nothing_of_the_machine(run: Path, server: str) -> None:
    written = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"of-the-test" not in written
    runs = tracked.Runs(server, "tests")
    assert "of-the-test" not in str([each.to_dictionary() for each in runs.all])
    assert not {name for each in runs.all for name in each.data.tags if name.startswith(("mlflow.source", "mlflow.user"))}
    assert os.environ["PATH"].encode() not in written


def test_over_a_line_that_loses_requests_and_answers_mlflow_gets_everything_once(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_PAUSE", 0.0)
    store = Store(str(tmp_path / "store"), str(tmp_path / "scratch"))
    with s3.Proxy(int(server.rpartition(":")[2]), seed=3) as line:
        line.failing = 0.15

        def driver() -> Feed:
            return Feed("MLflow", lambda: MLflow(line.endpoint, "line", killed.SUBJECT), killed.SUBJECT, store, killed.LOG)

        fed = driver()
        for stop in range(1, len(killed.KILLED) + 1):
            killed.append(store, stop)
            fed = driver() if stop == 20 else fed
            fed.pump()
        assert any(driver().finish(killed.FINAL) for _ in range(20))
        assert line.failures > 10
    runs = tracked.Runs(server, "line")
    assert {name: run.info.status for name, run in runs.phases.items()} == dict.fromkeys(killed.PHASES, "FINISHED")
    for phase, key in (("dae", killed.DAE), ("finetune", killed.TUNE)):
        rows = killed.whole(killed.KILLED)[key]
        curves = runs.curves(runs.phases[phase])
        for name in ("loss", "steps_per_second", "validation/accuracy"):
            assert curves[name] == [(row.step, row.figures[name]) for row in rows if name in row.figures]
    assert runs.curves(runs.whole) == {"test/accuracy": [(0, 0.75)]}
    reused = {name: run.data.tags["reused"] for name, run in runs.phases.items()}
    assert reused == {"dae": "false", "finetune": "false", "contrastive": "true"}
    assert runs.phases["dae"].data.params == {"key": killed.DAE, "dae.steps": "3"}
