"""Subsets as they are staged: class sizes against naive computations, which rows, what becomes of the rest."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.staged import four_classes, gated, texts
from threephase_ray import config, subsets
from threephase_ray.errors import ConfigError

ATIS = Path(__file__).parents[2] / "../shared/data/atis"
Sizes = dict[str, int]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return four_classes(tmp_path / "in")


def row_by_row(sizes: Sizes, start: Sizes, rows: int, weights: dict[str, float], offset: float) -> Sizes:
    """One row after another, to the class that is due at the smallest scale."""
    kept = dict(start)
    while sum(kept.values()) < rows and kept != sizes:
        kept[min((name for name in sizes if kept[name] < sizes[name]), key=lambda name: (kept[name] + offset) / weights[name])] += 1
    return kept


def tables(count: int, least: int = 1) -> list[Sizes]:
    rng = np.random.default_rng(0)
    largest = rng.choice([3, 30, 150], size=count)
    return [{f"class {i}": int(size) for i, size in enumerate(rng.integers(least, least + most, rng.integers(2, 12)))} for most in largest]


@pytest.mark.parametrize(
    ("given", "rows", "minimum", "expected"),
    [
        ({"a": 5, "b": 5}, 100, 1, {"a": 5, "b": 5}),
        ({"a": 90, "b": 10}, 10, 1, {"a": 9, "b": 1}),
        ({"a": 90, "b": 10}, 10, 4, {"a": 6, "b": 4}),
        ({"a": 1000, "b": 2, "c": 1}, 7, 4, {"a": 4, "b": 2, "c": 1}),
        ({"a": 3, "b": 3, "c": 3}, 7, 1, {"a": 3, "b": 2, "c": 2}),
    ],
)
def test_quotas(given: Sizes, rows: int, minimum: int, expected: Sizes) -> None:
    assert subsets.quotas(given, rows, minimum) == expected


@pytest.mark.parametrize(("sizes", "seed"), [(sizes, seed) for seed, sizes in enumerate(tables(40))], ids=lambda given: str(given)[:12])
def test_sizes_are_those_of_giving_row_by_row(sizes: Sizes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, ratio = int(rng.integers(len(sizes), sum(sizes.values()) + 1)), float(rng.choice([1, 1.5, 10, 100, 5000]))
    least = {name: min(2, size) for name, size in sizes.items()}
    if rows >= sum(least.values()):
        proportional = subsets.quotas(sizes, rows, 2)
        assert sum(proportional.values()) == rows
        by_hand = row_by_row(sizes, least, rows, {name: float(size) for name, size in sizes.items()}, 1.0)
        assert all(abs(proportional[name] - by_hand[name]) <= 1 for name in sizes)  # of classes that are due at once, either may come first
    per_class = rows // len(sizes)
    weights = {name: ratio ** (-i / (len(sizes) - 1)) for i, name in enumerate(sizes)}
    by_hand = row_by_row(sizes, dict.fromkeys(sizes, 1), per_class * len(sizes), weights, 0.5)
    try:
        assert subsets.long_tail(sizes, ratio, per_class) == by_hand
    except ConfigError:
        assert max(by_hand.values()) / min(by_hand.values()) < ratio / 2


@pytest.mark.parametrize("ratio", [1.0, 3.0, 100.0])
def test_a_long_tail_falls_geometrically(ratio: float) -> None:
    sizes = dict.fromkeys("abcdefgh", 100_000)
    for kept in (subsets.long_tail(sizes, ratio, 5_000), subsets.long_tail(sizes, ratio, None)):
        ordered = list(kept.values())
        assert ordered[0] / ordered[-1] == pytest.approx(ratio, rel=0.01)
        assert all(small / large == pytest.approx(ratio ** (-1 / 7), rel=0.01) for large, small in pairwise(ordered))
    assert sum(subsets.long_tail(sizes, ratio, 5_000).values()) == 40_000
    assert subsets.long_tail(sizes, ratio, None)["a"] == 100_000


@pytest.mark.parametrize("sizes", tables(20, least=40), ids=str)
def test_without_a_number_of_rows_it_is_as_large_as_no_class_runs_short(sizes: Sizes) -> None:
    kept, k = subsets.long_tail(sizes, 8.0, None), len(sizes)
    profile = [8.0 ** (-i / (k - 1)) for i in range(k)]
    scale = min(size / part for size, part in zip(sizes.values(), profile, strict=True))
    assert list(kept.values()) == pytest.approx([scale * part for part in profile], abs=0.501)
    assert any(kept[name] == sizes[name] for name in sizes)
    assert all(kept[name] <= sizes[name] for name in sizes)


@pytest.mark.parametrize("sizes", tables(10), ids=str)
def test_more_rows_per_class_never_take_a_row_from_a_class(sizes: Sizes) -> None:
    found = []
    for per_class in range(1, sum(sizes.values()) // len(sizes)):
        try:
            found.append(subsets.long_tail(sizes, 3.0, per_class))
        except ConfigError:
            continue
    assert all(less[name] <= more[name] for less, more in pairwise(found) for name in sizes)


def test_what_a_class_lacks_is_shared_by_the_others() -> None:
    sizes = {"a": 400, "rare": 2, "b": 400, "lone": 1, "c": 400}
    assert subsets.long_tail(sizes, 1.0, 50) == {"a": 83, "rare": 2, "b": 82, "lone": 1, "c": 82}
    kept = subsets.long_tail(sizes, 16.0, 50)
    assert sum(kept.values()) == 250
    assert (kept["rare"], kept["lone"]) == (2, 1)
    assert kept["a"] / kept["b"] == pytest.approx(4, rel=0.03)  # in proportion, as they would be without the rare ones
    assert kept["a"] / kept["c"] == pytest.approx(16, rel=0.05)


def test_each_class_is_the_largest_for_some_seed_and_stays_in_its_place() -> None:
    sizes = dict.fromkeys("abcdef", 9)
    orders = [list(subsets.shuffled(sizes, seed)) for seed in range(300)]
    assert set(map(len, map(set, orders))) == {6}
    for place in (0, 5):
        counts = Counter(order[place] for order in orders)
        assert min(counts[name] for name in "abcdef") >= 30  # 50 expected
    without = dict.fromkeys("fbda", 9)
    assert all(list(subsets.shuffled(without, seed)) == [name for name in orders[seed] if name in without] for seed in range(300))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"imbalance": 50},
            "data.rows.imbalance: 50 to 1 cannot be reached as long as no class runs short: 'd' has 3 rows, which allow 3 to 1",
        ),
        ({"imbalance": 50}, "set data.rows.per_class, with which a class that runs short keeps all its rows"),
        ({"imbalance": 100, "per_class": 5}, "100 to 1 cannot be reached with 5 rows for each of 4 classes, which allow 1"),
        ({"imbalance": 100, "per_class": 5}, "set data.rows.per_class to 32 or more, or data.rows.imbalance to less"),
        (
            {"imbalance": 2, "per_class": 31},
            "2 to 1 cannot be reached with 31 rows for each of 4 classes, of 123 in all: it would be 60 to 3",
        ),
        ({"imbalance": 2, "per_class": 31}, "set data.rows.per_class to less, or data.rows.imbalance to less"),
        ({"train": 9}, "data.rows.train: 9 rows cannot hold 4 of each of 4 classes (data.rows.min_per_class); set at least 15"),
    ],
)
def test_what_cannot_be_had_is_refused(source: Path, rows: dict[str, Any], message: str) -> None:
    seed = next(seed for seed in range(99) if next(iter(subsets.shuffled(dict.fromkeys("abcd", 1), seed))) == "d")
    with pytest.raises(ConfigError) as caught:
        gated(source, seed, rows=rows)
    assert message in str(caught.value)


def test_at_most_so_many_rows_of_each_class(source: Path) -> None:
    splits, report = gated(source, rows={"per_class": 20})
    whole, _ = gated(source)
    assert Counter(row.label for row in splits["train"]) == {"a": 20, "b": 20, "c": 20, "d": 3}
    assert all(splits[split] == whole[split] for split in ("validation", "test", "unlabelled"))
    assert report.keys() == config.Checks.model_fields.keys()


@pytest.mark.parametrize("imbalance", [None, 1.0, 4.0])
def test_with_the_same_seed_a_smaller_subset_is_part_of_a_larger_one(source: Path, imbalance: float | None) -> None:
    drawn = [texts(gated(source, 3, rows={"per_class": size, "imbalance": imbalance})[0]["train"]) for size in (4, 7, 15)]
    assert drawn[0] < drawn[1] < drawn[2]
    assert drawn[0] != texts(gated(source, 4, rows={"per_class": 4, "imbalance": imbalance})[0]["train"])


def test_the_order_of_the_files_rows_does_not_matter(source: Path) -> None:
    before = texts(gated(source, rows={"per_class": 10, "imbalance": 6})[0]["train"])
    lines = (source / "train.csv").read_text().splitlines()
    (source / "train.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert texts(gated(source, rows={"per_class": 10, "imbalance": 6})[0]["train"]) == before


def test_imbalance_changes_the_profile_and_not_the_number_of_rows(source: Path) -> None:
    flat, steep = (gated(source, 1, rows={"per_class": 15, "imbalance": ratio})[0] for ratio in (1, 10))
    assert len(flat["train"]) == len(steep["train"]) == 60
    assert Counter(row.label for row in flat["train"]) == {"a": 19, "b": 19, "c": 19, "d": 3}
    assert steep["test"] == flat["test"]
    assert {Counter(row.label for row in gated(source, seed, rows={"per_class": 9, "imbalance": 10})[0]["train"]).most_common(1)[0][0]
            for seed in range(12)} == set("abc")  # fmt: skip


@pytest.mark.skipif(not ATIS.exists(), reason=f"needs the ATIS data set in {ATIS}")
def test_classes_with_few_rows_keep_them() -> None:
    before = Counter(row.label for row in gated(ATIS)[0]["train"])
    flat, steep = (gated(ATIS, rows={"per_class": 20, "imbalance": ratio})[0]["train"] for ratio in (1, 100))
    assert len(flat) == len(steep) == 20 * len(before)
    counts = Counter(row.label for row in flat)
    shared = {counts[label] for label in before if counts[label] < before[label]}
    assert max(shared) - min(shared) <= 1
    assert all(counts[label] == before[label] for label in before if before[label] < min(shared))
