"""How rows stand in CSV, TSV, JSONL and Parquet files, and what counts as a text and as a label.

Text files are decoded with `surrogateescape`, so a value has surrogates exactly where the file has bytes (or JSON
escapes) that are no character.
"""

import csv
import difflib
import json
import lzma
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from threephase_ray.errors import DataError

KINDS = {".csv": "csv", ".tsv": "tsv", ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
UNREADABLE = (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException)

Open = Callable[[], AbstractContextManager[Any]]  # a text, or the bytes of a Parquet file
Values = Iterator[tuple[int, Sequence[Any]]]  # line or row number, values of the wanted columns
Reader = Callable[[Open, str, Sequence[str]], Values]


def positions(header: Sequence[str], columns: Sequence[str], name: str) -> list[int]:
    """Where the columns stand in the header.

    Raises:
        DataError: names the first column that is missing and the nearest that exists.
    """
    for column in columns:
        if column not in header:
            near = difflib.get_close_matches(column, header, n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            shown = ", ".join(name[:30] for name in header[:10])
            advice = "set data.text_column or data.label_columns"
            raise DataError(f"{name}: has no column {column!r}{meant}\n  its columns: {shown}\n  {advice}")
    return [header.index(column) for column in columns]


def text(value: Any, place: str) -> str | None:
    """A text without surrounding white space, None where it is missing; anything but text is an error."""
    if value is None or isinstance(value, str):
        return value and value.strip()
    raise DataError(f"{place}: the text is a {type(value).__name__}: {value!r:.60}; data.text_column must name a column of texts")


def clean(value: str) -> str:
    """A text of a file with U+FFFD for what `surrogateescape` saved: bytes that are no character."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def label(value: Any, place: str) -> str | None:
    """A label as text: whole numbers without a point; None where it is missing: None, NaN, empty."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None or isinstance(value, str | int | float):
        name = "" if value is None else str(value).strip()
        return None if name in ("", "nan", "NaN") else name
    raise DataError(f"{place}: the label is a {type(value).__name__}: {value!r:.60}; labels must be text or numbers, one a row and level")


def _delimited(delimiter: str) -> Reader:
    """A reader of files whose first line names the columns."""

    def rows(opened: Open, name: str, columns: Sequence[str]) -> Values:
        quoted = delimiter == "," or is_quoted(opened)
        csv.field_size_limit(sys.maxsize)
        with opened() as file:
            reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True)
            header, wanted, line = [], [], 1
            try:
                header = [column.strip() for column in next(reader, [])]
                wanted = positions(header, columns, name)
                line = reader.line_num + 1
                for row in reader:
                    if len(row) not in (0, len(header)):
                        raise DataError(f"{name}, line {line}: has {len(row)} fields where the header has {len(header)}; check its quotes")
                    if row:
                        yield line, [row[position] for position in wanted]
                    line = reader.line_num + 1
            except csv.Error as error:
                raise DataError(f"{name}, line {line}: {error}; check its quotes") from error

    return rows


def is_quoted(opened: Open) -> bool:
    """Does a TSV file use quotes as CSV does? Many hold stray quotes instead, which then do not parse."""
    csv.field_size_limit(sys.maxsize)
    with opened() as file:
        try:
            return len({len(row) for row in csv.reader(file, delimiter="\t", strict=True) if row}) <= 1
        except csv.Error:
            return False


def _json_lines(opened: Open, name: str, columns: Sequence[str]) -> Values:
    """One JSON object a line; a key may be absent from some rows, not from all."""
    never_seen, keys = set(columns), [""]
    with opened() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{name}, line {number}: is not one JSON object a line: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{name}, line {number}: holds a {type(row).__name__} where one JSON object a line is needed")
            if never_seen:
                never_seen, keys = never_seen - row.keys(), [*row]
            yield number, [row.get(column) for column in columns]
    if keys != [""]:
        positions([*keys, *(set(columns) - never_seen)], columns, name)


def _parquet(opened: Open, name: str, columns: Sequence[str]) -> Values:
    """Rows of a Parquet file; whether its texts are characters is found out here, since Parquet does not check them."""
    with opened() as file:
        table = pq.ParquetFile(file, pre_buffer=False)  # which would keep what was read, to the end of the file
        positions(table.schema_arrow.names, columns, name)
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns))):
            for row in zip(*(_plain(batch.column(column)) for column in columns), strict=True):
                yield number, row
                number += 1


def _plain(column: Any) -> list[Any]:
    """Python values of an Arrow column."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            column = column.cast(pa.large_binary())
    if not pa.types.is_large_binary(column.type) and not pa.types.is_binary(column.type):
        return list(column.to_pylist())
    return [value if value is None else value.decode("utf-8", "surrogateescape") for value in column.to_pylist()]


READERS: dict[str, Reader] = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "jsonl": _json_lines,
    "parquet": _parquet,
}
