from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.unit import tiny_models
from threephase_ray import pretrained
from threephase_ray.config import FineTune
from threephase_ray.models import Classifier, Head
from threephase_ray.phases import dae
from threephase_ray.phases.spec import parameter_groups

RATE, HEAD_RATE, DECAY = 1e-3, 1e-2, 0.5
LAYERS = {  # what the two layers' parameters are called, and what follows on them
    "bert": ("encoder.layer.{}.", ()),
    "roberta": ("encoder.layer.{}.", ()),
    "electra": ("encoder.layer.{}.", ()),
    "distilbert": ("transformer.layer.{}.", ()),
    "mpnet": ("encoder.layer.{}.", ()),
    "deberta-v2": ("encoder.layer.{}.", ()),
    "modernbert": ("layers.{}.", ("final_norm.",)),
}


def classifier(folder: Path, family: str) -> Classifier:
    """A tiny checkpoint with two layers and a head on it."""
    embedder = pretrained.pretrained(tiny_models.checkpoint(folder, family)).add("bottleneck")
    return Classifier(embedder, Head(embedder.hidden_size, 3, "tanh", 0.0))


def rates(groups: list[dict[str, Any]], model: nn.Module) -> dict[str, float]:
    """Learning rate of each parameter by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("family", LAYERS)
def test_rates_fall_from_layer_to_layer(family: str, tmp_path: Path) -> None:
    model = classifier(tmp_path, family)
    place, after = LAYERS[family]
    knobs = FineTune(learning_rate=RATE, head_learning_rate=HEAD_RATE, layer_decay=DECAY)
    found = rates(parameter_groups(model, model.embedder.encoder, knobs), model)
    assert found.keys() == dict(model.named_parameters()).keys()
    beside = set()
    for name, rate in found.items():
        own = name.removeprefix("embedder.encoder.")
        if own == name:
            assert rate == HEAD_RATE, name
        elif own.startswith((place.format(1), *after)):
            assert rate == RATE, name
        elif own.startswith(place.format(0)):
            assert rate == RATE * DECAY, name
        else:
            assert rate == RATE * DECAY**2, name
            beside.add(own.split(".")[0] if own.startswith("embed") else own)
    expected = {
        "electra": {"embeddings", "embeddings_project"},
        "mpnet": {"embeddings", "encoder.relative_attention_bias.weight"},
        "deberta-v2": {"embeddings", "encoder.rel_embeddings.weight"},
    }
    assert beside == expected.get(family, {"embeddings"})


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_without_decay_there_are_the_groups_of_two_rates(family: str, tmp_path: Path) -> None:
    model = classifier(tmp_path, family)
    groups = parameter_groups(model, model.embedder.encoder, FineTune(learning_rate=RATE, head_learning_rate=HEAD_RATE))
    assert len(groups) == 4
    for group in groups:
        assert group["weight_decay"] == (0.01 if group["params"][0].ndim > 1 else 0.0)
        assert len({parameter.ndim > 1 for parameter in group["params"]}) == 1
    of_encoder = {name for name, rate in rates(groups, model).items() if rate == RATE}
    assert of_encoder == {name for name, _ in model.named_parameters() if name.startswith("embedder.encoder.")}


def test_a_frozen_encoder_has_no_group(tmp_path: Path) -> None:
    model = classifier(tmp_path, "bert")
    model.embedder.requires_grad_(False)
    groups = parameter_groups(model, model.embedder.encoder, FineTune(layer_decay=DECAY))
    assert set(rates(groups, model)) == {name for name, _ in model.named_parameters() if name.startswith("head.")}


def test_a_decoder_that_shares_the_encoders_weights_learns_at_their_rates(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    knobs = {"learning_rate": RATE, "head_learning_rate": HEAD_RATE, "layer_decay": DECAY}
    phase = dae.phase(tiny_models.configured(encoder, dae=knobs), tiny_models.prepared(tmp_path, encoder))
    model = phase.model(None)
    found = rates(phase.groups(model), model)
    assert len(found) == sum(len(group["params"]) for group in phase.groups(model)) == len(list(model.parameters()))
    top = model.decoder.causal.bert.encoder.layer[1]
    assert top.attention.self.query.weight is model.embedder.encoder.encoder.layer[1].attention.self.query.weight
    by_id = {id(parameter): group["lr"] for group in phase.groups(model) for parameter in group["params"]}
    assert by_id[id(top.attention.self.query.weight)] == RATE
    assert by_id[id(top.crossattention.self.query.weight)] == HEAD_RATE
    assert by_id[id(model.decoder.unembedding.weight)] == RATE * DECAY**2


def test_a_step_moves_each_layer_as_its_rate_says(tmp_path: Path) -> None:
    """AdamW's first step is the learning rate in size, so that the rates show in the weights."""
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    data = tiny_models.prepared(tmp_path, encoder)
    knobs = {"steps": 1, "warmup_share": 0.0, "learning_rate": RATE, "layer_decay": 0.1, "weight_decay": 0.0, "validations": 1}
    _, model, _ = tiny_models.trained("finetune", tiny_models.configured(encoder, finetune=knobs), data, None, tmp_path / "out")
    before = pretrained.pretrained(encoder).encoder
    moves = [
        float((after - start).detach().abs().median())
        for after, start in (
            (model.embedder.encoder.encoder.layer[i].output.dense.weight, before.encoder.layer[i].output.dense.weight) for i in (0, 1)
        )
    ]
    assert moves == pytest.approx([RATE * 0.1, RATE], rel=0.05)
