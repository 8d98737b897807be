"""Pretrained checkpoints, from a folder or a hub: what they can do, and the networks built from them."""

import hashlib
import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils.hub import cached_file

from threephase_ray import demo, packing
from threephase_ray.config import Encoder
from threephase_ray.digest import digest
from threephase_ray.errors import ConfigError
from threephase_ray.models import Classifier, Embedder, TiedDecoder, restore, without_pooler


@dataclass(frozen=True)
class StockHead:
    """Where a family's `...ForSequenceClassification` keeps the two layers of its head, and the activation between them."""

    dense: str
    out: str
    activation: str


_ROBERTA = StockHead("classifier.dense", "classifier.out_proj", "tanh")
STOCK_HEADS = {
    "bert": StockHead("bert.pooler.dense", "classifier", "tanh"),
    "ernie": StockHead("ernie.pooler.dense", "classifier", "tanh"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA,
    "electra": StockHead("classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": StockHead("pre_classifier", "classifier", "relu"),
    "deberta-v2": StockHead("pooler.dense", "classifier", "gelu"),
}
PERMUTED = ("bert", "ernie", "electra", "distilbert", "roberta", "xlm-roberta", "camembert", "modernbert")  # see any positions in any order


def quiet() -> None:
    """Keep transformers from drawing progress bars and tables of what a checkpoint lacks; what matters is checked here."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def source(encoder: Encoder) -> str:
    """The folder or hub id that `encoder.path` stands for."""
    return str(demo.encoder()) if encoder.path == "demo:all-minilm-l6-v2" else encoder.path


def load_config(encoder: Encoder) -> PreTrainedConfig:
    """The encoder's configuration, with its dropout as asked.

    Raises:
        ConfigError: nothing usable lies at the path, or the model is not a plain text encoder.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source(encoder), revision=encoder.revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ConfigError(f"encoder.path: no usable model at {encoder.path!r}\n  {_first_line(error)}") from error
    if not hasattr(config, "hidden_size") or getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"encoder.path: {encoder.path!r} is a {config.model_type} model; an encoder such as BERT or RoBERTa is needed")
    if encoder.dropout is not None:
        for name, value in config.to_dict().items():
            if "dropout" in name and isinstance(value, int | float) and not isinstance(value, bool):
                setattr(config, name, encoder.dropout)
    return config


def load_tokenizer(encoder: Encoder) -> tuple[PreTrainedTokenizerBase, int]:
    """The encoder's fast tokenizer, and the most tokens that the model takes; a ConfigError where there is none."""
    config = load_config(encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source(encoder), revision=encoder.revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"encoder.path: no usable tokenizer at {encoder.path!r}\n  {_first_line(error)}") from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None or tokenizer.mask_token_id is None:
        raise ConfigError(f"encoder.path: {encoder.path!r} needs a fast tokenizer with a padding and a mask token")
    return tokenizer, int(
        min(tokenizer.model_max_length, config.max_position_embeddings - packing.first_position(config, tokenizer.pad_token_id))
    )


def pooling(encoder: Encoder) -> str:
    """`encoder.pooling`, or the checkpoint's own (its `1_Pooling`), or that of the first token; ConfigError if it is another."""
    if encoder.pooling != "auto":
        return encoder.pooling
    path = cached_file(source(encoder), "1_Pooling/config.json", revision=encoder.revision, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return "cls"
    modes = json.loads(Path(path).read_text()).items()
    match [str(value) if name == "pooling_mode" else name for name, value in modes if name.startswith("pooling_mode") and value]:
        case ["mean"] | ["pooling_mode_mean_tokens"]:
            return "mean"
        case ["cls"] | ["pooling_mode_cls_token"]:
            return "cls"
    raise ConfigError(f"encoder.pooling: {encoder.path!r} pools otherwise than by cls or mean; choose one of them")


def fingerprint(encoder: Encoder) -> str:
    """SHA-256 over the checkpoint's configuration and weights."""
    found = hashlib.sha256(load_config(encoder).to_json_string().encode())
    for name in _weight_files(encoder):
        found.update(digest(Path(name)))
    return found.hexdigest()


def card(encoder: Encoder) -> str:
    """The checkpoint's own model card; empty where there is none, or where it cannot be reached."""
    options = dict.fromkeys((f"_raise_exceptions_for_{problem}" for problem in ("missing_entries", "connection_errors")), False)
    path = cached_file(source(encoder), "README.md", revision=encoder.revision, **options)
    return "" if path is None else Path(path).read_text(encoding="utf-8", errors="replace")


def parameter_count(encoder: Encoder) -> int:
    """Parameters of the checkpoint, read from the heads of its files."""
    count = 0
    for name in _weight_files(encoder):
        with safe_open(name, "pt") as file:
            count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return count


def _weight_files(encoder: Encoder) -> list[str]:
    """The checkpoint's safetensors files."""
    place, options = source(encoder), {"revision": encoder.revision, "_raise_exceptions_for_missing_entries": False}
    index = cached_file(place, "model.safetensors.index.json", **options)
    names = sorted(set(json.loads(Path(index).read_text())["weight_map"].values())) if index else ["model.safetensors"]
    files = [cached_file(place, name, **options) for name in names]
    if None in files:
        raise ConfigError(f"encoder.path: {encoder.path!r} has no {names[files.index(None)]}; other formats are not loaded, being unsafe")
    return [str(file) for file in files]


def pretrained(encoder: Encoder) -> Embedder:
    """The pretrained encoder in float32, without a pooler, under its own pooling; a ConfigError where weights are missing."""
    config = load_config(encoder)
    options = {**_loading(encoder), **without_pooler(config)}
    model, info = AutoModel.from_pretrained(source(encoder), config=config, output_loading_info=True, **options)
    missing = [name for name in info["missing_keys"] if "pooler" not in name]
    if missing:
        raise ConfigError(f"encoder.path: the weights at {encoder.path!r} lack {len(missing)} tensors, among them {sorted(missing)[0]}")
    return Embedder(model, pooling(encoder))


def _loading(encoder: Encoder) -> dict[str, Any]:
    """How weights are loaded: safely, and as float32."""
    return {"revision": encoder.revision, "dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}


def decoder_kind(config: PreTrainedConfig, wish: str) -> str:
    """Which decoder reconstructs: "tied" where the family has a causal class with cross-attention, else "fresh"."""
    has_class = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)] if has_class else None
    able = has_class and "encoder_hidden_states" in inspect.signature(causal.forward).parameters
    if wish == "tied" and not able:
        raise ConfigError(f"dae.decoder: the {config.model_type} family has no causal class with cross-attention; use fresh or auto")
    if (wish == "fresh" or not able) and getattr(config, "embedding_size", config.hidden_size) != config.hidden_size:
        raise ConfigError(f"dae.decoder: {config.model_type} embeds tokens in another size than its states; use dae.objective mlm")
    return "tied" if able and wish != "fresh" else "fresh"


def decoder(encoder: Encoder, embedder: Embedder, wish: str, layers: int) -> TiedDecoder:
    """The decoder of phase 1, sharing all weights with the encoder ("tied"), or the token embeddings alone ("fresh")."""
    config = load_config(encoder)
    if decoder_kind(config, wish) == "tied":
        config.is_decoder, config.add_cross_attention = True, True
        return TiedDecoder(AutoModelForCausalLM.from_pretrained(source(encoder), config=config, **_loading(encoder)), embedder.encoder)
    heads = int(config.num_attention_heads)
    small = BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * config.hidden_size,
        max_position_embeddings=config.max_position_embeddings,
        pad_token_id=config.pad_token_id,
        is_decoder=True,
        add_cross_attention=True,
    )
    if encoder.dropout is not None:
        small.hidden_dropout_prob = small.attention_probs_dropout_prob = encoder.dropout
    causal = BertLMHeadModel(small)
    causal.set_input_embeddings(embedder.encoder.get_input_embeddings())
    causal.tie_weights()
    return TiedDecoder(causal, nn.Identity())


def check_masked_lm(config: PreTrainedConfig, objective: str = "mlm") -> None:
    """Raise a ConfigError where the family has no masked-language-model class, or none that the objective "permutation" can use."""
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ConfigError(f"dae.objective: the {config.model_type} family has no masked-language-model class; use denoising")
    if objective == "permutation" and config.model_type not in PERMUTED:
        raise ConfigError(
            f"dae.objective: permutation needs an encoder that takes positions in any order, as {', '.join(PERMUTED)} do;\n"
            f"  {config.model_type} does not: use mlm or denoising"
        )


def masked_lm(encoder: Encoder, embedder: Embedder) -> nn.Module:
    """The checkpoint's masked-language-model class around the embedder's encoder."""
    config = load_config(encoder)
    model: nn.Module = AutoModelForMaskedLM.from_pretrained(source(encoder), config=config, **_loading(encoder))
    setattr(model, str(model.base_model_prefix), embedder.encoder)
    model.tie_weights()  # type: ignore[operator]
    return model


def activation(config: PreTrainedConfig, pooled: str) -> str:
    """The head's activation: the family's own where a stock class can hold the head, else tanh."""
    return STOCK_HEADS[config.model_type].activation if stock(config, pooled) else "tanh"


def stock(config: PreTrainedConfig, pooled: str) -> bool:
    """Whether `AutoModelForSequenceClassification` can express the classifier."""
    return pooled == "cls" and config.model_type in STOCK_HEADS


def start(encoder: Encoder, previous: Path | None) -> Embedder:
    """The embedder that a phase starts from: the phase before's, or the pretrained one."""
    if previous is None:
        return pretrained(encoder)
    model = restore(previous)
    return model.embedder if isinstance(model, Classifier) else model


def _first_line(error: Exception) -> str:
    """The first line of a long message."""
    return str(error).strip().splitlines()[0][:200]
