"""A prepared data set on a worker: memory-mapped splits, and any rows of them as padded arrays in no time."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from threephase_ray.noise import SPECIAL

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Padded:
    """Rows of a split: tokens [n, t], words [n, t] (see `noise`), present [n, t] true where there is a token."""

    tokens: Ints
    words: NDArray[np.uint8]
    present: NDArray[np.bool_]


class Split:
    """One split, memory-mapped: no row is read before it is asked for."""

    def __init__(self, shards: list[Path], pad: int) -> None:
        """Map the Arrow files `shards`; `pad` is the token that fills short rows."""
        self._pad = pad
        columns = [_columns(path) for path in shards]
        self._tokens = [tokens for tokens, *_ in columns]
        self._words = [words for _, words, *_ in columns]
        self._offsets = [offsets for _, _, offsets, *_ in columns]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)])
        self.lengths: Ints = np.concatenate([np.diff(offsets) for offsets in self._offsets]).astype(np.int64)
        self.labels: Ints = np.concatenate([labels for *_, labels, _ in columns]).astype(np.int64)
        self.ids: Ints = np.concatenate([ids for *_, ids in columns])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    def padded(self, rows: Ints) -> Padded:
        """The given rows, padded to the longest of them; row -1 stands for row 0."""
        rows = np.maximum(rows, 0)
        lengths = self.lengths[rows]
        present = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.full(present.shape, self._pad, dtype=np.int64)
        words = np.full(present.shape, SPECIAL, dtype=np.uint8)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        places = rows - self._starts[shards]
        for i, (shard, place, length) in enumerate(zip(shards.tolist(), places.tolist(), lengths.tolist(), strict=True)):
            start = self._offsets[shard].item(place)
            tokens[i, :length] = self._tokens[shard][start : start + length]
            words[i, :length] = self._words[shard][start : start + length]
        return Padded(tokens, words, present)


def _columns(path: Path) -> tuple[Any, Any, Any, Any, Any]:
    """Flat tokens and words, offsets, labels [n, levels] and row ids of one shard, as views of the mapped file."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
    tokens, words, labels = (table[name].chunk(0) for name in ("tokens", "words", "labels"))
    levels = labels.type.list_size
    flat = labels.flatten().to_numpy().reshape(-1, levels)
    return tokens.values.to_numpy(), words.values.to_numpy(), tokens.offsets.to_numpy(), flat, table["row"].chunk(0).to_numpy()


class DataSet:
    """The folder that `data.prepare` wrote."""

    def __init__(self, folder: Path, name: str = "") -> None:
        """Read `dataset.json` of the folder, which is called `name` in the store; the splits are mapped on first use."""
        self.folder, self.name = folder, name
        self.facts: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        self._splits: dict[str, Split] = {}

    @property
    def label_names(self) -> list[str]:
        """Names at the finest level; those from `classes` on do not occur in training."""
        names: list[str] = self.facts["label_names"][-1]
        return names

    @property
    def classes(self) -> int:
        """Number of classes that occur in training."""
        return int(self.facts["num_classes"])

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that made the data set."""
        return AutoTokenizer.from_pretrained(self.folder / "tokenizer", trust_remote_code=False)

    @cached_property
    def pad_id(self) -> int:
        """The token that fills short rows."""
        return int(self.tokenizer.pad_token_id)

    @cached_property
    def mask_id(self) -> int:
        """The token that hides another."""
        return int(self.tokenizer.mask_token_id)

    def split(self, *names: str) -> Split:
        """One split, or several as one; names that the data set lacks are left out."""
        key = "+".join(names)
        if key not in self._splits:
            shards = [
                self.folder / shard for name in names if name in self.facts["splits"] for shard in self.facts["splits"][name]["shards"]
            ]
            self._splits[key] = Split(shards, self.pad_id)
        return self._splits[key]
