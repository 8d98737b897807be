"""Packed equals padded: outputs and gradients, for every family that can; and no text sees another one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit import tiny_models
from threephase_ray import packing, pretrained
from threephase_ray.models import Embedder

CAN = sorted(set(tiny_models.FAMILIES) & packing.FAMILIES)
LENGTHS = (3, 17, 9, 1, 12)


def embedder(folder: Path, family: str, pooling: str = "mean", **changes: object) -> Embedder:
    found = pretrained.start(tiny_models.checkpoint(folder, family, **changes).model_copy(update={"pooling": pooling}), None)
    return found.eval()


def batch(family: str) -> tuple[Tensor, Tensor]:
    words = tiny_models.tokenizer(family)
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, len(words), mask.shape, generator=generator)
    return ids.masked_fill(~mask, int(words.pad_token_id)), mask


def outcome(model: Embedder, ids: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings, and the gradient of each parameter."""
    model.zero_grad()
    found = model(ids, mask)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    return found.detach(), {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def keeps_apart(model: Embedder, ids: Tensor, mask: Tensor) -> Tensor:
    """Embeddings after the second text was turned round, which moved those of no other."""
    before = model(ids, mask)
    ids[1, :17] = ids[1, :17].flip(0)
    after = model(ids, mask)
    others = [0, 2, 3, 4]
    assert torch.equal(before[others], after[others])
    assert not torch.allclose(before[1], after[1], atol=1e-3)
    return after


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", CAN)
def test_packed_equals_padded(tmp_path: Path, family: str, pooling: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family, pooling), batch(family)
    assert model.packs
    packed, gradients = outcome(model, ids, mask)
    model.packs = False
    padded, expected = outcome(model, ids, mask)
    scale = max(float(each.abs().max()) for each in expected.values())
    assert torch.allclose(packed, padded, atol=1e-6, rtol=0)
    assert gradients.keys() == expected.keys()
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-6 * scale, rtol=1e-5) for name in expected)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("family", CAN)
def test_a_shortened_encoder_gives_the_same_first_tokens(tmp_path: Path, family: str, packs: bool) -> None:
    model, (ids, mask) = embedder(tmp_path, family, "cls"), batch(family)
    model.packs = packs
    expected, seen = model(ids, mask), []
    packing.shorten(model.encoder)
    for name, module in model.encoder.named_modules():
        if name.endswith("intermediate"):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:-1].numel()))
    assert torch.allclose(model(ids, mask), expected, atol=1e-6)
    if family not in ("distilbert", "modernbert"):
        assert seen == [sum(LENGTHS) if packs else ids.numel(), len(LENGTHS)]  # tokens in the first of two layers, texts in the last


def test_modernbert_looks_at_near_tokens_only_in_most_layers(tmp_path: Path) -> None:
    near = embedder(tmp_path / "near", "modernbert", local_attention=4, num_hidden_layers=3)
    far = embedder(tmp_path / "far", "modernbert", local_attention=64, num_hidden_layers=3)
    far.load_state_dict(near.state_dict())
    ids, mask = batch("modernbert")
    packed, _ = outcome(near, ids, mask)
    near.packs = False
    assert torch.allclose(packed, outcome(near, ids, mask)[0], atol=1e-6)
    assert not torch.allclose(packed, outcome(far, ids, mask)[0], atol=1e-3)  # so the window was there


@pytest.mark.parametrize("family", CAN)
def test_no_text_sees_another(tmp_path: Path, family: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family), batch(family)
    after = keeps_apart(model, ids, mask)
    alone = model(ids[2:3, :9], mask[2:3, :9])
    assert torch.allclose(alone[0], after[2], atol=1e-6)


def test_the_padding_is_not_passed(tmp_path: Path) -> None:
    model, (ids, mask) = embedder(tmp_path, "bert"), batch("bert")
    seen: list[int] = []
    model.encoder.encoder.layer[0].output.dense.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0][..., 0].numel()))
    model(ids, mask)
    assert seen == [sum(LENGTHS)]


@pytest.mark.parametrize("family", CAN)
def test_a_packed_decoder_equals_a_padded_one(tmp_path: Path, family: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family), batch(family)
    decoder = pretrained.decoder(tiny_models.checkpoint(tmp_path, family), model, "auto", layers=2).eval()
    assert decoder.packs
    memory = model(ids, mask).detach().requires_grad_()
    found = []
    for packs in (True, False):
        decoder.packs, memory.grad = packs, None
        decoder.zero_grad()
        states = decoder.states(memory, ids, mask)
        assert len(states) == sum(LENGTHS)
        states[:, 0].square().mean().backward()
        gradients = {name: each.grad.clone() for name, each in decoder.named_parameters() if each.grad is not None}
        found.append((states.detach(), memory.grad.clone(), gradients))
    (packed, to_memory, gradients), (padded, as_padded, expected) = found
    scale = max(float(each.abs().max()) for each in expected.values())
    assert torch.allclose(packed, padded, atol=2e-6 * float(padded.abs().max()), rtol=0)
    assert torch.allclose(to_memory, as_padded, atol=1e-6 * scale, rtol=1e-5)
    for name in expected:  # the queries and keys of a softmax over one have no effect, and so no gradient
        given = gradients.get(name, torch.zeros_like(expected[name]))
        assert torch.allclose(given, expected[name], atol=2e-6 * scale, rtol=1e-5), name


@pytest.mark.parametrize("family", sorted(set(tiny_models.FAMILIES) - packing.FAMILIES))
def test_other_families_stay_padded(tmp_path: Path, family: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family), batch(family)
    assert not model.packs
    assert model(ids, mask).shape == (5, 16)


def test_the_attention_is_not_saved(tmp_path: Path) -> None:
    model = embedder(tmp_path, "bert")
    model.encoder.config.save_pretrained(tmp_path / "saved")
    assert packing.NAME not in (tmp_path / "saved" / "config.json").read_text()
