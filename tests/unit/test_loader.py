from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit import tiny, tiny_models
from threephase_ray import data
from threephase_ray.config import Data
from threephase_ray.loader import DataSet
from threephase_ray.noise import SPECIAL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set with texts of several lengths in shards of seven rows."""
    texts = [("play " * (i % 5) + f"text {i}", f"class {i % 3}") for i in range(30)]
    tiny.write_csv(tmp_path / "source" / "train.csv", texts)
    tiny.write_csv(tmp_path / "source" / "validation.csv", texts[:6])
    tiny.write_csv(tmp_path / "source" / "test.csv", texts[:6])
    tiny.write_csv(tmp_path / "source" / "unlabelled.csv", [(f"more of {i}",) for i in range(5)], columns=("text",))
    return tiny.prepare(tmp_path / "store", source=str(tmp_path / "source"), shard_rows=7)


def test_rows_across_shards_are_those_written(folder: Path) -> None:
    split, written = DataSet(folder).split("train"), tiny.read(folder, "train")
    assert len(split) == len(written) == 30
    order = np.random.default_rng(0).permutation(30)
    padded = split.padded(order)
    assert padded.tokens.shape == padded.words.shape == padded.present.shape == (30, max(len(row["tokens"]) for row in written))
    for i, number in enumerate(order):
        row = written[number]
        assert padded.tokens[i, padded.present[i]].tolist() == row["tokens"]
        assert padded.words[i, padded.present[i]].tolist() == row["words"]
        assert padded.present[i].sum() == split.lengths[number] == len(row["tokens"])
        assert split.labels[number].tolist() == row["labels"]
        assert split.ids[number] == row["row"]


def test_short_rows_are_filled_up(folder: Path) -> None:
    data_set = DataSet(folder)
    padded = data_set.split("train").padded(np.arange(30))
    assert not padded.present.all()
    assert set(padded.tokens[~padded.present]) == {data_set.tokenizer.pad_token_id}
    assert set(padded.words[~padded.present]) == {SPECIAL}
    alone = data_set.split("train").padded(np.array([0]))
    assert alone.present.all()  # only as long as the longest row that was asked for


@pytest.mark.parametrize(("family", "pad"), [("bert", 0), ("roberta", 1)])
def test_the_filling_is_the_tokenizers(family: str, pad: int, tmp_path: Path) -> None:
    source = tiny.write_csv(tmp_path / "train.csv", tiny_models.texts(20))
    made = data.prepare(Data(source=str(source)), tiny_models.tokenizer(family), 64, tiny.opened(tmp_path / "store"), 0)
    padded = DataSet(made).split("train").padded(np.arange(8))
    assert set(padded.tokens[~padded.present]) == {pad}


def test_row_minus_one_stands_for_row_zero(folder: Path) -> None:
    split = DataSet(folder).split("train")
    padded = split.padded(np.array([3, -1, 0]))
    assert np.array_equal(padded.tokens[1], padded.tokens[2])
    assert np.array_equal(padded.present[1], padded.present[2])


def test_several_splits_are_one_after_the_other(folder: Path) -> None:
    data_set = DataSet(folder)
    both, first, second = data_set.split("train", "unlabelled"), data_set.split("train"), data_set.split("unlabelled")
    assert len(both) == len(first) + len(second) == 35
    assert np.array_equal(both.lengths, np.concatenate([first.lengths, second.lengths]))
    assert both.labels[30:].tolist() == [[-1]] * 5
    last = both.padded(np.array([29, 30, 34]))
    assert last.tokens[0, last.present[0]].tolist() == tiny.read(folder, "train")[29]["tokens"]
    assert last.tokens[1, last.present[1]].tolist() == tiny.read(folder, "unlabelled")[0]["tokens"]
    assert last.tokens[2, last.present[2]].tolist() == tiny.read(folder, "unlabelled")[4]["tokens"]


def test_a_split_that_is_missing_is_left_out(tmp_path: Path) -> None:
    source = tiny.write_csv(tmp_path / "train.csv", tiny.rows())
    data_set = DataSet(tiny.prepare(tmp_path / "store", source=str(source)))
    assert len(data_set.split("train", "unlabelled")) == len(data_set.split("train"))


def test_classes_of_training_come_first(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "source" / "train.csv", tiny.rows(3))
    tiny.write_csv(tmp_path / "source" / "test.csv", [("something new", "a class of its own"), ("text 1", "class 1")])
    data_set = DataSet(tiny.prepare(tmp_path / "store", source=str(tmp_path / "source")))
    assert data_set.label_names == ["class 0", "class 1", "class 2", "a class of its own"]
    assert data_set.classes == 3
    assert data_set.split("test").labels.tolist() == [[3], [1]]


def test_texts_are_mapped_and_not_copied(tmp_path: Path) -> None:
    texts = [(" ".join(["play"] * 40) + f" {i}", f"class {i % 2}") for i in range(2000)]
    made = tiny.prepare(tmp_path / "store", source=str(tiny.write_csv(tmp_path / "train.csv", texts)))
    data_set = DataSet(made)
    assert data_set.tokenizer.pad_token_id == 0
    before = pa.total_allocated_bytes()
    split = data_set.split("train")
    assert pa.total_allocated_bytes() == before
    for column in (*split._tokens, *split._words, *split._offsets):
        assert not column.flags.owndata
        assert not column.flags.writeable
    assert data_set.split("train") is split
