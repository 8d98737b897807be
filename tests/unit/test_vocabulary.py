from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unit import tiny_models
from tests.unit.tiny_models import FAMILIES
from threephase_ray.phases import dae
from threephase_ray.vocabulary import Lookup, Uses


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True), strict=True))


@pytest.mark.parametrize("objective", ["denoising", "mlm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chain_of_uses_has_the_gradients_that_autograd_sums_up(family: str, objective: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    data = tiny_models.prepared(tmp_path, encoder)
    phase = dae.phase(tiny_models.configured(encoder, dae={"objective": objective}), data)
    network, step = phase.model(None).eval(), phase.steps(0)[0]
    batch = phase.collate(phase.train, step, step, 0)
    lookups = [module for module in network.modules() if isinstance(module, Lookup)]
    chained = phase.loss(network, batch)
    found = gradients(network, chained)
    for lookup in lookups:
        lookup._uses = Uses()  # never chained: a stock embedding
    apart = phase.loss(network, batch)
    expected = gradients(network, apart)
    assert lookups
    assert torch.equal(chained, apart)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_lookups_alone_and_unused_ones_and_padding() -> None:
    uses, table = Uses(), nn.Embedding(7, 3, padding_idx=2)
    lookup, tokens = Lookup(table, uses), torch.tensor([[1, 2, 1], [6, 2, 0]])
    factors = torch.randn(2, 3, 3)
    (expected,) = torch.autograd.grad((table(tokens) * factors).sum(), table.weight)
    with uses.chained(table.weight):
        rows = lookup(tokens)
        lookup(tokens)  # nothing comes of it
    (found,) = torch.autograd.grad((rows * factors).sum(), table.weight)
    assert torch.equal(found, expected)
    assert not found[2].any()
    assert uses.table is None
    assert torch.equal(lookup(tokens), F.embedding(tokens, table.weight))


def test_a_chain_ends_with_its_forward_pass_whatever_happens() -> None:
    uses, table = Uses(), nn.Embedding(7, 3)
    with pytest.raises(IndexError), uses.chained(table.weight):
        Lookup(table, uses)(torch.tensor([9]))
    assert uses.table is None


def test_a_lookup_is_its_stock_embedding_under_another_roof(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    network = dae.phase(tiny_models.configured(encoder), tiny_models.prepared(tmp_path, encoder)).model(None)
    assert isinstance(network, dae.Autoencoder)
    own, decoders = (part.get_input_embeddings() for part in (network.embedder.encoder, network.decoder.causal))
    assert isinstance(own, Lookup)
    assert isinstance(decoders, Lookup)
    assert own.weight is decoders.weight is network.decoder.unembedding.weight
