"""Bad data: each case is refused with exit code 3 (or 2), says what to do, and leaves nothing half-written."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit import tiny
from threephase_ray.errors import ConfigError, DataError

GOOD = "".join(f"{text},{label}\n" for text, label in [("text", "label"), *tiny.rows()])
Make = Callable[[Path], None]


def file(name: str, content: str | bytes) -> Make:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def table(name: str, **columns: Any) -> Make:
    return lambda folder: pq.write_table(pa.table(columns), folder / name)


def files(*makes: Make) -> Make:
    def make(folder: Path) -> None:
        for one in makes:
            one(folder)

    return make


CASES: dict[str, tuple[Make, dict[str, Any], str]] = {
    "no such path": (file("a.csv", GOOD), {"source": "{}/b.csv"}, "data.source: {}/b.csv does not exist; set it to"),
    "no such folder": (file("a.csv", GOOD), {"train": "{}/in/deep/folder"}, "data.train: {}/in/deep/folder does not exist"),
    "glob without files": (file("a.csv", GOOD), {"train": "{}/*.tsv"}, "data.train: {}/*.tsv leads to no file ending in .csv, .tsv"),
    "unknown scheme": (file("a.csv", GOOD), {"train": "gopher://host/a.csv"}, "gopher://host/a.csv cannot be reached: Protocol not known"),
    "host that is not there": (
        file("a.csv", GOOD),
        {"train": "ftp://localhost:1/a.csv"},
        "cannot be reached: [Errno 111] Connection refused",
    ),
    "unknown format": (file("a.docx", GOOD), {"train": "{}/a.docx"}, "leads to no file ending in .csv"),
    "folder without splits": (
        file("a.csv", GOOD),
        {"source": "{}"},
        "has no file named after a split, but a.csv; name the files train.csv",
    ),
    "no training split": (file("test.csv", GOOD), {"source": "{}"}, "has no training split, but test; name it with data.train"),
    "empty file": (file("a.csv", ""), {"source": "{}/a.csv"}, "a.csv: has no column 'text'"),
    "header alone": (file("a.csv", "text,label\n"), {"source": "{}/a.csv"}, "the train split has no rows: {}/a.csv"),
    "empty test file": (
        files(file("train.csv", GOOD), file("test.jsonl", "\n")),
        {"source": "{}"},
        "the test split has no rows: {}/test.jsonl",
    ),
    "column of another name": (file("a.csv", "texts,label\na,b\n"), {"source": "{}/a.csv"}, "has no column 'text'; did you mean 'texts'?"),
    "no label column": (file("a.jsonl", '{"text": "a", "Label": 1}\n'), {"source": "{}/a.jsonl"}, "'label'; did you mean 'Label'?"),
    "no column in Parquet": (
        table("a.parquet", text=["a"], y=[1]),
        {"source": "{}/a.parquet"},
        "no column 'label'\n  its columns: text, y",
    ),
    "one level missing": (file("a.csv", GOOD), {"source": "{}/a.csv", "label_columns": ("family", "label")}, "has no column 'family'"),
    "too many fields": (file("a.csv", GOOD + "a,b,c\n"), {"source": "{}/a.csv"}, "a.csv, line 22: has 3 fields where the header has 2"),
    "too few fields": (
        file("a.tsv", "text\tlabel\na\tb\nc\n"),
        {"source": "{}/a.tsv"},
        "a.tsv, line 3: has 1 fields where the header has 2",
    ),
    "quote never closed": (
        file("a.csv", GOOD + '"a,b\n' + GOOD),
        {"source": "{}/a.csv"},
        "a.csv, line 22: unexpected end of data; check its quotes",
    ),
    "text after a quote": (file("a.csv", GOOD + '"a" b,c\n'), {"source": "{}/a.csv"}, "a.csv, line 22: ',' expected after '\"'"),
    "malformed JSON": (
        file("a.jsonl", '{"text": "a", "label": 1}\n{"text": '),
        {"source": "{}/a.jsonl"},
        "a.jsonl, line 2: is not one JSON object a line",
    ),
    "JSON of another shape": (
        file("a.json", '["a", "b"]\n'),
        {"source": "{}/a.json"},
        "a.json, line 1: holds a list where one JSON object a line",
    ),
    "JSON over several lines": (
        file("a.json", '[\n{"text": "a"}]\n'),
        {"source": "{}/a.json"},
        "a.json, line 1: is not one JSON object a line",
    ),
    "numbers as texts": (
        table("a.parquet", text=[1, 2], label=[1, 2]),
        {"source": "{}/a.parquet"},
        "row 0: the text is a int: 1; data.text_column",
    ),
    "lists as labels": (file("a.jsonl", '{"text": "a", "label": ["x"]}\n'), {"source": "{}/a.jsonl"}, "line 1: the label is a list: ['x']"),
    "broken Parquet": (file("a.parquet", b"PAR1 nothing"), {"source": "{}/a.parquet"}, "a.parquet: cannot be read as parquet"),
    "broken gzip": (file("a.csv.gz", GOOD), {"source": "{}/a.csv.gz"}, "a.csv.gz: cannot be read as csv: Not a gzipped file"),
    "cut gzip": (file("a.csv.gz", gzip.compress(GOOD.encode())[:-9]), {"source": "{}/a.csv.gz"}, "a.csv.gz: cannot be read as csv"),
    "another encoding": (file("a.csv", GOOD), {"source": "{}/a.csv", "encoding": "utf-16"}, "a.csv: cannot be read as csv: UTF-16 stream"),
    "one class": (file("a.csv", "text,label\na,b\nc,b\nd,b\ne,b\n"), {"source": "{}/a.csv"}, "one class only, 'b'; a classifier needs two"),
    "no labels at all": (
        file("a.csv", "text,label\na,\nb,\n"),
        {"source": "{}/a.csv"},
        "the train split has no row left: checks found missing_label 2",
    ),
    "no texts at all": (
        file("a.csv", "text,label\n ,a\n,b\n"),
        {"source": "{}/a.csv"},
        "no row left: checks found empty_text 2; see data.checks",
    ),
    "hidden test labels": (
        files(file("train.csv", GOOD), file("test.csv", "text,label\na,\n")),
        {"source": "{}"},
        "the test split has no row left: checks found missing_label 1",
    ),
    "nothing to draw": (
        file("a.csv", "text,label\na,b\nc,d\n"),
        {"source": "{}/a.csv"},
        "validation split has no row left: the training split has too few",
    ),
    "too long for the model": (
        file("a.csv", GOOD),
        {"source": "{}/a.csv", "max_length": 65},
        "data.max_length: the encoder reads 64 tokens at most, not 65",
    ),
}
CONFIG_CASES: dict[str, tuple[Make, dict[str, Any], str]] = {
    "unknown encoding": (file("a.csv", GOOD), {"source": "{}/a.csv", "encoding": "utf-9"}, "data.encoding: 'utf-9' is no known encoding"),
    "unknown demo": (file("a.csv", GOOD), {"source": "demo:reuters"}, "there is no demo:reuters; the demo is demo:reuters-r8"),
    "subset below its classes": (
        file("a.csv", GOOD),
        {"source": "{}/a.csv", "rows": {"train": 5}},
        "data.rows.train: 5 rows cannot hold 4 of each of 2 classes",
    ),
}


@pytest.mark.parametrize("name", [*CASES, *CONFIG_CASES])
def test_bad_data_is_refused(tmp_path: Path, name: str) -> None:
    make, knobs, message = (CASES | CONFIG_CASES)[name]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder)
    knobs = {knob: value.replace("{}", str(folder)) if isinstance(value, str) else value for knob, value in knobs.items()}
    with pytest.raises(ConfigError if name in CONFIG_CASES else DataError) as caught:
        tiny.prepare(tmp_path / "store", **knobs)
    said = str(caught.value)
    assert message.replace("{}", str(folder)) in said
    assert len(said.splitlines()) <= 15
    assert caught.value.code == (2 if name in CONFIG_CASES else 3)
    assert tiny.left(tmp_path / "store") == []
    assert not list((tmp_path / "store").glob("data/*"))
