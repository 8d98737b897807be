"""Rows of files with all their columns, as Arrow tables of a fixed number of rows: the shards that are scored one by one."""

import contextlib
import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from threephase_ray import formats
from threephase_ray.errors import DataError
from threephase_ray.sources import File

_AT_ONCE = 4096  # rows of a text file that become a table


@dataclass(frozen=True)
class Shard:
    """Some rows of one file: `number` counts its shards, `first` is the first row."""

    file: File
    number: int
    first: int
    rows: int


def shards(file: File, size: int, column: str, encoding: str) -> list[Shard]:
    """The file as shards of `size` rows, the last one perhaps smaller.

    Raises:
        DataError: it cannot be read, or has no such column.
    """
    with _explained(file):
        count = _count(file, column, encoding)
    return [Shard(file, number, first, min(size, count - first)) for number, first in enumerate(range(0, count, size))]


def header(file: File, encoding: str) -> list[str]:
    """The file's columns; of a JSONL file those of its first object.

    Raises:
        DataError: it cannot be read.
    """
    with _explained(file):
        if file.kind == "parquet":
            with file.open(encoding) as opened:
                return list(pq.ParquetFile(opened).schema_arrow.names)
        return list(next((_json if file.kind == "jsonl" else _delimited)(file, encoding), pa.table({})).column_names)


def tables(file: File, wanted: list[Shard], encoding: str) -> Iterator[tuple[Shard, pa.Table]]:
    """The rows of some shards of a file, in its order, with all columns: those of CSV and TSV files as text.

    Raises:
        DataError: the file cannot be read.
    """
    with _explained(file):
        if file.kind == "parquet":
            yield from ((shard, _parquet(shard)) for shard in wanted)
        else:
            reader = _json if file.kind == "jsonl" else _delimited
            yield from _cut(reader(file, encoding), wanted)


@contextlib.contextmanager
def _explained(file: File) -> Iterator[None]:
    """Turn what reading a file raises into an error that names it."""
    try:
        yield
    except formats.UNREADABLE as error:
        raise DataError(f"{file.name}: cannot be read as {file.kind}: {' '.join(str(error).split())[:200]}") from error


def _count(file: File, column: str, encoding: str) -> int:
    """Rows of the file; its column is looked for."""
    if file.kind != "parquet":
        return sum(1 for _ in file.values([column], encoding))
    with file.open(encoding) as opened:
        table = pq.ParquetFile(opened)
        formats.positions(table.schema_arrow.names, [column], file.name)
        return int(table.metadata.num_rows)


def _cut(batches: Iterator[pa.Table], wanted: list[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
    """The wanted stretches of a stream of tables."""
    held, before = pa.table({}), 0  # rows that are not handed out yet, and how many came before them
    for shard in wanted:
        while before + len(held) < shard.first + shard.rows:
            batch = next(batches)
            if before + len(held) + len(batch) <= shard.first:
                before, held = before + len(held) + len(batch), pa.table({})
            else:
                held = pa.concat_tables([held, batch], promote_options="permissive") if len(held) else batch.slice(0)
        yield shard, held.slice(shard.first - before, shard.rows).combine_chunks()
        used = shard.first + shard.rows - before
        before, held = before + used, held.slice(used)


def _delimited(file: File, encoding: str) -> Iterator[pa.Table]:
    """A CSV or TSV file, every column as text, in pieces."""
    delimiter = "," if file.kind == "csv" else "\t"
    quoted = file.kind == "csv" or formats.is_quoted(lambda: file.open(encoding))
    csv.field_size_limit(2**31 - 1)
    with file.open(encoding) as opened:
        reader = csv.reader(opened, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True)
        header = [column.strip() for column in next(reader)]
        filled = (row for row in reader if row)
        while rows := list(itertools.islice(filled, _AT_ONCE)):
            columns = [pa.array([formats.clean(value) for value in column], pa.string()) for column in zip(*rows, strict=True)]
            yield pa.table(dict(zip(header, columns, strict=True)))


def _json(file: File, encoding: str) -> Iterator[pa.Table]:
    """A file of one JSON object a line, in pieces; a piece has the columns that its objects have."""
    with file.open(encoding) as opened:
        lines = (json.loads(line) for line in opened if line.strip())
        while rows := list(itertools.islice(lines, _AT_ONCE)):
            keys = dict.fromkeys(key for row in rows for key in row)
            yield pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows])


def _parquet(shard: Shard) -> pa.Table:
    """Rows of a Parquet file; only the groups that hold them are read."""
    with shard.file.open("utf-8") as opened:
        table = pq.ParquetFile(opened)
        ends = list(itertools.accumulate(table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)))
        starts = [0, *ends[:-1]]
        last = shard.first + shard.rows
        groups = [i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if start < last and end > shard.first]
        return table.read_row_groups(groups).slice(shard.first - starts[groups[0]], shard.rows).combine_chunks()
