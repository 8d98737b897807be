"""What Prometheus would see of a run: scraped from the node while it runs, and compared with the run's own events."""

import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.places import Place
from threephase_ray.training import accounting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
RUN = "runs/measured"
FLAGS = ("--name", "measured", "--probe", "false", "--baseline", "null", "--compute.workers", "1", "--checkpoint.steps", "2", "--seed", "7")
Figures = dict[tuple[str, str], float]  # (metric, phase) -> value


def scraped(port: int) -> Figures:
    """The run's figures as the node offers them now; those of its worker and those of its driver."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.labels.get("run") == RUN]
    return {(sample.name.removeprefix("ray_threephase_"), sample.labels["phase"]): sample.value for sample in samples}


@pytest.fixture(scope="module")
def measured(cluster: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Figures, list[dict[str, Any]]]:
    """All figures that were offered, the last value of each, and the events of the run. Its first phase is in the store already."""
    place = replace(cluster, store=tmp_path_factory.mktemp("metrics") / "store")
    first = place.train(*FLAGS, "--phases", "dae")
    assert first.returncode == 0, first.stderr[-3000:]
    figures: Figures = {}
    command = [
        sys.executable,
        "jobs/train.py",
        "--config",
        str(place.config),
        "--store",
        str(place.store),
        *FLAGS,
        "--phases",
        "dae,finetune",
    ]
    with subprocess.Popen(command, cwd=place.root, env=place.environment, stdout=subprocess.PIPE, text=True) as job:
        while job.poll() is None:
            figures |= scraped(place.metrics_port)
            time.sleep(0.2)
        assert job.stdout is not None
        assert job.returncode == 0, job.stdout.read()[-3000:]
    events = accounting.parse((place.store / RUN / "events.jsonl").read_bytes())
    return figures, [event for event in events if event.get("phase") == "finetune"]


def test_steps_and_loss_are_those_of_the_events(measured: tuple[Figures, list[dict[str, Any]]]) -> None:
    figures, events = measured
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) == 6
    assert figures["steps_total", "finetune"] == 6
    assert figures["loss", "finetune"] == pytest.approx(steps[-1]["loss"], rel=1e-6)
    passed = steps[-1]["time"] - steps[0]["time"]
    assert figures["steps_per_second", "finetune"] == pytest.approx(5 / passed, rel=0.2)


def test_goodput_is_that_of_the_accounting(measured: tuple[Figures, list[dict[str, Any]]]) -> None:
    figures, events = measured
    key = next(event["key"] for event in events if event["event"] == "phase")
    assert [event for event in events if event["event"] == "checkpoint"]  # so that it is below 1
    last = max(number for number, event in enumerate(events) if event["event"] == "attempt")  # what comes later is no more of the phase
    expected = accounting.summary(accounting.attempts(events[: last + 1], key))["goodput"]
    assert figures["goodput", "finetune"] == pytest.approx(expected, abs=1e-6)
    assert expected < 1


def test_a_phase_from_the_store_is_counted_as_reused(measured: tuple[Figures, list[dict[str, Any]]]) -> None:
    figures, _ = measured
    assert figures["phases_reused_total", "dae"] == 1
    assert ("phases_reused_total", "finetune") not in figures
    assert json.dumps(sorted({phase for _, phase in figures})) == '["dae", "finetune"]'
