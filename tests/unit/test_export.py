import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from tests.unit import tiny_models
from threephase_ray import export, pretrained, shards
from threephase_ray.models import Classifier, Head, restore, save

LABELS = ["sport", "money", "food & drink"]
MAX_LENGTH = 16
TEXTS = [text for text, _ in tiny_models.texts(24, longest=30)]  # many are longer than 16 tokens


def finished(folder: Path, family: str, pooling: str, activation: str | None) -> Path:
    """A random classifier as phase 3 leaves it, with random bottleneck and projection."""
    encoder = tiny_models.checkpoint(folder / "checkpoint", family).model_copy(update={"pooling": pooling})
    embedder = pretrained.pretrained(encoder).add("bottleneck").add("projection")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Classifier(embedder, Head(embedder.hidden_size, len(LABELS), activation, dropout=0.1))
        for layer in (*embedder.layers.values(), *(part for part in (model.head.dense, model.head.out))):
            for parameter in layer.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    (folder / "finished").mkdir()
    save(model, model.state_dict(), folder / "finished")
    return folder / "finished"


def classifier_of_a_run(folder: Path) -> Path:
    """A `model` folder as a run exports it, with a small stock classifier."""
    export.export_classifier(
        finished(folder, "bert", "cls", "tanh"), folder / "checkpoint", LABELS, MAX_LENGTH, folder / "model" / "classifier"
    )
    return folder / "model"


def expected(folder: Path, words: PreTrainedTokenizerFast) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings [n, h] and logits [n, k] of the texts by our own tokenisation and model."""
    model = restore(folder).eval()
    assert isinstance(model, Classifier)
    embeddings, logits = [], []
    tokenizer = shards.plain(words)
    tokenizer.enable_truncation(MAX_LENGTH)
    for encoding in tokenizer.encode_batch(TEXTS):
        ids, mask = torch.tensor([encoding.ids]), torch.ones(1, len(encoding.ids), dtype=torch.bool)
        with torch.no_grad():
            embeddings.append(model.embedder(ids, mask).numpy())
            logits.append(model(ids, mask).numpy())
    return np.concatenate(embeddings), np.concatenate(logits)


def stock_logits(folder: Path) -> NDArray[np.float32]:
    """Logits [n, k] of the texts as a stranger computes them, in one padded batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] == MAX_LENGTH
    with torch.no_grad():
        return model(**batch).logits.numpy()


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2"])
def test_a_stock_classifier_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    folder = finished(tmp_path, family, "cls", pretrained.STOCK_HEADS[family].activation)
    assert export.export_classifier(folder, tmp_path / "checkpoint", LABELS, MAX_LENGTH, tmp_path / "out") == "transformers"
    _, logits = expected(folder, tiny_models.tokenizer(family))
    assert logits.std(axis=0).max() > 0.05  # texts differ, so the comparison means something
    np.testing.assert_allclose(stock_logits(tmp_path / "out"), logits, atol=1e-5)
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {name: number for number, name in enumerate(LABELS)}


@pytest.mark.parametrize(
    ("family", "pooling", "activation"),
    [("bert", "mean", "gelu"), ("bert", "cls", None), ("roberta", "mean", None), ("modernbert", "cls", "gelu"), ("mpnet", "mean", "gelu")],
)
def test_what_no_stock_class_expresses_becomes_a_sentence_transformer(
    family: str, pooling: str, activation: str | None, tmp_path: Path
) -> None:
    folder = finished(tmp_path, family, pooling, activation)
    assert export.export_classifier(folder, tmp_path / "checkpoint", LABELS, MAX_LENGTH, tmp_path / "out") == "sentence-transformers"
    _, logits = expected(folder, tiny_models.tokenizer(family))
    assert logits.std(axis=0).max() > 0.05  # texts differ, so the comparison means something
    np.testing.assert_allclose(stock_encoding(tmp_path / "out"), logits, atol=1e-5)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == LABELS


def stock_encoding(folder: Path) -> NDArray[np.float32]:
    """What a stock `SentenceTransformer` gives for the texts."""
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=False)
    assert model.max_seq_length == MAX_LENGTH
    return model.encode(TEXTS, batch_size=7)


@pytest.mark.parametrize(("pooling", "activation"), [("cls", "tanh"), ("cls", None), ("mean", "gelu")])
@pytest.mark.parametrize("temperature", [0.3, 7.0])
def test_a_temperature_is_part_of_the_weights(pooling: str, activation: str | None, temperature: float, tmp_path: Path) -> None:
    folder = finished(tmp_path, "bert", pooling, activation)
    kind = export.export_classifier(folder, tmp_path / "checkpoint", LABELS, MAX_LENGTH, tmp_path / "out", temperature)
    _, logits = expected(folder, tiny_models.tokenizer("bert"))
    found = (stock_logits if kind == "transformers" else stock_encoding)(tmp_path / "out")
    np.testing.assert_allclose(softmax(found, axis=1), softmax(logits.astype(np.float64) / temperature, axis=1), atol=1e-6)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["calibration_temperature"] == temperature


@pytest.mark.parametrize(("family", "pooling"), [*zip(tiny_models.FAMILIES, ["cls", "mean"] * 4, strict=False), ("bert", "mean")])
def test_an_encoder_gives_the_same_embeddings(family: str, pooling: str, tmp_path: Path) -> None:
    folder = finished(tmp_path, family, pooling, "gelu")
    export.export_encoder(folder, tmp_path / "checkpoint", MAX_LENGTH, tmp_path / "out")
    embeddings, _ = expected(folder, tiny_models.tokenizer(family))
    assert embeddings.std(axis=0).min() > 0.01
    np.testing.assert_allclose(stock_encoding(tmp_path / "out"), embeddings, atol=1e-5 * np.abs(embeddings).max())


def test_an_encoder_without_layers_has_no_dense_module(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    embedder = pretrained.pretrained(encoder)
    (tmp_path / "finished").mkdir()
    save(embedder, embedder.state_dict(), tmp_path / "finished")
    export.export_encoder(tmp_path / "finished", tmp_path / "checkpoint", MAX_LENGTH, tmp_path / "out")
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling"]
    assert {module["type"].split(".")[0] for module in modules} == {"sentence_transformers"}


def test_folders_hold_safetensors_and_no_trace_of_where_they_were_made(tmp_path: Path) -> None:
    folder = finished(tmp_path, "bert", "cls", "tanh")
    for kind, out in (("encoder", tmp_path / "a" / "encoder"), ("classifier", tmp_path / "a" / "classifier")):
        if kind == "encoder":
            export.export_encoder(folder, tmp_path / "checkpoint", MAX_LENGTH, out)
        else:
            export.export_classifier(folder, tmp_path / "checkpoint", LABELS, MAX_LENGTH, out)
        files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
        assert Path("model.safetensors") in files
        assert not {path.suffix for path in files.values()} & {".bin", ".pt", ".pkl", ".py"}
        texts = [path.read_text() for path in files.values() if path.suffix in (".json", ".md")]
        assert not any(str(tmp_path) in text for text in texts)


def test_a_stock_load_finds_every_tensor_and_no_other(tmp_path: Path) -> None:
    folder = finished(tmp_path, "bert", "cls", "tanh")
    export.export_classifier(folder, tmp_path / "checkpoint", LABELS, MAX_LENGTH, tmp_path / "out")
    _, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())


def test_an_export_replaces_an_older_one_and_a_failure_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = finished(tmp_path, "bert", "cls", "tanh"), tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(RuntimeError):
        export.export_classifier(folder, tmp_path / "checkpoint", LABELS[:2], MAX_LENGTH, out)  # three logits, two names
    assert [path.name for path in out.iterdir()] == ["old"]
    export.export_classifier(folder, tmp_path / "checkpoint", LABELS, MAX_LENGTH, out)
    assert not (out / "old").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_fold_equals_the_layers_in_turn() -> None:
    layers = [torch.nn.Linear(size, other).double() for size, other in ((5, 7), (7, 3), (3, 4))]
    texts = torch.randn(11, 5, dtype=torch.float64)
    weight, bias = export.fold(layers)
    torch.testing.assert_close(texts @ weight.double().T + bias.double(), torch.nn.Sequential(*layers)(texts), atol=1e-6, rtol=0)


def test_every_stock_class_exists_with_its_head() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40}
    for family, head in pretrained.STOCK_HEADS.items():
        config = AutoConfig.for_model(family, **small if family != "distilbert" else tiny_models.FAMILIES[family], num_labels=3)
        stock = AutoModelForSequenceClassification.from_config(config)
        assert stock.get_submodule(head.dense).weight.shape == (16, 16), family
        assert stock.get_submodule(head.out).weight.shape == (3, 16), family
