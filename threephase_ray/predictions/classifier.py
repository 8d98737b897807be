"""An exported classifier, in either of its stock formats, as one function from texts to probabilities; no padding is computed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from threephase_ray import packing, pretrained
from threephase_ray.errors import JobError
from threephase_ray.export import ACTIVATIONS, LABELS
from threephase_ray.models import Embedder

Floats = NDArray[np.float32]
_TOKENS = {"cuda": 8192, "cpu": 1024}  # in one forward pass: what keeps a GPU busy; what stays in a CPU's caches


@dataclass(frozen=True)
class Scores:
    """Of n texts: probabilities [n, k] and, if asked for, embeddings [n, h]."""

    probabilities: Floats
    embeddings: Floats | None


class TextClassifier:
    """A run's `model` folder: `classifier/`, and `encoder/` where embeddings are asked for."""

    def __init__(
        self, model: Path, device: torch.device, *, precision: str = "fp32", tokens: int | None = None, embeds: bool = False
    ) -> None:
        """`tokens`: in one forward pass, by default as many as suit the device. `precision` "bf16" casts matrix products only.

        Raises:
            JobError: the folder holds no classifier that was exported here.
        """
        pretrained.quiet()
        folder = model / "classifier"
        self._embedder, self._head, self.labels = load(folder)
        self._to_embedding = _dense(_modules(model / "encoder")) if embeds else None
        if self._embedder.pooling == "cls":
            packing.shorten(self._embedder.encoder)
        for part in (self._embedder, self._head, *([self._to_embedding] if self._to_embedding else [])):
            part.to(device).eval()
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._device, self._tokens, self._bf16 = device, tokens or _TOKENS[device.type], precision == "bf16"

    def score(self, texts: Sequence[str], *, split: bool = False) -> Scores:
        """Scores of n texts, each text that occurs several times computed once.

        `split`: a long text is scored in pieces, whose probabilities and embeddings are averaged by their lengths; else it is cut off.
        """
        places: dict[str, int] = {}
        rows = np.array([places.setdefault(text, len(places)) for text in texts], dtype=np.int64)
        pieces, owners = self._pieces([*places], split)
        found = self._score(pieces)
        lengths = np.array([len(piece) for piece in pieces], dtype=np.float64)
        return Scores(*(None if each is None else _averaged(each, owners, lengths)[rows] for each in found))  # type: ignore[arg-type]

    def _pieces(self, texts: list[str], split: bool) -> tuple[list[list[int]], NDArray[np.int64]]:
        """Token ids of the texts' pieces, one of each text unless it is long and to be split, and the text of each."""
        if not texts:
            return [], np.zeros(0, dtype=np.int64)
        found = self._tokenizer(texts, truncation=True, return_overflowing_tokens=split, return_attention_mask=False)
        owners = found["overflow_to_sample_mapping"] if split else range(len(texts))
        return list(found["input_ids"]), np.asarray(owners, dtype=np.int64)

    @torch.inference_mode()
    def _score(self, pieces: list[list[int]]) -> tuple[Floats, Floats | None]:
        """Probabilities and embeddings of each piece."""
        order = np.argsort([len(piece) for piece in pieces], kind="stable")
        probabilities = np.empty((len(pieces), len(self.labels)), dtype=np.float32)
        embeddings = np.empty((len(pieces), self._embedder.hidden_size), dtype=np.float32) if self._to_embedding else None
        for batch in self._batches(order, pieces):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
                pooled = self._embedder(*self._padded([pieces[i] for i in batch]))
                probabilities[batch] = self._head(pooled).float().softmax(dim=-1).cpu().numpy()
                if embeddings is not None and self._to_embedding is not None:
                    embeddings[batch] = self._to_embedding(pooled).float().cpu().numpy()
        return probabilities, embeddings

    def _batches(self, order: NDArray[np.int64], pieces: list[list[int]]) -> list[NDArray[np.int64]]:
        """Pieces of like length together, as many as fit: those of a batch are padded to its longest, which comes last."""
        ends, first = [0], 0
        for place, piece in enumerate(order):
            if place > first and (place - first + 1) * len(pieces[piece]) > self._tokens:
                first = place
                ends.append(place)
        return [order[start:end] for start, end in pairwise([*ends, len(order)]) if end > start]

    def _padded(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and mask [b, t]."""
        lengths = torch.tensor([len(piece) for piece in pieces])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(mask.shape, int(self._tokenizer.pad_token_id))
        ids[mask] = torch.tensor([token for piece in pieces for token in piece])
        return ids.to(self._device), mask.to(self._device)


def _averaged(each: Floats, owners: NDArray[np.int64], lengths: NDArray[np.float64]) -> Floats:
    """Means [n, c] of the pieces' rows [p, c] by the pieces' lengths; a text's pieces stand together."""
    if len(owners) == 0 or owners[-1] + 1 == len(owners):
        return each
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    sums = np.add.reduceat(each * lengths[:, None], starts) / np.add.reduceat(lengths, starts)[:, None]
    return sums.astype(np.float32)


def load(folder: Path) -> tuple[Embedder, nn.Module, list[str]]:
    """Embedder, head and labels of an exported classifier.

    Raises:
        JobError: its head is not one that is exported here.
    """
    return _with_labels(folder) if (folder / LABELS).is_file() else _stock(folder)


def _stock(folder: Path) -> tuple[Embedder, nn.Module, list[str]]:
    """Embedder, head and labels of an `AutoModelForSequenceClassification`: its head's two layers stand where `STOCK_HEADS` says."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    config = model.config
    if config.model_type not in pretrained.STOCK_HEADS:
        raise JobError(f"model: {folder} holds a {config.model_type} classifier, whose head is not known here")
    places = pretrained.STOCK_HEADS[config.model_type]
    head = nn.Sequential(model.get_submodule(places.dense), ACTIVATIONS[places.activation](), model.get_submodule(places.out))
    return Embedder(model.base_model, "cls"), head, [config.id2label[number] for number in range(config.num_labels)]


def _with_labels(folder: Path) -> tuple[Embedder, nn.Module, list[str]]:
    """The same of a `SentenceTransformer` that ends in the head."""
    modules = _modules(folder)
    labels: list[str] = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    return Embedder(modules[0].auto_model, modules[1].pooling_mode), _dense(modules), labels


def _modules(folder: Path) -> list[Any]:
    """The modules of a `SentenceTransformer`: transformer, pooling, dense layers."""
    from sentence_transformers import SentenceTransformer  # takes seconds to import

    return list(SentenceTransformer(str(folder), device="cpu", trust_remote_code=False).children())


def _dense(modules: list[Any]) -> nn.Sequential:
    """The maps behind the pooling."""
    return nn.Sequential(*(part for dense in modules[2:] for part in (dense.linear, dense.activation_function)))
