"""A small study on Ray whose driver is killed, and which goes on; `test_studies` looks at what it computes."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults import runner, sweeps
from tests.faults.job import Job
from tests.faults.sweeps import SHORT
from tests.faults.trial import Trial
from threephase_ray.results import Store

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
STUDY = """
probe: false
study:
  reference: fair
  seeds: [0, 1]
  arms:
    cl: {knobs: {phases: [contrastive, finetune], probe: true}}
    fair: {knobs: {phases: [finetune]}, tune: {finetune.learning_rate: [1.0e-4, 1.0e-3]}}
"""


class StudyJob(Job):
    """A study instead of a run."""

    script = "study.py"

    def events_path(self) -> Path:
        """Where the foreman writes them."""
        return self.file("events.jsonl")

    def file(self, name: str) -> Path:
        """A file of the study."""
        return Path(self.store) / "studies" / self.name / name


@pytest.fixture(scope="module")
def job() -> Iterator[StudyJob]:
    """A study of four runs, killed once, and given again."""
    with tempfile.TemporaryDirectory(prefix="tpr", dir="/tmp") as folder, runner.open_bench(Path(folder), seed=1) as bench:  # a short path
        trial = Trial(bench, "study", 600)
        made = trial.job(*SHORT, "--compute.workers", "1", local=True, kind=StudyJob)
        assert isinstance(made, StudyJob)
        (made.folder / "study.yaml").write_text(STUDY)
        made.flags += ["--config", str(made.folder / "study.yaml")]
        try:
            made.start()
            trial.limit.until(lambda: len(sweeps.ended(made.events())) >= 2 or made.code is not None, "two phases")
            made.kill()
            made.start()
            made.finish()
            yield made
        finally:
            trial.close()


def test_each_phase_is_trained_once_though_the_driver_was_killed(job: StudyJob) -> None:
    counts = sweeps.ended(job.events())
    assert set(counts.values()) == {1}
    names = [name for name, _ in counts]
    assert {name: names.count(name) for name in set(names)} == {"contrastive": 2, "finetune": 2 + 2 + 1}
    tests = [event["phase"] for event in job.events() if event["event"] == "test"]
    assert len(tests) == 4  # once for each run


def test_what_a_study_leaves_behind(job: StudyJob) -> None:
    rows = pq.read_table(io.BytesIO(job.file("runs.parquet").read_bytes())).to_pylist()
    assert [(row["arm"], row["seed"], row["status"]) for row in rows] == [(arm, seed, "done") for seed in (0, 1) for arm in ("cl", "fair")]
    found = Store(job.store, str(job.folder / "scratch")).read_json(f"studies/{job.name}/results.json")
    assert [each["metric"] for each in found["cells"][0]["comparisons"]] == ["accuracy", "macro_f1"]
    assert "fair" in job.file("report.html").read_text()


def test_the_same_command_again_has_nothing_to_do(job: StudyJob) -> None:
    before = len(job.events())
    job.start()
    job.finish()
    assert len(job.events()) == before
