"""A small sweep that is stopped and goes on; `make faults` kills its driver, and nodes."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults import runner, sweeps
from tests.faults.stops import STOPPED
from tests.faults.sweeps import SHORT, SPACE, SweepJob
from tests.faults.trial import Trial
from threephase_ray.command import read

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
KNOBS = SPACE.format(noise="[0.5]", temperature="[0.05, 0.2]", ratio="[2, 12]") + "  halving: {keep: 0.5}\n  retrain_seeds: [1]\n"


@pytest.fixture(scope="module")
def job() -> Iterator[SweepJob]:
    """A sweep of four trials, stopped once, and given again."""
    with tempfile.TemporaryDirectory(prefix="tpr", dir="/tmp") as folder, runner.open_bench(Path(folder), seed=1) as bench:  # a short path
        trial = Trial(bench, "sweep", 600)
        made = sweeps.made(trial, KNOBS, *SHORT, "--compute.workers", "1", local=True)
        try:
            made.start()
            trial.limit.until(lambda: len(sweeps.ended(made.events())) >= 2 or made.code is not None, "two phases")
            code, _ = made.stop(grace=120)
            assert code == STOPPED, made.tail()
            made.start()
            made.finish()
            yield made
        finally:
            trial.close()


def test_each_phase_is_trained_once(job: SweepJob) -> None:
    counts = sweeps.ended(job.events())
    assert set(counts.values()) == {1}
    names = [name for name, _ in counts]
    assert {name: names.count(name) for name in set(names)} == {"dae": 2, "contrastive": 5, "finetune": 3}  # retraining counts, too


def test_half_of_the_trials_go_on_to_the_last_phase(job: SweepJob) -> None:
    assert sorted(trial["status"] for trial in job.trials()) == ["done", "done", "stopped", "stopped"]


def test_what_a_sweep_leaves_behind(job: SweepJob) -> None:
    rows = pq.read_table(io.BytesIO(job.file("sweep.parquet").read_bytes())).to_pylist()
    assert [row["status"] for row in rows] == [trial["status"] for trial in job.trials()]
    best = max((row for row in rows if row["score"] is not None), key=lambda row: (row["score"], -row["number"]))
    assert read([str(job.file("best.yaml"))]).contrastive.loss.temperature in {
        row["contrastive.loss.temperature"] for row in rows if row["score"] == best["score"]
    }
    assert (Path(job.store) / "runs" / "run-best-s1" / "results.json").exists()
    assert {path.name for path in job.file("plots").iterdir()} >= {"cost.svg"}


def test_the_same_command_again_has_nothing_to_do(job: SweepJob) -> None:
    before = len(job.events())
    job.start()
    job.finish()
    assert len(job.events()) == before
