"""ONNX says what PyTorch says, for every family and both stock formats; a job that fails leaves nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from tests.unit import test_export, tiny, tiny_models
from tests.unit.test_export import LABELS, MAX_LENGTH, TEXTS
from threephase_ray import command, export, pretrained, sums
from threephase_ray.errors import ConfigError, DataError, JobError
from threephase_ray.exporting import ExportConfig, Onnx, Push
from threephase_ray.exports import agreement, files, graph, hub, job
from threephase_ray.exports.texts import texts
from threephase_ray.models import Embedder
from threephase_ray.predictions import classifier

FILES = {"README.md", "SHA256SUMS", "config.json", "labels.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"}


def exported(folder: Path, family: str, pooling: str) -> Path:
    """A run's `model` folder of a random classifier."""
    stock = pooling == "cls" and family in pretrained.STOCK_HEADS
    finished = test_export.finished(folder, family, pooling, pretrained.STOCK_HEADS[family].activation if stock else "tanh")
    kind = export.export_classifier(finished, folder / "checkpoint", LABELS, MAX_LENGTH, folder / "model" / "classifier")
    assert kind == ("transformers" if stock else "sentence-transformers")
    export.export_encoder(finished, folder / "checkpoint", MAX_LENGTH, folder / "model" / "encoder")
    return folder / "model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("run"), "bert", "mean")


def settings(model: Path, place: Path, **knobs: Any) -> ExportConfig:
    return ExportConfig(**({"name": "some", "store": str(place / "store"), "model": str(model)} | knobs))


def logits(folder: Path, batch: list[str]) -> NDArray[np.float32]:
    """What the ONNX file gives for texts in one batch."""
    found = AutoTokenizer.from_pretrained(folder)(batch, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (given,) = session.run(["logits"], {name: found[name] for name in ("input_ids", "attention_mask")})
    return given


@pytest.mark.parametrize(
    ("family", "pooling"), [*zip(tiny_models.FAMILIES, ["cls", "mean"] * 4, strict=False), ("bert", "mean"), ("roberta", "cls")]
)
def test_onnx_gives_the_logits_of_the_stock_model(family: str, pooling: str, tmp_path: Path) -> None:
    model, out = exported(tmp_path, family, pooling), tmp_path / "onnx"
    out.mkdir()
    graph.write(model, out, int8=False)
    stock = test_export.stock_encoding if (model / "classifier" / "labels.json").exists() else test_export.stock_logits
    expected = stock(model / "classifier")
    assert expected.std(axis=0).max() > 0.05  # texts differ, so the comparison means something
    np.testing.assert_allclose(logits(out, TEXTS), expected, atol=1e-5)
    for rows in ([0], [5, 1, 8]):  # alone, and beside others than before
        np.testing.assert_allclose(logits(out, [TEXTS[row] for row in rows]), expected[rows], atol=1e-5)
    written = onnx.load(out / "model.onnx")
    shapes = {each.name: [side.dim_param for side in each.type.tensor_type.shape.dim] for each in written.graph.input}
    assert shapes == {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
    assert {each.domain for each in written.opset_import} == {""}  # nothing that only one runtime knows
    assert AutoConfig.from_pretrained(out).id2label == dict(enumerate(LABELS))


def test_the_job_writes_a_sealed_folder_whose_example_runs(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job.export(settings(model, tmp_path, onnx={"int8": True}))
    out = tmp_path / "store" / "exports" / "some" / "onnx"
    assert {path.name for path in out.iterdir()} == FILES | {"model_int8.onnx"}
    assert [path.name for path in out.parent.iterdir()] == ["onnx"]
    sums.verify(out)
    card = (out / "README.md").read_text()
    said = capfd.readouterr()
    for name in ("model.onnx", "model_int8.onnx"):
        assert re.search(rf"{name}: probabilities differ from PyTorch's by \S+ at most, the same label for \S+ % of \d+ texts", said.out)
        assert f"`{name}`: probabilities differ" in card
    assert "arning" not in said.err
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=out, capture_output=True, text=True, check=False)
    found = logits(out, ["a text", "another, longer text"]).argmax(axis=1)
    assert done.stdout.strip() == str([LABELS[number] for number in found]), done.stderr
    reference = agreement.expected(model, TEXTS)
    exact, small = (agreement.measure(out, name, TEXTS, reference) for name in ("model.onnx", "model_int8.onnx"))
    assert exact.difference < 1e-5 < small.difference < 0.3
    assert exact.same_label == 1.0 >= small.same_label > 0.7
    assert "MatMulInteger" in {node.op_type for node in onnx.load(out / "model_int8.onnx").graph.node}


def test_a_file_that_says_something_else_is_not_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = graph._trace

    def wrong(embedder: Embedder, head: Any, path: Path) -> None:
        with torch.no_grad():
            head[0].bias += 0.01
        trace(embedder, head, path)

    monkeypatch.setattr(graph, "_trace", wrong)
    old = tmp_path / "store" / "exports" / "some" / "onnx" / "old"
    old.mkdir(parents=True)
    with pytest.raises(JobError, match="does not say what PyTorch says: probabilities differ"):
        job.export(settings(model, tmp_path))
    assert [*(tmp_path / "store" / "exports").rglob("*")] == [old.parent.parent, old.parent, old]
    assert files.TOLERANCE == 1e-4


def test_a_network_that_pytorch_cannot_write_is_told(model: Path, tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, pooled: torch.Tensor) -> torch.Tensor:
            return pooled if pooled.sum() > 0 else -pooled

    embedder, _, _ = classifier.load(model / "classifier")
    with pytest.raises(JobError, match="PyTorch cannot write a bert classifier as ONNX"):
        graph._trace(embedder, Odd(), tmp_path / "model.onnx")


def test_what_cannot_be_done_is_told_before_anything_is(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match="has no folder classifier"):
        job.export(settings(model / "encoder", tmp_path))
    push = {"repo": "us/classifier", "encoder_repo": "us/encoder"}
    (tmp_path / "model" / "classifier").mkdir(parents=True)
    with pytest.raises(JobError, match="has no folder encoder"):
        job.export(settings(tmp_path / "model", tmp_path, push=push), dry_run=True)
    sums.seal(model / "encoder")
    with (model / "encoder" / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(JobError, match=r"does not fit its SHA256SUMS: model\.safetensors"):
        job.export(settings(model, tmp_path, push=push))
    assert [parcel.repo for parcel in hub.parcels(Push(repo="us/classifier"), model)] == ["us/classifier"]
    monkeypatch.setattr(job, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match=r'needs no_such_package; run: pip install "threephase-ray\[onnx\]"'):
        job.export(settings(model, tmp_path))
    assert not (tmp_path / "store" / "exports").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--onnx", "null"], "one of them must be asked for"),
        (["--push", "{}"], "needs `repo` or `encoder_repo`"),
        (["--push.repo", "alone"], "push.repo: needs owner/name"),
        (["--push.repo", "us/a/b"], "push.repo: needs owner/name"),
        (["--push.encoder_repo", "us/a--b"], "push.encoder_repo: "),
        (["--push.token", "secret"], "push.token: no such knob"),
    ],
)
def test_wrong_knobs_are_told(flags: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        command.read([], ["--name", "a", "--model", "b", *flags], ExportConfig)


def test_texts_come_from_files_or_from_a_passage(tmp_path: Path) -> None:
    own = texts(Onnx())
    lengths = [len(text.split()) for text in own]
    assert lengths == sorted(set(lengths))
    assert lengths[0] == 1 < 100 < lengths[-2]
    assert lengths[-1] > 4096
    tiny.write_csv(tmp_path / "some.csv", [("one", 1), ("", 2), ("two", 3), ("three", 4)], ["said", "id"])
    source = {"files": str(tmp_path / "some.csv"), "text_column": "said"}
    assert texts(Onnx(texts=source, rows=2)) == ["one", "two"]
    (tmp_path / "some.jsonl").write_text(json.dumps({"said": " "}))
    with pytest.raises(DataError, match="holds no text"):
        texts(Onnx(texts=source | {"files": str(tmp_path / "some.jsonl")}))
