"""The gate: rows are staged in an SQLite file, and each check, drawn split and subset is one statement there.

So memory stays bounded. In order: `RAW` checks on all rows as they were read; texts of other lengths than `data.words` go; missing
splits are drawn, then subsets taken; the other checks, on the rows that are used. What a check drops no later one sees.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, NamedTuple

from threephase_ray import config, sources, subsets
from threephase_ray.errors import DataError

Progress = Callable[[str, int, int], None]


class Check(NamedTuple):
    """One kind of doubtful rows."""

    flagged: str  # the statement that finds their ids
    unit: str = "rows"  # what `count` counts: rows, classes (of one row each), or distinct texts
    drops: tuple[str, ...] = sources.SPLITS  # the splits from which `drop` removes them


RAW = ("empty_text", "bad_encoding", "missing_label")
CHECKS = {
    "empty_text": Check("SELECT id FROM rows WHERE empty"),
    "bad_encoding": Check("SELECT id FROM rows WHERE bad"),
    "missing_label": Check("SELECT id FROM rows WHERE label IS NULL AND split <> 'unlabelled'", drops=("train", "validation", "test")),
    "duplicate": Check(
        """SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY split, digest, labels ORDER BY row) AS nth FROM rows
           WHERE id IN copies) WHERE nth > 1"""
    ),
    "conflicting_label": Check(
        """SELECT id FROM rows WHERE id IN copies AND (split, digest) IN
           (SELECT split, digest FROM rows WHERE id IN copies GROUP BY split, digest HAVING count(DISTINCT labels) > 1)""",
        unit="texts",
        drops=("train",),
    ),
    "overlap": Check(  # a text that is both labelled for training and unlabelled does no harm
        """SELECT id FROM rows WHERE id IN copies AND digest IN (SELECT digest FROM rows WHERE id IN copies GROUP BY digest
           HAVING count(DISTINCT split) > 1 AND max(split IN ('validation', 'test')))""",
        unit="texts",
        drops=("train", "unlabelled"),
    ),
    "single_row_class": Check("SELECT min(id) FROM rows WHERE split = 'train' GROUP BY label HAVING count(*) = 1", unit="classes"),
    "unseen_label": Check(
        """SELECT id FROM rows WHERE split IN ('validation', 'test')
           AND label NOT IN (SELECT label FROM rows WHERE split = 'train')"""
    ),
}
_WORDS = Check("SELECT id FROM rows WHERE outside")  # what `data.words` leaves out is reported as if a check had dropped it
# Rows whose texts may be equal, since their draws are: whatever compares rows by their texts looks at these and not at all.
_COPIES = (
    "CREATE TEMP TABLE copies (id INTEGER PRIMARY KEY)",
    "INSERT INTO copies SELECT id FROM rows WHERE draw IN (SELECT draw FROM rows GROUP BY draw HAVING count(*) > 1)",
)
# A row of each text that may be drawn, classes one after the other, each in the order in which it is drawn from.
_DECK = """
    CREATE TEMP TABLE deck AS SELECT id, label FROM (
        SELECT id, label, draw, digest FROM rows WHERE split = 'train' AND id NOT IN copies
        UNION ALL
        SELECT min(id), min(label), draw, digest FROM rows WHERE split <> 'unlabelled' AND id IN copies
        GROUP BY digest HAVING min(split = 'train'))
    ORDER BY label, draw, digest"""
_CLASSES = "CREATE TEMP TABLE classes AS SELECT min(rowid) AS first, count(*) AS size FROM deck GROUP BY label"
_DRAWN = "min(size - 1, max(1, round(size * :share)))"  # of each class
_DRAW = (
    f"""UPDATE rows SET split = :split WHERE id IN
        (SELECT id FROM classes JOIN deck ON deck.rowid >= first AND deck.rowid < first + {_DRAWN})""",
    """UPDATE rows SET split = :split WHERE split = 'train' AND id IN copies
       AND digest IN (SELECT digest FROM rows WHERE split = :split AND id IN copies)""",
    f"UPDATE classes SET first = first + {_DRAWN}, size = size - {_DRAWN}",
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def stage(db: sqlite3.Connection, found: dict[str, list[sources.Origin]], data: config.Data, seed: int, progress: Progress) -> None:
    """Read every row into the table `rows`; `seed` decides which ones are drawn later.

    Raises:
        DataError: rows that cannot be read, or a split without rows.
    """
    found_out = "empty INTEGER, bad INTEGER, outside INTEGER"
    columns = f"split TEXT, row INTEGER, label TEXT, labels TEXT, digest BLOB, draw INTEGER, {found_out}, text TEXT"
    db.execute(f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {columns})")
    for split, origins in found.items():
        count = 0
        rows = _staged(split, origins, data, seed)
        while batch := list(islice(rows, 500)):
            db.executemany("INSERT INTO rows VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)
            count += len(batch)
            progress(f"reading {split}", count, 0)
        if count == 0:
            raise DataError(f"the {split} split has no rows: {', '.join(origin.name for origin in origins[:5])}")


def _staged(split: str, origins: list[sources.Origin], data: config.Data, seed: int) -> Iterator[tuple[Any, ...]]:
    """Rows of a split as the table holds them; equal texts have the same digest and the same draw.

    Digests are byte arrays and flags whole numbers, which SQLite takes as they are; bytes and truth values it would adapt, one by one.
    """
    salted = blake2b(digest_size=7, key=seed.to_bytes(8, "big"))
    raw = chain.from_iterable(sources.read(origin, data, labelled=split != "unlabelled") for origin in origins)
    for row, (given, names) in enumerate(raw):
        text, bad_text = _clean(given if given is not None else "")
        label, labels, bad_label = _labels(names)
        digest = blake2b(text.encode(), digest_size=16).digest()
        draw = salted.copy()
        draw.update(digest)
        empty = not any(map(str.isprintable, text.replace(" ", "")))
        flags = int(empty), int(bad_text or bad_label), int(_outside(text, data.words))
        yield split, row, label, labels, bytearray(digest), int.from_bytes(draw.digest(), "big"), *flags, text


def _outside(text: str, words: tuple[int, int | None] | None) -> bool:
    """Whether a text has fewer or more words than are asked for."""
    if words is None:
        return False
    count, (least, most) = len(text.split()), words
    return count < least or (most is not None and count > most)


@lru_cache(maxsize=10_000)
def _labels(names: tuple[str | None, ...]) -> tuple[str | None, str, bool]:
    """The finest label, all levels as JSON, and whether one holds what is no character; a row lacks all levels or none."""
    if None in names:
        return None, json.dumps([None] * len(names)), False
    labels, bad = zip(*(_clean(str(name)) for name in names), strict=True)
    return labels[-1], json.dumps(labels), any(bad)


def _clean(text: str) -> tuple[str, bool]:
    """Replace what is no character by U+FFFD, and say whether there was any."""
    if text.isascii():
        return text, False
    cleaned, count = _SURROGATES.subn("\ufffd", text)
    return cleaned, count > 0


def gate(db: sqlite3.Connection, data: config.Data, missing: dict[str, float], seed: int) -> dict[str, dict[str, Any]]:
    """Check the staged rows, draw the `missing` splits (name to share), take the subsets; what each check, and `data.words`, found.

    Raises:
        DataError: checks whose policy is `error`, all at once; an empty split; fewer than two classes to train on.
        ConfigError: as `subsets.take`.
    """
    policies: dict[str, str] = data.checks.model_dump()
    levels = len(data.label_columns)
    for statement in _COPIES:
        db.execute(statement)
    report = {kind: _check(db, CHECKS[kind], policies[kind], levels) for kind in RAW}
    if data.words is not None:
        report["words"] = _check(db, _WORDS, "drop", levels)
    _require(db, ("train",), report)
    if missing:
        _draw(db, missing)
    subsets.take(db, data, seed)
    report |= {kind: _check(db, check, policies[kind], levels) for kind, check in CHECKS.items() if kind not in RAW}
    _refuse(report)
    _require(db, ("train", "validation", "test"), report)
    return report


def _draw(db: sqlite3.Connection, missing: dict[str, float]) -> None:
    """Draw splits from the training split, one after the other: of each class a share of its texts, with all their rows."""
    for statement in (_DECK, _CLASSES):
        db.execute(statement)
    for split, share in missing.items():
        for statement in _DRAW:
            db.execute(statement, {"split": split, "share": share})


def split_sizes(db: sqlite3.Connection) -> dict[str, int]:
    """Rows of each split that has any, in their usual order."""
    sizes = dict(db.execute("SELECT split, count(*) FROM rows GROUP BY split"))
    return {split: sizes[split] for split in sources.SPLITS if split in sizes}


def _check(db: sqlite3.Connection, check: Check, policy: str, levels: int) -> dict[str, Any]:
    """Flag the rows that a check is about, and do with them what its policy says."""
    db.execute("DROP TABLE IF EXISTS temp.flagged")
    db.execute("CREATE TEMP TABLE flagged AS " + check.flagged)
    found = {"policy": policy} | _found(db, check.unit)
    _apply(db, check, policy, levels)
    return found


def _found(db: sqlite3.Connection, unit: str) -> dict[str, Any]:
    """Count the flagged rows, and show a few; copies of a text side by side."""
    texts, rows = db.execute("SELECT count(DISTINCT digest), count(*) FROM rows WHERE id IN flagged").fetchone()
    examples = db.execute(
        """SELECT split, row, label, substr(text, 1, 60) FROM rows WHERE id IN flagged
           ORDER BY CASE ? WHEN 'texts' THEN digest END, split, row LIMIT 3""",
        (unit,),
    )
    return {
        "unit": unit,
        "count": texts if unit == "texts" else rows,
        "splits": dict(db.execute("SELECT split, count(*) FROM rows WHERE id IN flagged GROUP BY split ORDER BY split")),
        "examples": [dict(zip(("split", "row", "label", "text"), example, strict=True)) for example in examples],
    }


def _apply(db: sqlite3.Connection, check: Check, policy: str, levels: int) -> None:
    """Remove what is to be dropped of the flagged rows; errors are removed too, so that the other checks can go on."""
    if check is CHECKS["missing_label"] and policy == "keep":  # training rows: no other split can do without labels
        subsets.unlabel(db, "SELECT id FROM rows WHERE split = 'train' AND label IS NULL", levels)
    elif policy == "keep":
        return
    for split in check.drops:
        db.execute("DELETE FROM rows WHERE id IN flagged AND split = ?", (split,))


def _refuse(report: dict[str, dict[str, Any]]) -> None:
    """Raise if a check whose policy is `error` found anything."""
    lines = []
    for kind, found in report.items():
        if found["policy"] == "error" and found["count"]:
            shown = "; ".join(f"{example['split']} row {example['row']} {example['text'][:30]!r}" for example in found["examples"])
            lines.append(f"  {kind}: {found['count']} {found['unit']}, such as {shown}")
    if lines:
        advice = "to go on, correct the data, or set data.checks.<name> to drop or keep"
        raise DataError("\n".join(["the data fails checks that are set to `error`:", *lines, advice]))


def _require(db: sqlite3.Connection, splits: tuple[str, ...], report: dict[str, dict[str, Any]]) -> None:
    """Raise if a split has no row (left), or if there are not two classes to tell apart."""
    problems = []
    for split in sorted(set(splits) - split_sizes(db).keys()):
        counts = ", ".join(f"{kind} {found['splits'][split]}" for kind, found in report.items() if split in found["splits"])
        knobs = "data.checks and data.words" if "words" in report else "data.checks"
        why = f"checks found {counts}; see {knobs}" if counts else "the training split has too few distinct texts to draw it from"
        problems.append(f"the {split} split has no row left: {why}")
    names = [label for (label,) in db.execute("SELECT DISTINCT label FROM rows WHERE split = 'train' LIMIT 2")]
    if len(names) == 1:
        problems.append(f"the train split has one class only, {names[0]!r}; a classifier needs two: see data.label_columns")
    if problems:
        _refuse(report)
        raise DataError("\n".join(problems))
