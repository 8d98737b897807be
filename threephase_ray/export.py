"""Finished models in stock formats, which load without this package: `SentenceTransformer`, `AutoModelForSequenceClassification`."""

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from threephase_ray import pretrained
from threephase_ray.models import Classifier, Embedder, restore, without_pooler

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}  # those that heads use
LABELS = "labels.json"


def export_encoder(finished: Path, tokenizer: Path, max_length: int, out: Path) -> None:
    """Write the embedder of a finished phase as a stock `SentenceTransformer`, whose `encode` gives its embeddings.

    Args:
        finished: folder that `models.save` wrote.
        tokenizer: folder of the tokenizer that made the data set.
        max_length: tokens after which texts are cut.
        out: folder to write, replaced where it exists.
    """
    model = restore(finished)
    embedder = model.embedder if isinstance(model, Classifier) else model
    layers = list(embedder.layers.values())
    with _replacing(out) as folder:
        _write_modules(embedder, [_dense(layers, nn.Identity())] if layers else [], _tokenizer(tokenizer, max_length), folder)


def export_classifier(
    finished: Path, tokenizer: Path, label_names: Sequence[str], max_length: int, out: Path, temperature: float = 1.0
) -> str:
    """Write the classifier of a finished phase 3 in a stock format, and return the library that loads it.

    "transformers": `AutoModelForSequenceClassification`, where the family's own head can express ours. Else
    "sentence-transformers": a `SentenceTransformer` that ends in the head, so that `encode` gives the logits; the names of
    the classes are in `labels.json`. Arguments as in `export_encoder`; `label_names` in the order of the logits, which are divided by
    `temperature` within the last layer. `config.json` tells of it.
    """
    model = restore(finished)
    assert isinstance(model, Classifier)
    _calibrate(model, temperature)
    words, pooling = _tokenizer(tokenizer, max_length), model.embedder.pooling
    config = cast(PreTrainedConfig, model.embedder.encoder.config)
    with _replacing(out) as folder:
        if pretrained.stock(config, pooling) and model.head.activation == pretrained.activation(config, pooling):
            _stock_classifier(model, label_names).save_pretrained(folder)
            words.save_pretrained(folder)
            return "transformers"
        _write_modules(model.embedder, _head_modules(model), words, folder)
        (folder / LABELS).write_text(json.dumps(list(label_names), indent=1, ensure_ascii=False), encoding="utf-8")
        return "sentence-transformers"


def _calibrate(model: Classifier, temperature: float) -> None:
    """Divide the last layer by the temperature, which is noted where both formats have it."""
    with torch.no_grad():
        for parameter in model.head.out.parameters():
            parameter.div_(temperature)
    model.embedder.encoder.config.calibration_temperature = temperature


def fold(layers: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """Weight [o, i] and bias [o] of the one linear map that equals the linear `layers` in turn, computed in float64."""
    weight, bias = (tensor.detach().double() for tensor in (layers[0].weight, layers[0].bias))  # type: ignore[operator]
    for layer in layers[1:]:
        own, shift = layer.weight.detach().double(), layer.bias.detach().double()  # type: ignore[operator]
        weight, bias = own @ weight, own @ bias + shift
    return weight.float(), bias.float()


def _stock_classifier(model: Classifier, label_names: Sequence[str]) -> PreTrainedModel:
    """The family's classifier class with our weights; the linear layers are folded into the first layer of its head."""
    encoder = model.embedder.encoder
    config: Any = copy.deepcopy(encoder.config)
    head = pretrained.STOCK_HEADS[config.model_type]
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: number for number, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    if hasattr(config, "pooler_hidden_act"):
        config.pooler_hidden_act = head.activation
    stock: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    state = {f"{stock.base_model_prefix}.{name}": tensor for name, tensor in encoder.state_dict().items()}
    for place, layers in ((head.dense, [*model.embedder.layers.values(), model.head.dense]), (head.out, [model.head.out])):
        state[f"{place}.weight"], state[f"{place}.bias"] = fold(layers)
    stock.load_state_dict(state)  # strict: fails where the stock class holds anything that ours does not
    return stock


def _head_modules(model: Classifier) -> list[nn.Module]:
    """Linear layers and head as the last modules of a `SentenceTransformer`."""
    layers = list(model.embedder.layers.values())
    if model.head.activation is None:
        return [_dense([*layers, model.head.out], nn.Identity())]
    activation = ACTIVATIONS[model.head.activation]()
    return [_dense([*layers, model.head.dense], activation), _dense([model.head.out], nn.Identity())]


def _dense(layers: Sequence[nn.Module], activation: nn.Module) -> nn.Module:
    """The linear `layers` and an activation as one `Dense` module."""
    from sentence_transformers.base.modules import Dense  # takes seconds to import

    weight, bias = fold(layers)
    return Dense(weight.shape[1], weight.shape[0], activation_function=activation, init_weight=weight, init_bias=bias)


def _write_modules(embedder: Embedder, last: list[nn.Module], tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write encoder, pooling and the `last` modules as a `SentenceTransformer`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    options = without_pooler(embedder.encoder.config)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        embedder.encoder.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        first = Transformer(scratch, model_kwargs=dict(options))
    modules = [first, Pooling(embedder.hidden_size, embedder.pooling), *last]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    settings = folder / "sentence_bert_config.json"
    # Without these options a stock load would add a random pooler, which nothing uses, and warn of it.
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_kwargs": options}, indent=2))


def _tokenizer(folder: Path, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer, set to cut texts as the data set was cut."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.model_max_length = max_length
    tokenizer.padding_side = "right"
    return tokenizer


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place at the end, so that there is never half an export."""
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
        shutil.rmtree(out, ignore_errors=True)
        making.rename(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
