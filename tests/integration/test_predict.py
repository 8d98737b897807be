"""Prediction in bulk as a job: like the run's own predictions; killed at any moment and started again, the same files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.processes import Limit
from tests.integration.places import Place
from tests.unit import tiny, tiny_models

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
FEW = ("--phases", "finetune", "--baseline", "null", "--probe", "false", "--compute.workers", "1")


@pytest.fixture(scope="module")
def model(place: Place) -> str:
    """The models of a run, as users name them."""
    done = place.train("--name", "scored", *FEW)
    assert done.returncode == 0, done.stderr[-3000:]
    return os.path.relpath(place.store / "runs" / "scored" / "model", place.root)


def flags(place: Place, model: str, name: str, files: Path, *more: str) -> list[str]:
    where = ["--store", os.path.relpath(place.store, place.root), "--model", model, "--input.files", str(files)]
    return ["--name", name, *where, "--compute.workers", "2", *more]


def predict(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/predict.py", *words]
    return subprocess.run(command, cwd=place.root, env=place.environment, capture_output=True, text=True, check=False)


def results(place: Place, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((place.store / "predictions" / name).glob("*.parquet"))}


def test_predictions_are_those_of_the_run(place: Place, model: str, tmp_path: Path) -> None:
    texts = tiny_models.texts(12, seed=2)
    tiny.write_csv(tmp_path / "test.csv", texts)
    done = predict(place, *flags(place, model, "again", tmp_path / "test.csv", "--output.top", "null", "--output.shard_rows", "5"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = pq.read_table(place.store / "predictions" / "again").to_pylist()
    expected = pq.read_table(place.store / "runs" / "scored" / "predictions.parquet").to_pylist()
    assert [(row["text"], row["label"]) for row in found] == texts  # in order, with the columns that came in
    for row, before in zip(found, expected, strict=True):
        assert row["predicted_label"] == before["predicted"]
        assert sorted(row["predicted_probabilities"]) == pytest.approx(sorted(before["probabilities"]), abs=1e-5)
    manifest = (place.store / "predictions" / "again" / "_manifest.json").read_text()
    assert '"scored": 12' in manifest


def test_a_killed_job_goes_on_and_gives_the_same_files(place: Place, model: str, tmp_path: Path) -> None:
    rows = [(f"{text} {i}", str(i)) for i, (text, _) in enumerate(tiny_models.texts(6000, seed=3))]
    tiny.write_csv(tmp_path / "many" / "one.csv", rows[:4000], ["text", "id"])
    pq.write_table(
        pa.table({"text": [text for text, _ in rows[4000:]], "id": [i for _, i in rows[4000:]]}), tmp_path / "many" / "two.parquet"
    )
    words = flags(place, model, "killed", tmp_path / "many", "--output.shard_rows", "100")
    job = subprocess.Popen([sys.executable, "jobs/predict.py", *words], cwd=place.root, env=place.environment, start_new_session=True)
    Limit(120).until(lambda: len(results(place, "killed")) >= 3 or job.poll() is not None, "the first shards", 0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    time.sleep(1.0)  # what it started notices
    before = {path: path.stat().st_mtime_ns for path in (place.store / "predictions" / "killed").glob("_shards/*.json")}
    assert 3 <= len(before) < 60
    done = predict(place, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{len(before)}" in done.stdout  # shards that were done already
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    whole = predict(place, *flags(place, model, "whole", tmp_path / "many", "--output.shard_rows", "100"))
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert results(place, "killed") == results(place, "whole")
    found = [row["id"] for each in results(place, "killed").values() for row in pq.read_table(pa.BufferReader(each)).to_pylist()]
    assert found == [i for _, i in rows]
