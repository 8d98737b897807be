"""A small real tokenizer and small real data sets for tests."""

import csv
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from threephase_ray import config, data
from threephase_ray.store import Store

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["red", "green", "blue", "ink", "sky", "leaf", "play", "##ing", "the", "is"]


def tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece over a few words and single letters, as BERT does it."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [*SPECIAL, *WORDS, *letters, *("##" + letter for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **names)


def rows(classes: int = 2, each: int = 10) -> list[tuple[str, str]]:
    """Distinct texts with their labels, classes taking turns."""
    return [(f"text {i} of {j}", f"class {j}") for i in range(each) for j in range(classes)]


def write_csv(path: Path, rows: Sequence[Sequence[Any]], columns: Sequence[str] = ("text", "label")) -> Path:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def prepare(store: Path, seed: int = 0, **knobs: Any) -> Path:
    """Prepare with the tiny tokenizer for a model of 64 tokens."""
    return data.prepare(config.Data(**knobs), tokenizer(), 64, opened(store), seed)


def opened(folder: Path) -> Store:
    """The store in a folder."""
    return Store(str(folder), str(folder.with_name("scratch")))


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a prepared split, with `text` decoded from the tokens."""
    facts, decoder = data.describe(folder), tokenizer()
    if split not in facts["splits"]:
        return []
    found = []
    for shard in facts["splits"][split]["shards"]:
        with pa.memory_map(str(folder / shard)) as file:
            found += pa.ipc.open_file(file).read_all().to_pylist()
    return [row | {"text": decoder.decode(row["tokens"], skip_special_tokens=True)} for row in found]


def left(folder: Path) -> list[str]:
    """The files of data sets that are not finished."""
    store = opened(folder)
    return [name for name in store.storage.sizes("data") if not store.is_finished("/".join(name.split("/")[:2]))]
