"""What subsets mean for the rest of a data set: rows left out, texts of other lengths, checks, keys; and how the knobs are said."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit import tiny
from tests.unit.staged import four_classes, gated, of_sizes, texts
from threephase_ray import command, config, data
from threephase_ray.errors import ConfigError, DataError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return four_classes(tmp_path / "in")


@pytest.mark.parametrize("rows", [{"per_class": 5, "validation": 10, "test": 10}, {"train": 30}, {"per_class": 8, "imbalance": 6}], ids=str)
def test_rows_left_out_join_the_unlabelled_ones_without_their_labels(source: Path, rows: dict[str, Any]) -> None:
    left, joined = (gated(source, 2, rows=rows | {"rest": rest})[0] for rest in ("leave", "unlabelled"))
    whole = gated(source, 2)[0]
    assert all(joined[split] == left[split] for split in ("train", "validation", "test"))
    assert len(left["unlabelled"]) == 50
    assert texts(joined["unlabelled"]) == texts(whole["unlabelled"]) | (texts(whole["train"]) - texts(joined["train"]))
    assert len({row.row for row in joined["unlabelled"]}) == len(joined["unlabelled"]) == 50 + 123 - len(joined["train"])
    assert {(row.label, row.labels) for row in joined["unlabelled"]} == {(None, "[null]")}


def test_no_label_of_a_row_left_out_reaches_the_data_set(tmp_path: Path) -> None:
    rows = [(f"{family} {label} {i}", family, label) for family, label in [("x", "x1"), ("x", "x2"), ("y", "y1")] for i in range(30)]
    tiny.write_csv(tmp_path / "a.csv", [*rows, ("left", "y", "y2"), ("other", "", "")], ["text", "family", "label"])
    knobs = {"source": str(tmp_path / "a.csv"), "label_columns": ("family", "label"), "checks": {"missing_label": "keep"}}
    folder = tiny.prepare(tmp_path / "store", rows={"per_class": 3, "rest": "unlabelled"}, **knobs)
    facts = data.describe(folder)
    train, unlabelled = tiny.read(folder, "train"), tiny.read(folder, "unlabelled")
    assert sorted(Counter(row["labels"][1] for row in train).values()) == [1, 3, 3, 3]
    assert {tuple(row["labels"]) for row in unlabelled} == {(-1, -1)}
    assert facts["splits"]["unlabelled"]["class_counts"] == [0, 0, 0, 0]
    assert facts["splits"]["unlabelled"]["origin"] == "drawn from train"
    every = [row for split in ("train", "validation", "test", "unlabelled") for row in tiny.read(folder, split)]
    assert len(every) == len({row["text"] for row in every}) == len(rows) + 2  # each text is in one place
    assert len({row["row"] for row in unlabelled}) == len(unlabelled)
    shown = [example for found in facts["checks"].values() for example in found["examples"] if example["split"] == "unlabelled"]
    assert all(example["label"] is None for example in shown)


def test_rows_left_out_are_checked_as_unlabelled_ones(source: Path) -> None:
    lines = [(text, label) for label in "ab" for text in (f"test {label} 0", f"test {label} 1", f"validation {label} 2")]
    tiny.write_csv(source / "train.csv", [*of_sizes({"a": 20, "b": 20}), *lines])
    kept, report = gated(source, rows={"per_class": 1, "rest": "unlabelled"})
    assert report["overlap"]["splits"] == {"test": 4, "unlabelled": 6, "validation": 2}
    assert {example["label"] for example in report["overlap"]["examples"] if example["split"] == "unlabelled"} <= {None}
    dropped, _ = gated(source, rows={"per_class": 1, "rest": "unlabelled"}, checks={"overlap": "drop"})
    assert texts(kept["unlabelled"]) - texts(dropped["unlabelled"]) == {text for text, _ in lines}
    assert len(dropped["train"]) == len(kept["train"]) == 2
    with pytest.raises(DataError, match="overlap: 6 texts"):
        gated(source, rows={"per_class": 1, "rest": "unlabelled"}, checks={"overlap": "error"})


def test_a_split_that_is_given_or_drawn_first_stays_out_of_the_rest(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", of_sizes({"a": 50, "b": 50}))
    whole, cut = (gated(tmp_path / "a.csv", rows=rows)[0] for rows in ({}, {"per_class": 4, "rest": "unlabelled"}))
    assert (cut["validation"], cut["test"]) == (whole["validation"], whole["test"])
    assert {split: len(rows) for split, rows in cut.items()} == {"train": 8, "validation": 16, "test": 20, "unlabelled": 56}
    assert not texts(cut["unlabelled"]) & (texts(cut["validation"]) | texts(cut["test"]) | texts(cut["train"]))


def test_unlabelled_rows_are_drawn_alike_from_given_and_left_out_ones(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "train.csv", of_sizes({"a": 200, "b": 200}))
    tiny.write_csv(tmp_path / "unlabelled.csv", [(f"more {i}",) for i in range(200)], ["text"])
    asked = {"per_class": 80, "rest": "unlabelled"}  # of 160 and 128 in training, half or more: the rest has large draws
    drawn = [gated(tmp_path, 1, rows=asked | {"unlabelled": most})[0]["unlabelled"] for most in (10, 100, 10_000)]
    assert [len(rows) for rows in drawn] == [10, 100, 296]
    assert texts(drawn[0]) < texts(drawn[1]) < texts(drawn[2])
    assert 15 <= sum(not row.text.startswith("more") for row in drawn[1]) <= 50  # 32 expected
    assert texts(gated(tmp_path, 2, rows={"unlabelled": 10})[0]["unlabelled"]) != texts(drawn[0])


def test_where_the_unlabelled_rows_come_from_is_said(tmp_path: Path, source: Path) -> None:
    for rest, origin in {"leave": "given", "unlabelled": "given, and left out of train"}.items():
        facts = data.describe(tiny.prepare(tmp_path / "store", source=str(source), rows={"per_class": 5, "rest": rest}, words=(1, 3)))
        assert facts["splits"]["unlabelled"]["origin"] == origin
        assert facts["splits"]["train"]["class_counts"] == [5, 5, 5, 3]
        assert facts["checks"]["words"]["count"] == 0


def test_a_text_of_another_length_is_left_out_of_every_split(tmp_path: Path) -> None:
    for split in ("train", "test", "unlabelled"):
        rows = [(" ".join([split] * (i % 10 + 1)) + f"\t{i}", "ab"[i // 50]) for i in range(100)]  # 2 to 11 words
        tiny.write_csv(tmp_path / f"{split}.csv", rows)
    for words, lengths in {(4, 6): range(4, 7), (9, None): range(9, 12), (1, 20): range(2, 12)}.items():
        splits, report = gated(tmp_path, words=words)
        assert {len(row.text.split()) for rows in splits.values() for row in rows} == set(lengths)
        out = 100 - 10 * len(lengths)
        assert report["words"]["splits"] == ({"train": out, "test": out, "unlabelled": out} if out else {})
        assert (report["words"]["count"], report["words"]["policy"], report["words"]["unit"]) == (3 * out, "drop", "rows")
        assert len(splits["train"]) + len(splits["validation"]) == 100 - out
    with pytest.raises(DataError, match=r"the train split has no row left: checks found words 100; see data\.checks and data\.words"):
        gated(tmp_path, words=(12, None))
    tiny.write_csv(tmp_path / "test.csv", [("one two", "a")])
    with pytest.raises(DataError, match="the test split has no row left: checks found words 1; see"):
        gated(tmp_path, words=(3, 20))


def test_the_key_follows_subsets_and_the_seed_where_it_matters(source: Path) -> None:
    def key(seed: int = 0, words: object = None, **rows: object) -> str:
        asked = config.Data.model_validate({"source": str(source), "rows": rows, "words": words})
        return data.plan(asked, tiny.tokenizer(), 64, seed).name

    drawn: list[dict[str, Any]] = [
        {"per_class": 2},
        {"per_class": 3},
        {"imbalance": 2},
        {"unlabelled": 9},
        {"per_class": 2, "rest": "unlabelled"},
    ]
    names = [key(seed, **rows) for rows in drawn for seed in (0, 1)]
    undrawn: list[dict[str, Any]] = [{}, {"words": (1, 9)}, {"words": (1, None)}, {"rest": "unlabelled"}]
    assert all(key(0, **knobs) == key(1, **knobs) for knobs in undrawn)
    names += [key(0, **knobs) for knobs in undrawn]
    assert len(set(names)) == len(names)


def read(*flags: str) -> config.Data:
    return command.read([], ["--name", "a", "--data.train", "a.csv", "--encoder.path", "e", *flags]).data


@pytest.mark.parametrize(
    ("said", "meant"),
    [("1,8", (1, 8)), ("[1, 8]", (1, 8)), ("9,null", (9, None)), ("9,", (9, None)), ("7,7", (7, 7)), ("null", None)],
)
def test_words_as_a_flag(said: str, meant: object) -> None:
    assert read("--data.words", said).words == meant


def test_words_in_a_file(tmp_path: Path) -> None:
    for said, meant in {"[1, 8]": (1, 8), "[9, null]": (9, None), "'9,null'": (9, None), "null": None}.items():
        (tmp_path / "a.yaml").write_text(f"name: a\ndata: {{train: a.csv, words: {said}}}\nencoder: {{path: e}}\n")
        asked = command.read([str(tmp_path / "a.yaml")])
        assert asked.data.words == meant
        (tmp_path / "b.yaml").write_text(command.dump(asked))
        assert command.read([str(tmp_path / "b.yaml")]) == asked


@pytest.mark.parametrize("said", [5, [8, 1], [0, 3], "a,b", [1, 2, 3], [1.5, 3], [None, 3], "-1,3", [], [True, 3]])
def test_words_that_are_no_span_are_refused(said: object) -> None:
    with pytest.raises(ValidationError, match=r"needs \[least, most\] with 1 ≤ least ≤ most, the most null where there is none"):
        config.Data.model_validate({"train": "a.csv", "words": said})


def test_wrong_words_are_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.words: needs \[least, most\] .* \(given: \[8, 1\]\)"):
        read("--data.words=8,1")


@pytest.mark.parametrize("knob", ["per_class", "imbalance"])
def test_the_size_of_the_training_split_is_said_once(knob: str) -> None:
    with pytest.raises(ConfigError, match=f"data.rows: train and {knob} both say how many .* set one of them to null"):
        read("--data.rows.train", "9", f"--data.rows.{knob}", "2")
    assert read("--data.rows.train", "null", f"--data.rows.{knob}", "2").rows.train is None
    with pytest.raises(ConfigError, match=f"data.rows.{knob}: "):
        read(f"--data.rows.{knob}", "0")
