"""Texts tokenised once into Arrow files that workers can map.

A shard holds one record batch: `row` int64 (number of the row in its source), `tokens` (`list<int32>`) with the special
tokens, `words` (`list<uint8>`: 0 continues a word, 1 starts one, 2 is a special token), `labels` int32 [levels] from coarse
to fine (-1: none).
"""

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from threephase_ray.pieces import Pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1024  # texts tokenised at once
COLUMNS = [("row", pa.int64()), ("tokens", pa.list_(pa.int32())), ("words", pa.list_(pa.uint8()))]


def plain(tokenizer: "PreTrainedTokenizerBase") -> Tokenizer:
    """A copy that neither pads nor truncates, whatever the tokenizer was last used for."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


@dataclass
class _Tally:
    """What is counted while a split is written."""

    lengths: Counter[int] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    truncated: int = 0

    def describe(self, classes: int) -> dict[str, Any]:
        """Counts and lengths (in tokens) of the split."""
        rows, tokens = self.lengths.total(), sum(length * count for length, count in self.lengths.items())
        lengths = sorted(self.lengths)
        below = list(accumulate(self.lengths[length] for length in lengths))
        median, p95 = (lengths[bisect_left(below, share * rows)] for share in (0.5, 0.95))
        return {
            "rows": rows,
            "tokens": tokens,
            "truncated": self.truncated / rows,
            "class_counts": [self.classes[number] for number in range(classes)],
            "lengths": {"mean": round(tokens / rows, 2), "median": median, "p95": p95, "max": lengths[-1]},
        }


@dataclass(frozen=True)
class Writer:
    """Tokenises splits into shards."""

    folder: Path
    numbers: list[dict[str | None, int]]
    pieces: Pieces
    shard_rows: int

    def write(self, split: str, db: sqlite3.Connection, size: int, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
        """Write the shards of a split in the order in which its rows were read."""
        tally = _Tally()
        shards: list[str] = []
        rows = db.execute("SELECT row, text, labels FROM rows WHERE split = ? ORDER BY id", (split,))
        schema = pa.schema([*COLUMNS, ("labels", pa.list_(pa.int32(), len(self.numbers)))])
        label = cache(self._label)
        for first in range(0, size, self.shard_rows):
            parts = []
            for done in range(first, last := min(first + self.shard_rows, size), BATCH):
                numbers, texts, names = zip(*rows.fetchmany(min(BATCH, last - done)), strict=True)
                parts.append(pa.record_batch(self._encode(numbers, texts, map(label, names), tally), schema=schema))
                progress(f"tokenising {split}", done + parts[-1].num_rows, size)
            shards.append(f"{split}-{len(shards):05}.arrow")
            with pa.ipc.new_file(self.folder / shards[-1], schema) as file:
                file.write_batch(pa.concat_batches(parts))
        return tally.describe(len(self.numbers[-1]) - 1) | {"shards": shards}

    def _label(self, names: str) -> list[int]:
        """The numbers of a row's labels."""
        return [numbers[name] for numbers, name in zip(self.numbers, json.loads(names), strict=True)]

    def _encode(self, numbers: tuple[int, ...], texts: tuple[str, ...], labels: Iterable[list[int]], tally: _Tally) -> list[pa.Array]:
        """The columns of some rows."""
        encoded = self.pieces.encode(texts)
        levels = np.array([*labels], dtype=np.int32)
        tally.lengths.update(np.diff(encoded.offsets).tolist())
        tally.classes.update(levels[:, -1].tolist())
        tally.truncated += encoded.truncated
        lists = [pa.ListArray.from_arrays(encoded.offsets, values) for values in (encoded.tokens, encoded.words)]
        return [pa.array(numbers, pa.int64()), *lists, pa.FixedSizeListArray.from_arrays(levels.ravel(), levels.shape[1])]
