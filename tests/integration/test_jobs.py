"""The main job as users start it: on this machine, on a running cluster, as a submitted Ray job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.places import Place
from tests.unit import tiny_models

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_plan_needs_neither_ray_nor_deepspeed(root: Path) -> None:
    program = "import sys, threephase_ray.pipeline; print(*{'ray', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_whole_run_on_this_machine(place: Place) -> None:
    near = os.path.relpath(place.store, place.root), os.path.relpath(place.config.parent / "checkpoint", place.root)  # as users write them
    done = place.train("--store", near[0], "--encoder.path", near[1])
    assert done.returncode == 0, done.stderr[-3000:]
    results = place.results()
    assert [row["phase"] for row in results["phases"]] == ["dae", "contrastive", "finetune"]
    assert not any(row["reused"] for row in results["phases"])
    assert all(row["workers"] == 2 and row["stage"] == 0 and row["engine"] == "deepspeed" for row in results["phases"])
    assert results["test"]["rows"] == sum(map(sum, results["test"]["confusion"])) == 12
    assert "macro F1" in done.stdout
    assert "plain fine-tuning" in done.stdout
    table = pq.read_table(place.run / "predictions.parquet").to_pylist()
    assert [row["row"] for row in table] == list(range(12))
    assert sum(row["label"] == row["predicted"] for row in table) / 12 == pytest.approx(results["test"]["accuracy"])
    assert all(sum(row["probabilities"]) == pytest.approx(1.0, abs=1e-5) for row in table)
    for kind in ("classifier", "encoder"):
        check = ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"]
        subprocess.run(check, cwd=place.run / "model" / kind, check=True)
        assert results["phases"][-1]["key"] in (place.run / "model" / kind / "README.md").read_text(encoding="utf-8")


def test_models_load_in_stock_libraries_and_predict_alike(place: Place) -> None:
    from transformers import pipeline

    table = pq.read_table(place.run / "predictions.parquet").to_pylist()
    texts = [text for text, _ in tiny_models.texts(12, seed=2)]
    classify = pipeline("text-classification", str(place.run / "model" / "classifier"), top_k=1)
    assert classify.model.config.calibration_temperature == place.results()["test"]["calibration"]["temperature"]
    for row, ((best,)) in zip(table, classify(texts, truncation=True), strict=True):
        assert best["label"] == row["predicted"]
        assert best["score"] == pytest.approx(max(row["probabilities"]), abs=1e-5)


def test_second_run_trains_nothing(place: Place) -> None:
    before = place.results()
    events = (place.run / "events.jsonl").read_text()
    done = place.train()
    assert done.returncode == 0, done.stderr[-3000:]
    assert place.results() == before
    assert (place.run / "events.jsonl").read_text() == events
    assert done.stdout.count("yes") == 8  # three phases and plain fine-tuning: in the store, and reused


def test_resolved_configuration_runs_again(place: Place) -> None:
    again = Place(place.root, place.environment, place.run / "config.yaml", place.store)
    done = again.train("--dry-run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("yes") == 4


def test_other_run_on_a_cluster_reuses_what_it_shares(cluster: Place) -> None:
    done = cluster.train("--name", "other", "--finetune.steps", "4", "--contrastive.texts_per_class", "3", "--compute.zero_stage", "3")
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((cluster.store / "runs" / "other" / "results.json").read_text())
    assert [row["reused"] for row in results["phases"]] == [True, False, False]


def test_submitted_job_succeeds(cluster: Place) -> None:
    submitted = submit(cluster, "--name", "submitted")
    assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
    assert (cluster.store / "runs" / "submitted" / "results.json").is_file()


def test_submitted_job_with_wrong_configuration_has_its_exit_code(cluster: Place) -> None:
    submitted = submit(cluster, "--dae.noise_ratoi", "0.5")
    assert submitted.returncode != 0
    assert "did you mean dae.noise_ratio" in submitted.stdout
    ask = (
        "from ray.job_submission import JobSubmissionClient; import os;"
        "jobs = JobSubmissionClient(os.environ['RAY_API_SERVER_ADDRESS']).list_jobs();"
        "print([job.driver_exit_code for job in jobs if 'ratoi' in job.entrypoint])"
    )
    asked = subprocess.run([sys.executable, "-c", ask], env=cluster.environment, capture_output=True, text=True, check=True)
    assert asked.stdout.strip().endswith("[2]")


def submit(cluster: Place, *flags: str) -> subprocess.CompletedProcess[str]:
    ray, root = str(Path(sys.executable).parent / "ray"), str(cluster.root)
    command = [sys.executable, "jobs/train.py", "--config", str(cluster.config), "--store", str(cluster.store), *flags]
    environment = {name: value for name, value in cluster.environment.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [ray, "job", "submit", "--working-dir", root, "--", *command], env=environment, capture_output=True, text=True, check=False
    )


def test_too_many_workers_end_with_what_was_asked_and_what_there_is(cluster: Place) -> None:
    done = cluster.train("--name", "greedy", "--seed", "5", "--compute.workers", "64", "--compute.start_timeout_s", "3")
    assert done.returncode == 4
    assert "64 workers" in done.stderr
    assert "'CPU': 2.0" in done.stderr
    assert not (cluster.store / "runs" / "greedy" / "results.json").exists()


def test_failing_worker_ends_the_job_with_a_clear_word(cluster: Place) -> None:
    (cluster.store / "runs" / "blocked" / "predictions.parquet" / "x").mkdir(parents=True)  # a worker cannot write its file here
    done = cluster.train("--name", "blocked")
    assert done.returncode == 4
    assert "predictions.parquet" in done.stderr
    assert (cluster.store / "runs" / "blocked" / "error.txt").is_file()


def test_changed_phase_is_not_used(cluster: Place) -> None:
    (weights,) = cluster.store.glob("phases/dae-*/attempt-*/weights.safetensors")
    with weights.open("ab") as file:
        file.write(b"x")
    done = cluster.train("--name", "changed")
    assert done.returncode == 1
    assert f"{weights.parent.parent}: weights.safetensors has other content" in done.stderr
