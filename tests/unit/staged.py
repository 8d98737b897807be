"""Rows as they are staged: after the checks and the subsets, before they are tokenised."""

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit import tiny
from threephase_ray import checks, config, sources


class Row(NamedTuple):
    """A row that would be tokenised."""

    row: int
    label: str | None
    labels: str
    text: str


def gated(source: Path, seed: int = 0, **knobs: Any) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """The rows of each split as they go to the shards, and the report."""
    asked = config.Data.model_validate({"source": str(source)} | knobs)
    db = sqlite3.connect(":memory:")
    found = sources.find(asked)
    checks.stage(db, found, asked, seed, lambda *_: None)
    missing = {split: 0.2 for split in ("test", "validation") if split not in found}
    report = checks.gate(db, asked, missing, seed)
    splits: dict[str, list[Row]] = {}
    for split, *row in db.execute("SELECT split, row, label, labels, text FROM rows ORDER BY id"):
        splits.setdefault(split, []).append(Row(*row))
    return splits, report


def texts(rows: list[Row]) -> set[str]:
    """Their texts."""
    return {row.text for row in rows}


def of_sizes(sizes: dict[str, int]) -> list[tuple[str, str]]:
    """Distinct texts of each class."""
    return [(f"{label} {i}", label) for label, size in sizes.items() for i in range(size)]


def four_classes(folder: Path) -> Path:
    """Classes of 60, 40, 20 and 3 training rows; validation, test and unlabelled splits are given."""
    tiny.write_csv(folder / "train.csv", of_sizes({"a": 60, "b": 40, "c": 20, "d": 3}))
    for split in ("validation", "test"):
        tiny.write_csv(folder / f"{split}.csv", [(f"{split} {text}", label) for text, label in of_sizes({"a": 5, "b": 5, "d": 2})])
    tiny.write_csv(folder / "unlabelled.csv", [(f"more {i}",) for i in range(50)], ["text"])
    return folder
