"""The networks: encoder with linear layers, classifier head, decoder; how they are saved and restored."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.activations import ACT2FN

from threephase_ray import packing
from threephase_ray.vocabulary import Guess, Unembedding


class Embedder(nn.Module):
    """Encoder, pooling, and the linear layers that the phases added: token ids [b, t] to embeddings [b, h]."""

    def __init__(self, encoder: nn.Module, pooling: str, layers: tuple[str, ...] = ()) -> None:
        """Wrap `encoder`; each of `layers` starts as the identity, so that it takes nothing away from what was learnt."""
        super().__init__()
        self.encoder: Any = encoder
        self.packs = packing.enable(encoder)
        self.pooling = pooling
        self.layers = nn.ModuleDict()
        for name in layers:
            self.add(name)

    @property
    def hidden_size(self) -> int:
        """Size of the embedding."""
        return int(self.encoder.config.hidden_size)

    def add(self, name: str) -> "Embedder":
        """Put a linear layer of hidden size, starting as the identity, on top, unless there is one of this name."""
        if name not in self.layers:
            layer = nn.Linear(self.hidden_size, self.hidden_size)
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.layers[name] = layer
        return self

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings [b, h] of token ids [b, t] whose `mask` [b, t] is true where there is a token."""
        if self.packs and not bool(mask.all()):
            states = packing.states(self.encoder, ids, mask)
        else:
            states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        pooled = pool(states, mask, self.pooling)
        for layer in self.layers.values():
            pooled = layer(pooled)
        return pooled


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector [b, h] from the token states [b, t, h]: the first token's, or the mean of those in the mask."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-9)


OPEN = {"tanh": (0.3, 0.0), "gelu": (1.0, 1.0), "relu": (1.0, 1.0)}  # scale and shift of a standardised input that let most of it through


class Head(nn.Module):
    """Embeddings [b, h] to logits [b, k]: dense, activation, dropout, dense; without an activation one dense layer."""

    def __init__(self, hidden: int, classes: int, activation: str | None, dropout: float) -> None:
        """`activation` is a name that transformers knows, or None for a linear head."""
        super().__init__()
        self.activation = activation
        self.dense = nn.Linear(hidden, hidden) if activation else nn.Identity()
        self.act = ACT2FN[activation] if activation else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, classes)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits [b, k]."""
        logits: Tensor = self.out(self.dropout(self.features(embeddings)))
        return logits

    def features(self, embeddings: Tensor) -> Tensor:
        """What the last layer sees, [b, h]."""
        hidden: Tensor = self.act(self.dense(embeddings))
        return hidden

    @torch.no_grad()
    def open(self, embeddings: Tensor) -> None:
        """Set the first layer so that it hands on embeddings like these [n, h], each dimension standardised, without much loss."""
        if self.activation is None:
            return
        assert isinstance(self.dense, nn.Linear)
        scale, shift = OPEN[self.activation]
        deviation, mean = torch.std_mean(embeddings.double(), dim=0, correction=0)
        factor = scale / deviation.masked_fill(deviation < 1e-9, 1.0)  # as scikit-learn's scaler: what is constant stays
        self.dense.weight.copy_(torch.diag(factor))
        self.dense.bias.copy_(shift - mean * factor)


class Classifier(nn.Module):
    """Embedder and head: token ids [b, t] to logits [b, k]."""

    def __init__(self, embedder: Embedder, head: Head) -> None:
        """Put `head` on `embedder`."""
        super().__init__()
        self.embedder, self.head = embedder, head

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [b, k]."""
        logits: Tensor = self.head(self.embedder(ids, mask))
        return logits


class TiedDecoder(nn.Module):
    """The checkpoint's causal class with cross-attention, sharing its weights with the encoder (TSDAE, Wang et al. 2021)."""

    def __init__(self, causal: nn.Module, encoder: nn.Module) -> None:
        """Replace the encoder's parameters by the decoder's of the same name, keeping the encoder's values."""
        super().__init__()
        self.causal: Any = causal
        self.packs = packing.enable(causal)
        decoder = causal.get_submodule(str(causal.base_model_prefix))
        own = dict(decoder.named_parameters())
        for name, parameter in list(encoder.named_parameters()):
            own[name].data.copy_(parameter.data)
            module, _, leaf = name.rpartition(".")
            setattr(encoder.get_submodule(module), leaf, own[name])
        self.unembedding = Unembedding(causal)

    def forward(self, memory: Tensor, ids: Tensor, mask: Tensor, targets: Tensor) -> Guess:
        """Of the tokens `targets` [b, t] after each of `ids` [b, t] where `mask` is true, given one vector [b, h] of each text."""
        guess: Guess = self.unembedding(self.states(memory, ids, mask), targets[mask])
        return guess

    def states(self, memory: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """What the logits of these tokens are made of, [n, h]."""
        if self.packs:
            return packing.decoded(self.causal, memory, ids, mask)
        states: Tensor = self.causal(
            input_ids=ids,
            encoder_hidden_states=memory.unsqueeze(1),
            encoder_attention_mask=torch.ones(len(ids), 1, dtype=torch.long, device=ids.device),
            use_cache=False,
        ).logits
        return states[mask]


def save(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Write an `Embedder` or `Classifier`: `weights.safetensors`, `model.json`, and the encoder's `config.json` in `encoder/`."""
    embedder = model.embedder if isinstance(model, Classifier) else model
    assert isinstance(embedder, Embedder)
    head = {"classes": model.head.out.out_features, "activation": model.head.activation} if isinstance(model, Classifier) else None
    facts = {"pooling": embedder.pooling, "layers": list(embedder.layers), "head": head}
    embedder.encoder.config.save_pretrained(folder / "encoder")
    (folder / "model.json").write_text(json.dumps(facts, indent=1))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "weights.safetensors")


def without_pooler(config: PreTrainedConfig) -> dict[str, Any]:
    """The option that leaves a family's pooler out, which no phase uses, where the family has the option."""
    model_class: Any = AutoModel._model_mapping[type(config)]
    has_option = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if has_option else {}


def restore(folder: Path, head_dropout: float = 0.0) -> Embedder | Classifier:
    """What `save` wrote, in float32."""
    facts = json.loads((folder / "model.json").read_text())
    config = AutoConfig.from_pretrained(folder / "encoder", trust_remote_code=False)
    encoder = AutoModel.from_config(config, dtype=torch.float32, **without_pooler(config))
    embedder = Embedder(encoder, facts["pooling"], tuple(facts["layers"]))
    model: Embedder | Classifier = embedder
    if facts["head"]:
        model = Classifier(embedder, Head(embedder.hidden_size, facts["head"]["classes"], facts["head"]["activation"], head_dropout))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model
