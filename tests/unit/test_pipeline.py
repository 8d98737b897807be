import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from tests.unit import reported, tiny, tiny_models
from threephase_ray import pipeline, planning, scoring
from threephase_ray.config import Encoder
from threephase_ray.errors import ResourceError
from threephase_ray.loader import DataSet
from threephase_ray.planning import Outline
from threephase_ray.results import Store

NAMES = ["food", "money", "sport", "weather"]  # weather is in the test split alone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, DataSet]:
    """A tiny checkpoint, and a data set whose test split has a class of its own."""
    folder = tmp_path_factory.mktemp("pipeline")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    tiny.write_csv(folder / "source" / "train.csv", tiny_models.texts(20))
    tiny.write_csv(folder / "source" / "test.csv", [*tiny_models.texts(8, seed=1), ("the oven and the sky", "weather")])
    return encoder, DataSet(tiny.prepare(folder / "store", source=str(folder / "source")))


def outline(place: tuple[Encoder, DataSet], tmp_path: Path, **knobs: Any) -> Outline:
    return planning.outline(tiny_models.configured(place[0], store=str(tmp_path / "store"), **knobs), place[1])


def kept(plan: Outline) -> Store:
    return Store(plan.config.store, plan.config.scratch)


def predictions(store: Store, name: str, truth: list[str], said: list[str]) -> str:
    """A file as workers write it."""
    columns = {"row": range(len(truth)), "label": truth, "predicted": said, "probabilities": [[1.0, 0.0, 0.0]] * len(truth)}
    calibration = json.dumps(reported.calibration("test", len(truth)))
    pq.write_table(pa.table(columns).replace_schema_metadata({"calibration": calibration}), store.place(name))
    return name


def finish(plan: Outline) -> None:
    """Results of finished phases as workers leave them, without weights."""
    for job in plan.missing():
        accounting = {"total_seconds": 2.0, "lost_seconds": 0.5}
        facts = {"phase": job.name, "scores": {"loss": 0.5}, "best_step": 2, "steps": 3, "worker_seconds": 1.5, "losses": [0.5] * 3}
        folder = kept(plan).attempt(job.result, 1)
        (folder / "metrics.json").write_text(json.dumps(facts | {"accounting": accounting}))
        kept(plan).commit(job.result, 1)
    for probe in scoring.probes(plan).values():
        kept(plan).write_json(probe.result, {"linear": {"accuracy": 0.5}})


def test_scores_of_the_test_split_equal_those_of_scikit_learn(place: tuple[Encoder, DataSet], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = [str(name) for name in rng.choice(NAMES, 200)]
    said = [name if name != "weather" and rng.random() < 0.7 else str(rng.choice(NAMES[:3])) for name in truth]
    plan = outline(place, tmp_path)
    found = scoring.test_result(plan, kept(plan), predictions(kept(plan), "predictions.parquet", truth, said))
    assert found["rows"] == 200
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
    assert found["confusion"] == confusion_matrix(truth, said, labels=NAMES).tolist()
    each = precision_recall_fscore_support(truth, said, labels=NAMES, zero_division=0)
    assert found["per_class"]["names"] == NAMES
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert found["per_class"][name] == pytest.approx(values.tolist())
    json.dumps(found, allow_nan=False)


def test_rows_of_an_unseen_class_count_as_errors(place: tuple[Encoder, DataSet], tmp_path: Path) -> None:
    truth, said = ["food", "money", "sport", "weather"], ["food", "money", "sport", "sport"]
    plan = outline(place, tmp_path)
    found = scoring.test_result(plan, kept(plan), predictions(kept(plan), "predictions.parquet", truth, said))
    assert found["accuracy"] == 0.75
    assert found["per_class"]["recall"] == [1.0, 1.0, 1.0, 0.0]
    assert found["macro_recall"] == 0.75
    assert found["macro_precision"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert found["confusion"][3] == [0, 0, 1, 0]
    z, n, p = 1.959964, 4, 0.75
    middle, half = (p + z**2 / 2 / n) / (1 + z**2 / n), z * math.sqrt(p * (1 - p) / n + z**2 / 4 / n**2) / (1 + z**2 / n)
    assert found["accuracy_interval"] == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_results_tell_of_every_phase_and_are_shown(
    place: tuple[Encoder, DataSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knobs = {"baseline": {"learning_rate": 1e-3}}
    plan, run = outline(place, tmp_path, **knobs), "runs/tiny"
    store = kept(plan)
    finish(plan)
    predictions(store, f"{run}/predictions.parquet", NAMES, ["food", "money", "sport", "sport"])
    predictions(store, f"{run}/baseline_predictions.parquet", NAMES, ["food", "money", "food", "food"])
    assert pipeline.finished_results(plan, store, run) is None
    results = pipeline.collect(plan, store, run)
    assert results["goodput"] == 0.75
    assert [row["phase"] for row in results["phases"]] == ["dae", "contrastive", "finetune"]
    assert not any(row["reused"] for row in [*results["phases"], results["baseline"]])
    assert (results["test"]["accuracy"], results["baseline_test"]["accuracy"]) == (0.75, 0.5)
    assert [probe["after"] for probe in results["probes"]] == ["pretrained", "dae", "contrastive", "finetune"]
    assert {probe["figures"]["linear"]["accuracy"] for probe in results["probes"]} == {0.5}
    pipeline.show(results, "where the results are")
    printed = capsys.readouterr().out
    for word in ("three phases", "75.00%", "plain fine-tuning", "50.00%", "2 of 3", "where the results are"):
        assert word in printed.replace("\n", "")
    store.write_json(f"{run}/results.json", results)
    assert pipeline.finished_results(outline(place, tmp_path, **knobs), store, run) is None  # the models have not been exported
    for kind in ("encoder", "classifier"):
        store.storage.write(f"{run}/model/{kind}/SHA256SUMS", b"")
    again = pipeline.finished_results(outline(place, tmp_path, **knobs), store, run)
    assert again is not None
    assert again["test"] == json.loads(json.dumps(results["test"]))
    assert all(row["reused"] for row in [*again["phases"], again["baseline"]])
    predictions(store, f"{run}/validation_predictions.parquet", NAMES, NAMES)
    predictions(store, f"{run}/validation_baseline_predictions.parquet", NAMES, NAMES)
    for change in ({"seed": 1}, {"calibrate": False}, {"predict": "validation"}):
        assert pipeline.finished_results(outline(place, tmp_path, **knobs, **change), store, run) is None, change


def test_predictions_of_an_earlier_plan_are_no_result_of_this_one(place: tuple[Encoder, DataSet], tmp_path: Path) -> None:
    run = "runs/tiny"
    store = Store(str(tmp_path / "store"), "unused")
    predictions(store, f"{run}/predictions.parquet", NAMES, NAMES)
    predictions(store, f"{run}/baseline_predictions.parquet", NAMES, NAMES)
    for phases, expected in ((("dae", "contrastive"), set()), (("finetune",), {"test"})):
        plan = outline(place, tmp_path, phases=phases)
        finish(plan)
        results = pipeline.collect(plan, store, run)
        assert {"test", "baseline_test"} & results.keys() == expected
        assert results["baseline"] is None


def test_a_classifier_is_tested_only_where_there_is_one(place: tuple[Encoder, DataSet], tmp_path: Path) -> None:
    jobs = {name: scoring.tests(outline(place, tmp_path, phases=phases), "runs/tiny") for name, phases in (
        ("with", ("contrastive", "finetune")), ("without", ("dae", "contrastive"))
    )}  # fmt: skip
    assert jobs["without"] == {}
    assert jobs["with"]["test"].model == outline(place, tmp_path, phases=("contrastive", "finetune")).chain[-1].job.result
    both = scoring.tests(outline(place, tmp_path, phases=("dae",), baseline={}), "runs/tiny")
    assert list(both) == ["baseline_test"]


def test_a_dry_run_shows_the_plan_and_trains_nothing(
    place: tuple[Encoder, DataSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(folder / "source" for folder in place[1].folder.parents if (folder / "source").is_dir())
    config = tiny_models.configured(place[0], str(source), store=str(tmp_path / "store"))
    pipeline.train(config, dry_run=True)
    printed = capsys.readouterr().out
    for word in ("texts read", "ZeRO stage", "noise_ratio: 0.6"):
        assert word in printed
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"data", "locks"}


def test_a_run_that_is_held_is_refused_with_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), "unused")
    monkeypatch.setattr(pipeline, "PATIENCE", 0.0)
    with (
        pipeline.alone(store, "runs/tiny"),
        pytest.raises(ResourceError, match=r"runs/tiny: is being worked on by process \d+"),
        pipeline.alone(store, "runs/tiny"),
    ):
        raise AssertionError("two at once")
    second = pipeline.alone(store, "runs/tiny")
    with pipeline.alone(store, "runs/tiny"), pytest.raises(ResourceError, match=r"runs/tiny: is being worked on by process \d+"):
        second.__enter__()
    with pipeline.alone(store, "runs/tiny"), pipeline.alone(store, "runs/other"):
        pass
