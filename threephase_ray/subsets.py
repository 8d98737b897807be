"""Subsets of the staged rows (see `checks.stage`): how many of each class are kept, which ones, and where the rest goes.

Rows are taken in the order of `draw`, which the seed and the text decide: with the same seed a smaller subset is part of a larger one.
"""

import json
import math
import sqlite3
from collections.abc import Callable
from hashlib import blake2b

from threephase_ray import config
from threephase_ray.errors import ConfigError
from threephase_ray.subsetting import Rows

Sizes = dict[str, int]  # rows of each class

_LEFT_OUT = """
    SELECT id FROM (
        SELECT id, label, row_number() OVER (PARTITION BY label ORDER BY draw, digest, row) AS nth FROM rows WHERE split = :split)
    JOIN quota USING (label) WHERE nth > quota.size"""
# By the low half of `draw`: training rows that a subset left out have a large `draw`, but are as good as any here.
_UNLABELLED = """
    DELETE FROM rows WHERE split = 'unlabelled' AND id NOT IN (
        SELECT id FROM rows WHERE split = 'unlabelled' ORDER BY draw & 268435455, draw, digest, row LIMIT :rows)"""


def take(db: sqlite3.Connection, data: config.Data, seed: int) -> None:
    """Take the subsets that `data.rows` asks for; `seed` decides which class is a large one where sizes are made unequal.

    Raises:
        ConfigError: a subset too small for its classes, or class sizes that the rows do not allow.
    """
    if not data.rows.draws:
        return
    for split in ("train", "validation", "test"):
        sizes = dict(db.execute("SELECT label, count(*) FROM rows WHERE split = ? GROUP BY label ORDER BY label", (split,)))
        if (kept := _kept(split, sizes, data.rows, seed)) is not None:
            _cut(db, split, kept, len(data.label_columns) if split == "train" and data.rows.rest == "unlabelled" else None)
    if data.rows.unlabelled is not None:
        db.execute(_UNLABELLED, {"rows": data.rows.unlabelled})


def _kept(split: str, sizes: Sizes, rows: Rows, seed: int) -> Sizes | None:
    """Rows of each class that a split keeps; None: all."""
    if split == "train" and rows.imbalance is not None:
        return long_tail(shuffled(sizes, seed), rows.imbalance, rows.per_class)
    if split == "train" and rows.per_class is not None:
        return {name: min(size, rows.per_class) for name, size in sizes.items()}
    most: int | None = getattr(rows, split)
    if most is None:
        return None
    least = sum(min(rows.min_per_class, size) for size in sizes.values())
    if least > most:
        wish = f"{rows.min_per_class} of each of {len(sizes)} classes (data.rows.min_per_class)"
        raise ConfigError(f"data.rows.{split}: {most} rows cannot hold {wish}; set at least {least}")
    return quotas(sizes, most, rows.min_per_class)


def _cut(db: sqlite3.Connection, split: str, kept: Sizes, levels: int | None) -> None:
    """Keep so many rows of each class; the others go, or where labels have `levels`, join the unlabelled split."""
    db.execute("DROP TABLE IF EXISTS temp.quota")
    db.execute("CREATE TEMP TABLE quota (label TEXT PRIMARY KEY, size INTEGER)")
    db.executemany("INSERT INTO quota VALUES (?, ?)", kept.items())
    db.execute("DROP TABLE IF EXISTS temp.rest")
    db.execute("CREATE TEMP TABLE rest AS " + _LEFT_OUT, {"split": split})
    if levels is None:
        db.execute("DELETE FROM rows WHERE id IN rest")
    else:
        unlabel(db, "SELECT id FROM rest", levels)


def unlabel(db: sqlite3.Connection, ids: str, levels: int) -> None:
    """Rows whose ids a statement finds join the unlabelled split without their labels; their numbers follow those that it has."""
    (after,) = db.execute("SELECT coalesce(max(row) + 1, 0) FROM rows WHERE split = 'unlabelled'").fetchone()
    db.execute(
        f"UPDATE rows SET split = 'unlabelled', label = NULL, labels = :none, row = row + :after WHERE id IN ({ids})",
        {"none": json.dumps([None] * levels), "after": after},
    )


def shuffled(sizes: Sizes, seed: int) -> Sizes:
    """The classes in an order that the seed and their names decide."""
    salt = seed.to_bytes(8, "big")
    return {name: sizes[name] for name in sorted(sizes, key=lambda name: (blake2b(name.encode(), key=salt).digest(), name))}


def long_tail(sizes: Sizes, ratio: float, per_class: int | None) -> Sizes:
    """Rows to keep of each class, for the i-th of k classes in proportion to ratio ** (-i / (k - 1)) (Cui et al. 2019).

    With `per_class` the classes keep k * per_class rows together: one that has too few keeps all it has, one whose share is below a
    row keeps one, and the others share the rest in proportion. Without, they keep the most rows with which no class has too few.

    Raises:
        ConfigError: there are fewer rows than asked for, or largest and smallest class would reach less than half of the ratio.
    """
    weights: dict[str, float] = {name: ratio ** (-i / max(1, len(sizes) - 1)) for i, name in enumerate(sizes)}
    scales = {name: size / weights[name] for name, size in sizes.items()}

    def share(name: str, scale: float) -> float:
        return scale * weights[name] + 0.5  # so that what is cut off is rounded

    if per_class is None:
        kept = {name: max(1, min(size, int(share(name, min(scales.values()))))) for name, size in sizes.items()}
    else:
        kept = _filled(sizes, per_class * len(sizes), 1, share, max(scales.values()))
    all_of_it = per_class is not None and per_class * len(sizes) > sum(sizes.values())
    if 2 * max(kept.values()) < ratio * min(kept.values()) or (all_of_it and ratio > 1):
        least = math.ceil(ratio * sum(weights.values()) / len(sizes))  # with so many the smallest class has a row
        raise ConfigError(_unreachable(sizes, kept, f"{ratio:,.10g} to 1", min(scales, key=lambda name: scales[name]), per_class, least))
    return kept


def _unreachable(sizes: Sizes, kept: Sizes, ratio: str, scarce: str, per_class: int | None, least: int) -> str:
    """Why class sizes of a ratio cannot be had, and what can."""
    reached = f"{max(kept.values()):,} to {min(kept.values()):,}"
    wish = f"{per_class:,} rows for each of {len(sizes)} classes" if per_class is not None else ""
    if per_class is None:
        why = f"as long as no class runs short: {scarce!r} has {sizes[scarce]:,} rows, which allow {reached}"
        advice = "set data.rows.per_class, with which a class that runs short keeps all its rows"
    elif per_class < least:
        why, advice = f"with {wish}, which allow {reached}", f"set data.rows.per_class to {least:,} or more"
    else:
        why, advice = f"with {wish}, of {sum(sizes.values()):,} in all: it would be {reached}", "set data.rows.per_class to less"
    return f"data.rows.imbalance: {ratio} cannot be reached {why}\n  {advice}, or data.rows.imbalance to less"


def quotas(sizes: Sizes, rows: int, minimum: int) -> Sizes:
    """Rows to keep of each class: in proportion to its size, but `minimum` (or all it has) at least; `rows` in total at most."""
    return _filled(sizes, rows, minimum, lambda name, scale: scale * sizes[name], 1.0)


def _filled(sizes: Sizes, rows: int, least: int, share: Callable[[str, float], float], highest: float) -> Sizes:
    """`rows` in total, or all: each class its share at one scale (below `highest`), cut off; `least` at least, all it has at most."""

    def wanted(scale: float) -> dict[str, float]:
        return {name: min(size, share(name, scale)) for name, size in sizes.items()}

    def kept(scale: float) -> Sizes:
        return {name: max(min(least, sizes[name]), int(wish)) for name, wish in wanted(scale).items()}

    if sum(sizes.values()) <= rows:
        return sizes
    low, high = 0.0, highest
    for _ in range(50 + math.ceil(math.log2(highest))):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(kept(middle).values()) <= rows else (low, middle)
    chosen, wishes = kept(low), wanted(low)
    nearest_first = sorted(sizes, key=lambda name: chosen[name] - wishes[name])
    for name in nearest_first[: rows - sum(chosen.values())]:
        chosen[name] += 1
    return chosen
