"""Files as shards: every row once, in order, with all its columns, wherever one begins to read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit import tiny
from threephase_ray import sources
from threephase_ray.errors import DataError
from threephase_ray.predictions import rows

ROWS = [(f"text {i}", str(i), 'a "b", c' if i % 3 else "") for i in range(25)]
COLUMNS = ["text", "number", "odd"]


def write(folder: Path, kind: str) -> sources.File:
    path = folder / f"some.{kind}"
    if kind in ("csv", "csv.gz"):
        tiny.write_csv(folder / "some.csv", ROWS, COLUMNS)
        if kind == "csv.gz":
            import gzip

            path.write_bytes(gzip.compress((folder / "some.csv").read_bytes()))
    elif kind == "tsv":
        path.write_text("\n".join(["\t".join(COLUMNS), *("\t".join(row) for row in ROWS)]) + "\n\n")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in ROWS) + "\n")
    else:
        table = pa.table({name: list(column) for name, column in zip(COLUMNS, zip(*ROWS, strict=True), strict=True)})
        pq.write_table(table, path, row_group_size=7)
    (found,) = sources.files(str(path), "input.files")
    return found


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [1, 4, 10, 25, 100])
def test_shards_hold_every_row_once_with_all_columns(tmp_path: Path, kind: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_AT_ONCE", 6)
    file = write(tmp_path, kind)
    shards = rows.shards(file, size, "text", "utf-8")
    assert [shard.first for shard in shards] == list(range(0, 25, size))
    assert sum(shard.rows for shard in shards) == 25
    for begin in (0, len(shards) // 2, len(shards) - 1):  # a resumed job begins anywhere
        read = list(rows.tables(file, shards[begin:], "utf-8"))
        assert [shard for shard, _ in read] == shards[begin:]
        found = [tuple(row[name] for name in COLUMNS) for _, table in read for row in table.to_pylist()]
        assert found == ROWS[shards[begin].first :]
    lonely = [*shards[:1], *shards[1:][-1:]]
    assert [table.num_rows for _, table in rows.tables(file, lonely, "utf-8")] == [shard.rows for shard in lonely]


def test_columns_that_come_late_in_a_jsonl_file_are_null_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_AT_ONCE", 2)
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps({"text": "a"} | ({"late": i} if i > 2 else {})) for i in range(5)))
    (file,) = sources.files(str(path), "input.files")
    ((_, table),) = rows.tables(file, rows.shards(file, 10, "text", "utf-8"), "utf-8")
    assert table.to_pylist() == [{"text": "a", "late": i if i > 2 else None} for i in range(5)]


def test_bytes_that_are_no_character_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(b"text\ncaf\xe9\nfine\n")
    (file,) = sources.files(str(path), "input.files")
    ((_, table),) = rows.tables(file, rows.shards(file, 10, "text", "utf-8"), "utf-8")
    assert table["text"].to_pylist() == ["caf\ufffd", "fine"]
    ((_, table),) = rows.tables(file, rows.shards(file, 10, "text", "latin-1"), "latin-1")
    assert table["text"].to_pylist() == ["café", "fine"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"text,b\nx,1,2\n", "has 3 fields where the header has 2"),
        ("a.csv", b"word\nx\n", "has no column 'text'"),
        ("a.jsonl", b'{"text": 1}\n[]\n', "line 2: holds a list"),
        ("a.parquet", b"PAR1 no PAR1", "cannot be read as parquet"),
    ],
)
def test_what_cannot_be_read_is_named_before_anything_starts(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    (file,) = sources.files(str(tmp_path / name), "input.files")
    with pytest.raises(DataError, match="a\\.") as error:
        rows.shards(file, 10, "text", "utf-8")
    assert told in str(error.value)
