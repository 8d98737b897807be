"""Texts scored in bulk: as the trained model scores them, in whatever batches and pieces; what is written beside them."""

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.unit import test_export, tiny, tiny_models
from threephase_ray import export, pretrained, sources
from threephase_ray.errors import ConfigError, DataError, JobError
from threephase_ray.models import Classifier, restore
from threephase_ray.predicting import PredictConfig
from threephase_ray.predictions import fetching, job, rows, work
from threephase_ray.predictions.classifier import TextClassifier
from threephase_ray.results import Store

CPU = torch.device("cpu")
LONG = 12  # tokens of a text at most
TEXTS = [text for text, _ in tiny_models.texts(30, longest=30, seed=5)]


@pytest.fixture(scope="module", params=["cls", "mean"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classifier, Path]:
    """A run's `model` folder, the classifier in it as it was trained, and the tokenizer's folder: stock with `cls`, else not."""
    folder = tmp_path_factory.mktemp(request.param)
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert").model_copy(update={"pooling": request.param})
    data, config = tiny_models.prepared(folder, encoder), tiny_models.configured(encoder)
    tiny_models.trained("contrastive", config, data, None, folder / "two")
    tiny_models.trained("finetune", config, data, folder / "two", folder / "three")
    words = data.folder / "tokenizer"
    kind = export.export_classifier(folder / "three", words, data.label_names, LONG, folder / "model" / "classifier")
    export.export_encoder(folder / "three", words, LONG, folder / "model" / "encoder")
    assert kind == {"cls": "transformers", "mean": "sentence-transformers"}[request.param]
    model = restore(folder / "three")
    assert isinstance(model, Classifier)
    return folder / "model", model.eval(), folder / "checkpoint"


def naive(model: Classifier, ids: list[int]) -> np.ndarray:
    """Probabilities of one text, alone."""
    batch = torch.tensor([ids])
    with torch.no_grad():
        logits: Tensor = model(batch, torch.ones_like(batch, dtype=torch.bool))
    return logits.softmax(dim=-1)[0].numpy()


def tokens(checkpoint: Path, text: str) -> list[int]:
    words, _ = pretrained.load_tokenizer(tiny_models.Encoder(path=str(checkpoint)))
    return list(words(text)["input_ids"])


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert", "mpnet", "deberta-v2"])
def test_stock_classifiers_of_every_family_are_understood(family: str, tmp_path: Path) -> None:
    folder = test_export.finished(tmp_path, family, "cls", pretrained.STOCK_HEADS[family].activation)
    export.export_classifier(folder, tmp_path / "checkpoint", test_export.LABELS, LONG, tmp_path / "model" / "classifier")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model" / "classifier").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "model" / "classifier")(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits.softmax(dim=-1).numpy()
    classifier = TextClassifier(tmp_path / "model", CPU, tokens=50)
    assert np.allclose(classifier.score(TEXTS).probabilities, expected, atol=1e-5)
    assert classifier.labels == test_export.LABELS


@pytest.mark.parametrize("budget", [LONG, 40, 8192])
def test_scores_are_those_of_the_trained_model(run: tuple[Path, Classifier, Path], budget: int) -> None:
    folder, model, checkpoint = run
    found = TextClassifier(folder, CPU, tokens=budget).score([*TEXTS, *TEXTS[:3]])
    expected = []
    for text in [*TEXTS, *TEXTS[:3]]:
        ids = tokens(checkpoint, text)
        expected.append(naive(model, ids if len(ids) <= LONG else [*ids[: LONG - 1], ids[-1]]))
    assert np.allclose(found.probabilities, np.stack(expected), atol=1e-6)
    assert found.embeddings is None


def test_bfloat16_is_near(run: tuple[Path, Classifier, Path]) -> None:
    exact, near = (TextClassifier(run[0], CPU, precision=precision).score(TEXTS).probabilities for precision in ("fp32", "bf16"))
    assert 0 < abs(exact - near).max() < 0.05


def test_long_texts_are_the_mean_of_their_pieces_by_length(run: tuple[Path, Classifier, Path]) -> None:
    folder, model, checkpoint = run
    found = TextClassifier(folder, CPU).score(TEXTS, split=True)
    lengths = set()
    for text, probabilities in zip(TEXTS, found.probabilities, strict=True):
        begin, *inner, end = tokens(checkpoint, text)
        pieces = [[begin, *inner[i : i + LONG - 2], end] for i in range(0, len(inner), LONG - 2)]
        lengths.add(len(pieces))
        expected = np.average([naive(model, piece) for piece in pieces], axis=0, weights=[len(piece) for piece in pieces])
        assert np.allclose(probabilities, expected, atol=1e-6)
    assert len(lengths) > 1


def test_embeddings_are_those_of_the_exported_encoder(run: tuple[Path, Classifier, Path]) -> None:
    folder, _, _ = run
    found = TextClassifier(folder, CPU, embeds=True).score(TEXTS).embeddings
    expected = SentenceTransformer(str(folder / "encoder"), device="cpu").encode(TEXTS)
    assert found is not None
    assert np.allclose(found, expected, atol=1e-5)


def test_a_batch_holds_no_more_tokens_than_asked(run: tuple[Path, Classifier, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, sizes = TextClassifier(run[0], CPU, tokens=40), []
    padded = classifier._padded
    monkeypatch.setattr(classifier, "_padded", lambda pieces: (sizes.append(len(pieces) * len(pieces[-1])), padded(pieces))[1])
    classifier.score(TEXTS)
    assert max(sizes) <= 40
    assert len(sizes) > 5


def test_nothing_to_score_gives_nothing(run: tuple[Path, Classifier, Path]) -> None:
    found = TextClassifier(run[0], CPU).score([])
    assert found.probabilities.shape == (0, 3)


def settings(folder: Path, place: Path, **knobs: object) -> PredictConfig:
    given = {"name": "some", "store": str(place / "store"), "model": str(folder), "input": {"files": str(place / "texts.jsonl")}}
    return PredictConfig(**(given | knobs))


def written(place: Path, texts: list[object]) -> sources.File:
    place.mkdir(exist_ok=True)
    (place / "texts.jsonl").write_text("\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)))
    (file,) = sources.files(str(place / "texts.jsonl"), "input.files")
    return file


def scored(config: PredictConfig, file: sources.File) -> list[dict]:
    shards = rows.shards(file, 100, "text", "utf-8")
    made = [work.Scorer(config.model_dump(mode="json"), "predictions/some", [shards]).scored(table, shards[0])[0]
            for _, table in rows.tables(file, shards, "utf-8")]  # fmt: skip
    return pa.concat_tables(made).to_pylist()


def test_rows_that_cannot_be_scored_have_no_label_and_say_why(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    file = written(tmp_path, ["ball team", None, "  ", "caf\ufffd", "bank stock"])
    found = scored(settings(run[0], tmp_path), file)
    assert [row["predicted_state"] for row in found] == ["scored", "empty", "empty", "undecodable", "scored"]
    assert [row["predicted_label"] is None for row in found] == [False, True, True, True, False]
    assert [row["predicted_probability"] is None for row in found] == [False, True, True, True, False]
    assert [row["id"] for row in found] == [0, 1, 2, 3, 4]
    assert set(found[0]) == {"id", "text", "predicted_label", "predicted_probability", "predicted_state"}


def test_top_labels_come_in_order_and_the_first_is_the_label(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    file = written(tmp_path, [*TEXTS, None])
    for top, count in ((2, 2), (None, 3)):
        found = scored(settings(run[0], tmp_path, output={"top": top, "embedding": True}), file)
        assert found[-1]["predicted_labels"] is found[-1]["predicted_embedding"] is None
        for row in found[:-1]:
            assert len(row["predicted_labels"]) == len(row["predicted_probabilities"]) == count
            assert row["predicted_probabilities"] == sorted(row["predicted_probabilities"], reverse=True)
            assert row["predicted_labels"][0] == row["predicted_label"]
            assert row["predicted_probabilities"][0] == row["predicted_probability"]
            assert len(row["predicted_embedding"]) == 16


def test_below_the_threshold_there_is_no_label_but_a_probability(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    file = written(tmp_path, list(TEXTS))
    plain = scored(settings(run[0], tmp_path), file)
    middle = sorted(row["predicted_probability"] for row in plain)[15]
    found = scored(settings(run[0], tmp_path, output={"abstain_below": middle}), file)
    for before, after in zip(plain, found, strict=True):
        unsure = before["predicted_probability"] < middle
        assert after["predicted_label"] == (None if unsure else before["predicted_label"])
        assert after["predicted_state"] == ("abstained" if unsure else "scored")
        assert after["predicted_probability"] == before["predicted_probability"]
    assert sum(row["predicted_state"] == "abstained" for row in found) == 15


def test_a_shard_is_written_alike_each_time_with_its_record_behind_it(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    file, config = written(tmp_path, [*TEXTS, None]), settings(run[0], tmp_path)
    shards = rows.shards(file, 20, "text", "utf-8")
    contents = []
    for _ in range(2):
        records = list(work.Scorer(config.model_dump(mode="json"), "predictions/some", [shards]).perform(shards))
        contents.append([(tmp_path / "store/predictions/some" / f"{work.file_name(shard)}.parquet").read_bytes() for shard in shards])
    assert contents[0] == contents[1]
    assert [record["rows"] for record in records] == [20, 11]
    assert records[1]["states"] == {"scored": 10, "empty": 1}
    assert [row["id"] for row in pq.read_table(io.BytesIO(contents[0][1])).to_pylist()] == list(range(20, 31))
    assert job.finished(Store(config.store, config.scratch), "predictions/some") == {work.file_name(shard) for shard in shards}


def test_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder in "ab":
        tiny.write_csv(tmp_path / folder / "texts.csv", tiny.rows())
    shards = [shard for file in sources.files(str(tmp_path), "input.files") for shard in rows.shards(file, 7, "text", "utf-8")]
    names = [work.file_name(shard) for shard in shards]
    assert len(set(names)) == len(names) == 6


def test_a_column_that_would_be_hidden_is_refused(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "some.csv", [("a", "b")], ["text", "predicted_label"])
    config = settings(run[0], tmp_path, input={"files": str(tmp_path / "some.csv")})
    with pytest.raises(DataError, match="has the column 'predicted_label' already"):
        job.predict(config)
    job.predict(config.model_copy(update={"output": config.output.model_copy(update={"prefix": "new_"})}), dry_run=True)


def test_results_of_something_else_are_not_mixed(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    config = settings(run[0], tmp_path)
    file = written(tmp_path, list(TEXTS))
    store = Store(config.store, config.scratch)
    job.begin(config, store, "predictions/some", [file])
    job.begin(config, store, "predictions/some", [file])  # the same: goes on
    with pytest.raises(ConfigError, match="results of other knobs"):
        job.begin(settings(run[0], tmp_path, long_texts="split"), store, "predictions/some", [file])
    with pytest.raises(ConfigError, match="results of other files"):
        job.begin(config, store, "predictions/some", [written(tmp_path, ["another"])])


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no folder classifier"):
        fetching.fetched(str(tmp_path), str(tmp_path / "scratch"))
    with pytest.raises(JobError, match="cannot be fetched"):
        fetching.fetched("memory://nowhere/model", str(tmp_path / "scratch"))


def test_a_model_behind_a_uri_is_copied_once_and_again_when_it_changes(run: tuple[Path, Classifier, Path], tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.put(str(run[0]), "/runs/model", recursive=True)
    place = fetching.fetched("memory://runs/model", str(tmp_path))
    assert fetching.fingerprint(place) == fetching.fingerprint(run[0])
    made = place.stat().st_mtime_ns
    assert fetching.fetched("memory://runs/model", str(tmp_path)) == place
    assert place.stat().st_mtime_ns == made
    system.pipe("/runs/model/classifier/README.md", b"another")
    assert fetching.fetched("memory://runs/model", str(tmp_path)) != place
    system.rm("/runs", recursive=True)
