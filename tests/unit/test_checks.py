import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit import tiny
from threephase_ray import checks, config, data, sources
from threephase_ray.errors import DataError

# For each kind: further rows of each split, what is counted, its number, and the rows that `drop` leaves of each split.
CASES: dict[str, tuple[dict[str, list[tuple[str, str]]], str, int, dict[str, int]]] = {
    "empty_text": ({"train": [(" \t\u200b", "a"), ("", "b")], "test": [("\u00a0", "a")]}, "rows", 3, {}),
    "bad_encoding": ({"train": [("bad \udce9 byte", "a")], "validation": [("worse \udce9", "b")]}, "rows", 2, {}),
    "missing_label": ({"train": [("one", ""), ("two", "NaN")], "test": [("three", "")]}, "rows", 3, {}),
    "duplicate": ({"train": [("a 0", "a"), ("a 0", "a")], "test": [("test b", "b")]}, "rows", 3, {}),
    "conflicting_label": ({"train": [("a 0", "b"), ("a 0", "b")]}, "texts", 1, {"train": 7}),
    "overlap": ({"train": [("test a", "a")], "unlabelled": [("test b", ""), ("a 0", "")]}, "texts", 2, {"unlabelled": 1}),
    "single_row_class": ({"train": [("lonely", "c"), ("alone", "d")]}, "classes", 2, {}),
    "unseen_label": ({"test": [("new", "c")], "validation": [("newer", "d"), ("newest", "d")]}, "rows", 3, {}),
}
BASE = {
    "train": [(f"{label} {i}", label) for label in "ab" for i in range(4)],
    "validation": [("valid a", "a"), ("valid b", "b")],
    "test": [("test a", "a"), ("test b", "b")],
}


def source(folder: Path, kind: str) -> str:
    further = CASES[kind][0]
    for split in BASE.keys() | further.keys():
        path = tiny.write_csv(folder / f"{split}.csv", [])
        lines = "".join(f'"{text}",{label}\n' for text, label in BASE.get(split, []) + further.get(split, []))
        with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(lines)
    return str(folder)


def sizes(facts: dict[str, Any]) -> dict[str, int]:
    return {split: found["rows"] for split, found in facts["splits"].items()}


@pytest.mark.parametrize("kind", CASES)
def test_drop_counts_and_removes(tmp_path: Path, kind: str) -> None:
    further, unit, count, remain = CASES[kind]
    facts = data.describe(tiny.prepare(tmp_path / "store", source=source(tmp_path / "in", kind), checks={kind: "drop"}))
    assert sizes(facts) == {split: len(rows) for split, rows in BASE.items()} | remain
    assert {name: (found["unit"], found["count"]) for name, found in facts["checks"].items() if name == kind} == {kind: (unit, count)}
    assert facts["checks"][kind]["policy"] == "drop"
    assert facts["checks"][kind]["examples"][0].keys() == {"split", "row", "label", "text"}
    assert set(further) <= {*facts["checks"][kind]["splits"], "unlabelled"}


@pytest.mark.parametrize("kind", CASES)
def test_keep_counts_and_leaves_the_rows(tmp_path: Path, kind: str) -> None:
    further, _, count, _ = CASES[kind]
    facts = data.describe(tiny.prepare(tmp_path / "store", source=source(tmp_path / "in", kind), checks={kind: "keep"}))
    expected = {split: len(BASE.get(split, [])) + len(further.get(split, [])) for split in ("train", "validation", "test")}
    expected |= {"unlabelled": len(further["unlabelled"])} if "unlabelled" in further else {}
    if kind == "missing_label":  # phase 1 may read them, and phase 1 must not see the test split
        expected = {"train": 8, "validation": 2, "test": 2, "unlabelled": 2}
    assert sizes(facts) == expected
    assert facts["checks"][kind]["count"] == count


@pytest.mark.parametrize("kind", CASES)
def test_error_names_kind_count_rows_and_knob(tmp_path: Path, kind: str) -> None:
    _, unit, count, _ = CASES[kind]
    with pytest.raises(DataError) as caught:
        tiny.prepare(tmp_path / "store", source=source(tmp_path / "in", kind), checks={kind: "error"})
    message = str(caught.value)
    assert f"{kind}: {count} {unit}, such as " in message
    assert " row " in message
    assert "data.checks" in message
    assert tiny.left(tmp_path / "store") == []


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    rows = [*tiny.rows(), ("", "class 0"), ("unlabelled", ""), ("twice", "class 0"), ("twice", "class 0"), ("once", "rare")]
    tiny.write_csv(tmp_path / "a.csv", rows)
    policies = dict.fromkeys(checks.CHECKS, "error")
    with pytest.raises(DataError) as caught:
        tiny.prepare(tmp_path / "store", source=str(tmp_path / "a.csv"), checks=policies)
    named = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
    assert named == ["empty_text", "missing_label", "duplicate", "single_row_class"]
    assert len(str(caught.value).splitlines()) <= 15


def test_kept_bad_bytes_become_replacement_characters(tmp_path: Path) -> None:
    path = tiny.write_csv(tmp_path / "a.csv", tiny.rows())
    path.write_bytes(path.read_bytes() + b"caf\xe9 red,class 0\n" * 3)
    kept = data.describe(tiny.prepare(tmp_path / "store", source=str(path), checks={"bad_encoding": "keep"}))
    assert kept["checks"]["bad_encoding"]["examples"][0]["text"] == "caf\ufffd red"


def test_texts_without_label_get_row_numbers_of_their_own(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "train.csv", [*tiny.rows(), ("red", ""), ("green", "")])
    tiny.write_csv(tmp_path / "unlabelled.csv", [("blue",), ("ink",)], ["text"])
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path), checks={"missing_label": "keep"})
    assert {row["text"]: row["row"] for row in tiny.read(folder, "unlabelled")} == {"blue": 0, "ink": 1, "red": 22, "green": 23}


def drawn(tmp_path: Path, rows: list[tuple[str, str]], seed: int = 0, **knobs: Any) -> dict[str, list[dict[str, Any]]]:
    tiny.write_csv(tmp_path / "a.csv", rows)
    folder = tiny.prepare(tmp_path / "store", seed, source=str(tmp_path / "a.csv"), **knobs)
    return {split: tiny.read(folder, split) for split in ("train", "validation", "test")}


def test_missing_splits_are_drawn_from_each_class_alike(tmp_path: Path) -> None:
    rows = [(f"{label} {i}", label) for label, count in {"a": 100, "b": 50, "c": 3, "d": 2, "e": 1}.items() for i in range(count)]
    splits = drawn(tmp_path, rows, test_share=0.1, validation_share=0.2)
    counts = {split: Counter(row["text"][0] for row in found) for split, found in splits.items()}
    assert counts["test"] == {"a": 10, "b": 5, "c": 1, "d": 1}
    assert counts["validation"] == {"a": 18, "b": 9, "c": 1}
    assert counts["train"] == {"a": 72, "b": 36, "c": 1, "d": 1, "e": 1}
    assert sorted(row["row"] for found in splits.values() for row in found) == list(range(len(rows)))


@pytest.mark.parametrize("missing", [{"test": 0.35, "validation": 0.2}, {"validation": 0.3}])
def test_splits_are_drawn_one_after_the_other_from_the_front_of_each_class(tmp_path: Path, missing: dict[str, float]) -> None:
    """As a loop over the texts draws them: all rows of a text follow it, its class is the first of its labels, given texts stay."""
    rng = random.Random(0)  # noqa: S311
    tiny.write_csv(tmp_path / "train.csv", [(f"text {rng.randrange(150)}", rng.choice("aabbbc")) for _ in range(400)] + [("lonely", "d")])
    tiny.write_csv(tmp_path / "unlabelled.csv", [(f"text {i}",) for i in range(120, 170)], ["text"])
    if "test" not in missing:
        tiny.write_csv(tmp_path / "test.csv", [(f"text {i}", "a") for i in range(40)])
    asked = config.Data(source=str(tmp_path), checks=dict.fromkeys(checks.CHECKS, "keep"))
    db = sqlite3.connect(":memory:")
    checks.stage(db, sources.find(asked), asked, 3, lambda *_: None)
    staged = db.execute("SELECT split, digest, label, draw FROM rows ORDER BY id").fetchall()
    checks.gate(db, asked, missing, 3)

    given = {digest for split, digest, *_ in staged if split == "test"}
    labels: dict[tuple[int, bytes], str] = {}
    for split, digest, label, draw in staged:
        if split == "train" and digest not in given:
            labels[draw, digest] = min(label, labels.get((draw, digest), label))
    classes = {name: [digest for (_, digest), label in sorted(labels.items()) if label == name] for name in "abcd"}
    drawn: dict[bytes, str] = {}
    for split, share in missing.items():
        for name, digests in classes.items():
            count = min(len(digests) - 1, max(1, int(len(digests) * share + 0.5)))
            drawn |= dict.fromkeys(digests[:count], split)
            classes[name] = digests[count:]
    expected = [drawn.get(digest, split) if split == "train" else split for split, digest, *_ in staged]
    assert [split for (split,) in db.execute("SELECT split FROM rows ORDER BY id")] == expected
    assert {*expected} == {"train", "validation", "test", "unlabelled"}


def test_the_seed_alone_decides_what_is_drawn(tmp_path: Path) -> None:
    once, again, other = (drawn(tmp_path / name, tiny.rows(2, 40), seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)])
    assert once == again
    assert {row["row"] for row in once["test"]} != {row["row"] for row in other["test"]}


def test_equal_texts_never_fall_on_two_sides(tmp_path: Path) -> None:
    rows = [(f"text {i % 20}", f"{'ab'[i % 2]}") for i in range(100)] + [(f"text {i}", "c") for i in range(20)]
    sides = [{row["text"] for row in found} for found in drawn(tmp_path, rows).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20


def test_a_drawn_split_shares_no_text_with_a_given_one(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "train.csv", tiny.rows(2, 20))
    tiny.write_csv(tmp_path / "test.csv", tiny.rows(2, 15))
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path))
    validation, test = ({row["text"] for row in tiny.read(folder, split)} for split in ("validation", "test"))
    assert validation
    assert not validation & test
    facts = data.describe(folder)
    assert [facts["splits"][split]["origin"] for split in ("train", "validation", "test")] == ["given", "drawn from train", "given"]


def test_a_subset_keeps_the_imbalance_and_every_class(tmp_path: Path) -> None:
    rows = [(f"{label} {i}", label) for label, count in {"a": 200, "b": 100, "c": 6, "d": 3}.items() for i in range(count)]
    for split in BASE:
        tiny.write_csv(tmp_path / f"{split}.csv", rows)
    folder = tiny.prepare(tmp_path / "store", source=str(tmp_path), rows={"train": 50, "test": 30, "min_per_class": 4})
    counts = {split: Counter(row["text"][0] for row in tiny.read(folder, split)) for split in BASE}
    assert counts["train"] == {"a": 29, "b": 14, "c": 4, "d": 3}
    assert counts["test"].total() == 30
    assert counts["validation"].total() == len(rows)
