"""What a run leaves: predictions and exported models that agree, calibrated; their cards; the sums of their files."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from scipy.special import softmax
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.unit import tiny_models, tiny_runs
from tests.unit.tiny_runs import RUN
from threephase_ray import pipeline, planning, pretrained, sums
from threephase_ray.evidence import temperature
from threephase_ray.models import restore
from threephase_ray.planning import Outline
from threephase_ray.results import Store

TEXTS = {"validation": tiny_models.texts(12, seed=1), "test": tiny_models.texts(12, seed=2)}
KINDS: dict[str, dict[str, Any]] = {  # with a stock classifier and a baseline; with neither, and the test split unread
    "cls": {"finetune": {"steps": 12}, "baseline": {"steps": 3}},
    "mean": {"finetune": {"steps": 12}, "phases": ("contrastive", "finetune"), "predict": "validation"},
}


@pytest.fixture(scope="module", params=[*KINDS])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outline, Store, dict[str, Any]]:
    """A run that was delivered, and its results."""
    plan, store = tiny_runs.trained(tmp_path_factory.mktemp(request.param), request.param, **KINDS[request.param])
    return plan, store, pipeline.deliver(plan, store, RUN)


def logits(plan: Outline, store: Store, split: str) -> np.ndarray:
    """The trained model's, text by text, without its temperature."""
    model, rows = restore(store.fetch(plan.chain[-1].job.result)).eval(), plan.data.split(split)
    with torch.no_grad():
        each = [
            model(torch.from_numpy(one.tokens), torch.from_numpy(one.present)) for one in (rows.padded(np.array([i])) for i in range(12))
        ]
    return torch.cat(each).numpy()


def predicted(plan: Outline, store: Store) -> pa.Table:
    split = plan.config.predict
    return pq.read_table(store.place(f"{RUN}/{'' if split == 'test' else 'validation_'}predictions.parquet"))


def test_predictions_are_calibrated_on_validation_and_labels_stay(run: tuple[Outline, Store, dict[str, Any]]) -> None:
    plan, store, results = run
    split, table = plan.config.predict, predicted(plan, store)
    told = results[split]["calibration"]
    labels = plan.data.split("validation").labels[:, -1]
    fitted = temperature.fit(logits(plan, store, "validation"), labels)
    assert fitted.reason == told["reason"] == ""  # else the test means little
    assert told["temperature"] == pytest.approx(fitted.value, rel=1e-4)
    exact = logits(plan, store, split)
    np.testing.assert_allclose(np.array(table["probabilities"].to_pylist()), softmax(exact / fitted.value, axis=1), atol=1e-5)
    assert table["predicted"].to_pylist() == [plan.data.label_names[k] for k in exact.argmax(axis=1)]
    assert json.loads(table.schema.metadata[b"calibration"]) == told
    assert set(told["splits"]) == {"validation", split}
    found = told["splits"]["validation"]
    assert found["rows"] == 12
    assert found["after"]["log_loss"] < found["before"]["log_loss"] == pytest.approx(results["phases"][-1]["scores"]["loss"], abs=1e-5)


def test_exported_classifiers_agree_with_the_predictions_in_stock_libraries(run: tuple[Outline, Store, dict[str, Any]]) -> None:
    plan, store, results = run
    folder, texts = store.place(f"{RUN}/model/classifier"), [text for text, _ in TEXTS[plan.config.predict]]
    if plan.config.encoder.pooling == "cls":
        batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            said = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**batch).logits.numpy()
    else:
        said = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(softmax(said, axis=1), np.array(predicted(plan, store)["probabilities"].to_pylist()), atol=1e-5)
    value = results[plan.config.predict]["calibration"]["temperature"]
    assert json.loads((folder / "config.json").read_text())["calibration_temperature"] == value


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_card_tells_of_the_run_and_how_to_load_the_model(run: tuple[Outline, Store, dict[str, Any]], kind: str) -> None:
    plan, store, results = run
    folder = store.place(f"{RUN}/model/{kind}")
    card = (folder / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(program.replace("path/of/this/folder", str(folder)), {})  # noqa: S102 - as its reader would
    said = {"encoder": "(1, 16)", "transformers": "'label': ", "sentence-transformers": f"'{plan.data.label_names[0]}': "}
    assert said[kind if kind == "encoder" else ModelCard(card).data.library_name] in printed.getvalue()
    assert results["phases"][-1]["key"] in card
    assert plan.data.facts["content"] in card
    assert str(plan.config.store) not in card
    assert ("plain fine-tuning" in card) == (plan.baseline is not None and kind == "classifier")


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_the_sums_of_all_files_are_right(run: tuple[Outline, Store, dict[str, Any]], kind: str) -> None:
    folder, check = run[1].place(f"{RUN}/model/{kind}"), ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"]
    subprocess.run(check, cwd=folder, check=True)
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"SHA256SUMS"}


def test_a_job_that_dies_while_it_exports_leaves_no_finished_run(
    run: tuple[Outline, Store, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store, results = run
    again = planning.outline(plan.config, plan.data)  # now that the phases are in the store
    assert pipeline.finished_results(again, store, RUN) is not None
    pipeline.begin(plan, store, RUN)
    with monkeypatch.context() as killed:
        killed.setattr(sums, "seal", lambda folder: sys.exit())
        with pytest.raises(SystemExit):
            pipeline.deliver(plan, store, RUN)
    assert not store.storage.sizes(f"{RUN}/results.json")
    assert pipeline.finished_results(again, store, RUN) is None
    assert pipeline.deliver(plan, store, RUN)["identity"] == results["identity"]
    assert pipeline.finished_results(again, store, RUN) is not None


def test_the_base_models_card_is_read_from_its_folder(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path, "bert")
    assert pretrained.card(encoder) == ""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert pretrained.card(encoder) == "---\nlicense: mit\n---\n"
