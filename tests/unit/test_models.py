import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from tests.unit import tiny_models
from threephase_ray import pretrained
from threephase_ray.config import Encoder
from threephase_ray.errors import ConfigError
from threephase_ray.models import Classifier, Embedder, Head, pool, restore, save


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return tiny_models.checkpoint(tmp_path / "checkpoint", "bert")


def some_tokens(rows: int = 3, length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Random token ids [n, t] and a mask with rows of different lengths."""
    lengths = torch.arange(length, length - rows, -1)
    return torch.randint(5, 30, (rows, length)), torch.arange(length) < lengths[:, None]


def test_pooling_takes_the_first_token_or_the_mean_of_those_present() -> None:
    states, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    assert torch.equal(pool(states, mask, "cls"), states[:, 0])
    for row, vector in enumerate(pool(states, mask, "mean")):
        torch.testing.assert_close(vector, states[row][mask[row]].mean(dim=0))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_changes_no_embedding(encoder: Encoder, pooling: str) -> None:
    embedder = pretrained.pretrained(encoder.model_copy(update={"pooling": pooling})).eval()
    ids, mask = some_tokens()
    together = embedder(ids, mask)
    for row in range(len(ids)):
        alone = embedder(ids[row : row + 1, mask[row]], mask[row : row + 1, mask[row]])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_a_new_layer_changes_no_embedding_and_is_added_once(encoder: Encoder) -> None:
    embedder = pretrained.pretrained(encoder).eval()
    ids, mask = some_tokens()
    before = embedder(ids, mask)
    assert torch.equal(embedder.add("bottleneck").add("projection")(ids, mask), before)
    layer = embedder.layers["bottleneck"]
    assert embedder.add("bottleneck").layers["bottleneck"] is layer
    assert list(embedder.layers) == ["bottleneck", "projection"]


@pytest.mark.parametrize("activation", [None, "tanh", "gelu"])
def test_a_saved_classifier_comes_back_bit_by_bit(encoder: Encoder, activation: str | None, tmp_path: Path) -> None:
    model = Classifier(pretrained.pretrained(encoder).add("bottleneck").add("projection"), Head(16, 3, activation, dropout=0.5)).eval()
    torch.nn.init.normal_(model.embedder.layers["bottleneck"].weight)
    (tmp_path / "saved").mkdir()
    save(model, model.state_dict(), tmp_path / "saved")
    back, (ids, mask) = restore(tmp_path / "saved").eval(), some_tokens()
    assert isinstance(back, Classifier)
    assert torch.equal(back(ids, mask), model(ids, mask))
    assert list(back.embedder.layers) == ["bottleneck", "projection"]
    assert all(tensor.dtype == torch.float32 for tensor in back.state_dict().values())
    assert restore(tmp_path / "saved", head_dropout=0.4).head.dropout.p == 0.4


def test_saved_weights_that_do_not_fit_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    embedder = pretrained.pretrained(encoder)
    (tmp_path / "saved").mkdir()
    save(embedder, dict(list(embedder.state_dict().items())[1:]), tmp_path / "saved")
    with pytest.raises(RuntimeError, match="Missing key"):
        restore(tmp_path / "saved")


def test_the_pretrained_weights_are_those_of_the_checkpoint(encoder: Encoder) -> None:
    stored = load_file(Path(encoder.path) / "model.safetensors")
    embedder = pretrained.pretrained(encoder)
    assert isinstance(embedder, Embedder)
    for name, tensor in embedder.encoder.state_dict().items():
        assert torch.equal(tensor, stored[f"bert.{name}"])
    assert not any("pooler" in name for name in embedder.encoder.state_dict())
    assert pretrained.parameter_count(encoder) == sum(tensor.numel() for tensor in stored.values())


def test_weights_in_half_precision_become_float32(encoder: Encoder) -> None:
    model = AutoModelForMaskedLM.from_pretrained(encoder.path, dtype=torch.bfloat16)
    model.save_pretrained(encoder.path)
    assert {tensor.dtype for tensor in pretrained.pretrained(encoder).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (None, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_is_the_checkpoints_own(encoder: Encoder, modes: dict[str, object] | None, expected: str) -> None:
    write_pooling(encoder, modes)
    assert pretrained.pooling(encoder) == expected
    assert pretrained.pretrained(encoder).pooling == expected
    assert pretrained.pooling(encoder.model_copy(update={"pooling": "mean"})) == "mean"


@pytest.mark.parametrize(
    "modes",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
    ],
)
def test_another_pooling_is_refused(encoder: Encoder, modes: dict[str, object]) -> None:
    write_pooling(encoder, modes)
    with pytest.raises(ConfigError, match=r"encoder\.pooling: .* choose one"):
        pretrained.pooling(encoder)


def write_pooling(encoder: Encoder, modes: dict[str, object] | None) -> None:
    """Make the checkpoint a sentence encoder's."""
    if modes is not None:
        (Path(encoder.path) / "1_Pooling").mkdir()
        (Path(encoder.path) / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def test_a_checkpoint_without_safetensors_is_refused(encoder: Encoder) -> None:
    weights = Path(encoder.path) / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    for read in (pretrained.fingerprint, pretrained.parameter_count):
        with pytest.raises(ConfigError, match=r"no model\.safetensors"):
            read(encoder)
    with pytest.raises((ConfigError, OSError), match=r"safetensors"):
        pretrained.pretrained(encoder)


def test_a_checkpoint_that_lacks_tensors_is_refused(encoder: Encoder) -> None:
    weights = Path(encoder.path) / "model.safetensors"
    stored = load_file(weights)
    del stored["bert.encoder.layer.1.output.dense.weight"]
    save_file(stored, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lack 1 tensors, among them encoder\.layer\.1\.output\.dense\.weight"):
        pretrained.pretrained(encoder)


def test_nothing_at_the_path_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.path: no usable model") as caught:
        pretrained.pretrained(Encoder(path=str(tmp_path / "nowhere")))
    assert len(str(caught.value).splitlines()) <= 15


def test_the_fingerprint_follows_weights_and_dropout(encoder: Encoder, tmp_path: Path) -> None:
    other = tiny_models.checkpoint(tmp_path / "other", "bert")
    assert pretrained.fingerprint(other) == pretrained.fingerprint(encoder)
    assert pretrained.fingerprint(other.model_copy(update={"dropout": 0.3})) != pretrained.fingerprint(encoder)
    stored = load_file(tmp_path / "other" / "model.safetensors")
    stored["bert.embeddings.LayerNorm.bias"] += 1
    save_file(stored, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    assert pretrained.fingerprint(other) != pretrained.fingerprint(encoder)


@pytest.mark.parametrize(("family", "limit"), [("bert", 40), ("roberta", 38), ("mpnet", 38), ("modernbert", 40)])
def test_the_longest_text_that_a_family_takes(family: str, limit: int, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path, family)
    assert pretrained.load_tokenizer(encoder)[1] == limit
    embedder = pretrained.pretrained(encoder)
    embedder(torch.full((1, limit), 7), torch.ones(1, limit, dtype=torch.bool))
    if family in tiny_models.PAD_IS_1:
        with pytest.raises((IndexError, RuntimeError), match="out of"):
            embedder(torch.full((1, limit + 1), 7), torch.ones(1, limit + 1, dtype=torch.bool))
