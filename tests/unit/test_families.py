import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit import tiny_models
from tests.unit.tiny_models import FAMILIES
from threephase_ray import planning, pretrained
from threephase_ray.config import Encoder
from threephase_ray.errors import ConfigError
from threephase_ray.models import Classifier, Embedder, TiedDecoder, restore
from threephase_ray.phases import dae

TIED = ("bert", "roberta", "electra")  # families whose causal class has cross-attention
BOTH = frozenset({"bottleneck", "projection"})
LAYERS = {  # of each objective the chain of phases, and the layers that each hands over
    "denoising": {"dae": {"bottleneck"}, "contrastive": BOTH, "joint": BOTH, "finetune": BOTH},
    "mlm": {"dae": set(), "joint": BOTH, "finetune": BOTH},
}


@pytest.mark.parametrize("objective", LAYERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_phase_trains_and_hands_its_weights_on(family: str, objective: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    data = tiny_models.prepared(tmp_path, encoder)
    config = tiny_models.configured(encoder, dae={"objective": objective})
    previous = None
    for name, layers in LAYERS[objective].items():
        phase, model, outcome = tiny_models.trained(name, config, data, previous, tmp_path / name)
        previous = tmp_path / name
        restored = restore(previous)
        assert all(math.isfinite(loss) for loss in outcome.losses)
        assert len(outcome.losses) == 3
        assert all_equal(restored, outcome.weights)
        if outcome.best_step == outcome.steps:
            assert all_equal(phase.hand_over(model), outcome.weights)
        embedder = restored.embedder if isinstance(restored, Classifier) else restored
        assert set(embedder.layers) == layers
        assert changed(embedder, encoder)
    assert isinstance(restored, Classifier)
    assert restored.head.out.out_features == data.classes


def all_equal(model: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    """Whether the model holds exactly these tensors."""
    state = model.state_dict()
    return state.keys() == weights.keys() and all(torch.equal(state[name], weights[name]) for name in state)


def changed(embedder: Embedder, encoder: Encoder) -> bool:
    """Whether training moved the encoder away from its checkpoint."""
    before = pretrained.pretrained(encoder).encoder.state_dict()
    return any(not torch.equal(before[name], tensor) for name, tensor in embedder.encoder.state_dict().items())


@pytest.mark.parametrize("family", ["bert", "distilbert"])  # a tied and a fresh decoder
def test_reconstruction_learns(family: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    data = tiny_models.prepared(tmp_path, encoder)
    config = tiny_models.configured(encoder, dae={"steps": 40, "learning_rate": 1e-2})
    _, _, outcome = tiny_models.trained("dae", config, data, None, tmp_path / "dae")
    assert np.mean(outcome.losses[-5:]) < 0.9 * np.mean(outcome.losses[:5])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_shares_the_encoders_weights(family: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    embedder = pretrained.pretrained(encoder)
    before = {name: tensor.clone() for name, tensor in embedder.encoder.state_dict().items()}
    decoder = pretrained.decoder(encoder, embedder, "auto", layers=1)
    own = {id(parameter) for parameter in decoder.parameters()}
    shared = [name for name, parameter in embedder.encoder.named_parameters() if id(parameter) in own]
    assert all(torch.equal(before[name], tensor) for name, tensor in embedder.encoder.state_dict().items())
    if family in TIED:
        assert len(shared) == len(list(embedder.encoder.named_parameters()))
    else:
        assert [embedder.encoder.get_parameter(name).shape[0] for name in shared] == [len(tiny_models.tokenizer(family))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_masked_language_model_shares_the_encoder(family: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    embedder = pretrained.pretrained(encoder)
    model = pretrained.masked_lm(encoder, embedder)
    assert {id(parameter) for parameter in embedder.encoder.parameters()} <= {id(parameter) for parameter in model.parameters()}
    assert model.get_output_embeddings().weight is embedder.encoder.get_input_embeddings().weight


def test_a_phase_after_another_starts_from_its_weights_with_a_tied_decoder(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    data = tiny_models.prepared(tmp_path, encoder)
    config = tiny_models.configured(encoder)
    tiny_models.trained("contrastive", config, data, None, tmp_path / "first")
    first = restore(tmp_path / "first").state_dict()
    model = dae.phase(config, data).model(tmp_path / "first")
    assert isinstance(model, dae.Autoencoder)
    assert isinstance(model.decoder, TiedDecoder)
    assert all(torch.equal(first[name], tensor) for name, tensor in model.embedder.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_can_be_set_everywhere(family: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family).model_copy(update={"dropout": 0.37})
    embedder = pretrained.pretrained(encoder)
    network = dae.Autoencoder(embedder, pretrained.decoder(encoder, embedder, "auto", layers=1))
    rates = {module.p for module in network.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.37}


@pytest.mark.parametrize(
    ("family", "knobs", "reason"),
    [
        ("distilbert", {"decoder": "tied"}, "no causal class with cross-attention"),
        ("modernbert", {"decoder": "tied"}, "no causal class with cross-attention"),
        ("electra", {"decoder": "fresh"}, "another size"),
        ("canine", {"objective": "mlm"}, "no masked-language-model class"),
        ("t5", {}, "an encoder such as BERT or RoBERTa is needed"),
    ],
)
def test_what_a_family_cannot_do_is_refused_from_its_config_alone(family: str, knobs: dict[str, str], reason: str, tmp_path: Path) -> None:
    facts = {"model_type": family, "embedding_size": 8, "is_encoder_decoder": family == "t5"}
    (tmp_path / "config.json").write_text(json.dumps(facts))  # no weights: nothing could be built
    config = tiny_models.configured(Encoder(path=str(tmp_path)), dae=knobs)
    with pytest.raises(ConfigError, match=reason):
        planning.check(config)
