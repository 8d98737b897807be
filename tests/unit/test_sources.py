import bz2
import codecs
import gzip
import json
import lzma
import os
import secrets
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit import tiny
from threephase_ray import config, data, sources
from threephase_ray.errors import DataError

ROWS = [('a "quoted" word, and more', "x"), ("naïve café 🙂", "y"), ("two\nlines", "x"), ("tab\tin it", "y"), ("5", "x")]


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def delimited(rows: list[tuple[str, str]], delimiter: str) -> str:
    quoted = [[field.replace('"', '""') for field in row] for row in [("text", "label"), *rows]]
    return "\r\n".join(delimiter.join(f'"{field}"' for field in row) for row in quoted) + "\r\n"


def jsonl(rows: list[tuple[str, str]]) -> str:
    return "\n".join(json.dumps({"label": label, "more": [1], "text": text}) for text, label in rows)


def parquet(kind: pa.DataType, **options: Any) -> Callable[[list[tuple[str, str]]], bytes]:
    def write(rows: list[tuple[str, str]]) -> bytes:
        sink = pa.BufferOutputStream()
        texts, labels = zip(*rows, strict=True)
        pq.write_table(pa.table({"label": pa.array(labels).cast(kind), "text": pa.array(texts).cast(kind)}), sink, **options)
        return sink.getvalue().to_pybytes()

    return write


def encoded(write: Callable[..., str], *options: Any, encoding: str = "utf-8", pack: Any = bytes) -> Callable[[Any], bytes]:
    return lambda rows: pack(write(rows, *options).encode(encoding))


FILES = {
    "a.csv": encoded(delimited, ","),
    "bom.csv": lambda rows: codecs.BOM_UTF8 + delimited(rows, ",").encode(),
    "a.csv.gz": encoded(delimited, ",", pack=gzip.compress),
    "a.tsv": encoded(delimited, "\t"),
    "A.TSV.xz": encoded(delimited, "\t", pack=lzma.compress),
    "a.json": encoded(jsonl),
    "a.jsonl.bz2": encoded(jsonl, pack=bz2.compress),
    "a.ndjson": encoded(jsonl),
    "string.parquet": parquet(pa.string()),
    "large.parquet": parquet(pa.large_string(), row_group_size=2),
    "dictionary.parquet": parquet(pa.dictionary(pa.int32(), pa.string())),
    "bytes.parquet.gz": lambda rows: gzip.compress(parquet(pa.binary())(rows)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_and_compression_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name](ROWS))
    assert read(str(tmp_path / name)) == [(text, (label,)) for text, label in ROWS]


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "shift_jis"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    word = {"utf-16": "naïve 🙂", "cp1252": "naïve €", "shift_jis": "日本"}[encoding]
    for name, write in {"a.csv": encoded(delimited, ",", encoding=encoding), "b.tsv": encoded(delimited, "\t", encoding=encoding)}.items():
        (tmp_path / name).write_bytes(write([(word, "x")]))
        assert read(str(tmp_path / name), encoding=encoding) == [(word, ("x",))]


def test_formats_give_the_same_data_set(tmp_path: Path) -> None:
    rows, contents = tiny.rows(3, 5), set()
    for name in ("a.csv", "a.tsv", "a.jsonl.bz2", "large.parquet"):
        (tmp_path / name).write_bytes(FILES[name](rows))
        contents.add(data.describe(tiny.prepare(tmp_path / "store", source=str(tmp_path / name)))["content"])
    assert len(contents) == 1
    assert len(list((tmp_path / "store/data").glob("*/*/dataset.json"))) == 4


def read(path: str, **knobs: Any) -> list[sources.Row]:
    asked = config.Data(train=path, **knobs)
    return [row for origin in sources.find(asked)["train"] for row in sources.read(origin, asked, labelled=True)]


def test_stray_quotes_in_a_tsv_are_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('label\ttext\nx\t"open and never closed\ny\tit is 5" wide\nx\t"all" of it\n')
    assert [text for text, _ in read(str(tmp_path / "a.tsv"))] == ['"open and never closed', 'it is 5" wide', '"all" of it']


def test_huge_fields_are_read(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", [("word " * 100_000, "x")])
    assert len(read(str(tmp_path / "a.csv"))[0][0] or "") == 499_999


def test_of_a_parquet_file_only_a_row_group_is_held(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("text", pa.string()), ("label", pa.string())])) as file:
        for _ in range(20):
            file.write_table(pa.table({"text": [secrets.token_hex(500) for _ in range(200)], "label": ["x"] * 200}))
    asked = config.Data(source=str(tmp_path / "a.parquet"))
    rows = sources.read(sources.find(asked)["train"][0], asked, labelled=True)
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows) == 4000
        assert tracemalloc.get_traced_memory()[1] < (tmp_path / "a.parquet").stat().st_size / 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("value", "label"),
    [(3, "3"), (3.0, "3"), (2.5, "2.5"), (float("nan"), None), (None, None), (" ", None), ("NaN", None), (" x ", "x"), ("None", "None")],
)
def test_labels_become_text_or_missing(tmp_path: Path, value: Any, label: str | None) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "t", "label": value}))
    pq.write_table(pa.table({"text": ["t"], "label": [value]}), tmp_path / "a.parquet")
    assert read(str(tmp_path / "a.jsonl")) == read(str(tmp_path / "a.parquet")) == [("t", (label,))]


def test_bytes_that_are_no_character_stay_recognisable(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\ncaf\xe9,x\n")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9", "label": "x"}\n')
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\x04\0\0\0"), pa.py_buffer(b"caf\xe9"))
    pq.write_table(pa.table({"text": broken, "label": ["x"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert read(str(tmp_path / name)) == [("caf\udce9", ("x",))]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["train.csv", "val.csv", "test.csv", "unsupervised.csv", "README.md"], {"train": 1, "validation": 1, "test": 1, "unlabelled": 1}),
        (["train/a.csv", "train/deep/b.csv", "train/.c.csv", "dev/a.csv", "train/notes.txt"], {"train": 2, "validation": 1}),
        (["train-00000-of-00002.csv", "train-00001-of-00002.csv", "test_1.csv", "test_labels.csv"], {"train": 2, "test": 1}),
        (["Train.csv.gz", "VALID.csv"], {"train": 1, "validation": 1}),
    ],
)
def test_a_folder_has_a_file_files_or_a_folder_per_split(tmp_path: Path, files: list[str], found: dict[str, int]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text,label\n")
    assert {split: len(origins) for split, origins in sources.find(config.Data(source=str(tmp_path))).items()} == found


def test_a_named_split_wins_over_the_folder(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv", "other.csv"):
        tiny.write_csv(tmp_path / name, [])
    found = sources.find(config.Data(source=str(tmp_path), test=str(tmp_path / "o*.csv"), unlabelled=str(tmp_path / "test.csv")))
    assert [origin.name.rsplit("/", 1)[-1] for origin in found["test"] + found["unlabelled"]] == ["other.csv", "test.csv"]


def test_uris_of_other_file_systems(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/set/train/a.csv", FILES["a.csv"](ROWS))
    memory.pipe("/set/test.jsonl.bz2", FILES["a.jsonl.bz2"](ROWS[:2]))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("deep/a.csv", FILES["a.csv"](ROWS))
    whole = [(text, (label,)) for text, label in ROWS]
    assert {split: len(origins) for split, origins in sources.find(config.Data(source="memory://set")).items()} == {"train": 1, "test": 1}
    uris = ["memory://set/train", "memory://set/*/a.csv", f"zip://deep/a.csv::file://{tmp_path}/a.zip"]
    assert [read(uri) for uri in uris] == [whole, whole, whole]


def test_the_fingerprint_follows_the_content(tmp_path: Path, memory: Any) -> None:
    def fingerprint(uri: str) -> str:
        return sources.find(config.Data(train=uri))["train"][0].fingerprint()

    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    (tmp_path / "moved.csv").write_text("text,label\na,b\n")
    (tmp_path / "c.csv").write_text("text,label\na,c\n")
    memory.pipe("/a.csv", b"text,label\na,b\n")
    before = fingerprint("memory://a.csv")
    assert fingerprint("memory://a.csv") == before
    memory.pipe("/a.csv", b"text,label\na,c\n")
    assert fingerprint("memory://a.csv") != before
    local = [fingerprint(str(tmp_path / name)) for name in ("a.csv", "moved.csv", "c.csv")]
    assert local[0] == local[1] != local[2]


HUB = """
import json
from threephase_ray import config, errors, sources
for knobs in {}, {"test": "extra"}, {"test": "extre"}, {"source": "org/songs"}:
    asked = config.Data(**{"source": "org/poems"} | knobs)
    try:
        found = sources.find(asked)
    except errors.DataError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps({split: [*sources.read(origins[0], asked, labelled=split != "unlabelled")] for split, origins in found.items()}))
"""


def hub_cache(cache: Path, splits: dict[str, list[int | None]]) -> None:
    """What `datasets` keeps of a hub data set that was loaded before: its offline mode needs no hub."""
    import datasets

    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["sad", "glad"])})
    folder = cache / "org___poems/default/0.0.0/abc"
    folder.mkdir(parents=True)
    for split, labels in splits.items():
        rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": labels}, features=kinds)
        with datasets.arrow_writer.ArrowWriter(features=kinds, path=str(folder / f"poems-{split}.arrow")) as writer:
            writer.write_table(rows.data.table)
            writer.finalize()
    sizes = {split: {"name": split, "num_bytes": 1, "num_examples": 2, "dataset_name": "poems"} for split in splits}
    datasets.DatasetInfo(features=kinds, splits=sizes, dataset_name="poems", config_name="default").write_to_directory(str(folder))


def test_hub_splits_and_class_names(tmp_path: Path) -> None:
    hub_cache(tmp_path, {"train": [0, 1], "dev": [1, None], "unsupervised": [-1, -1], "extra": [0, 0]})
    settings = {
        "HF_DATASETS_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", HUB], env=os.environ | settings, capture_output=True, text=True, check=True)
    plain, extra, wrong, unknown = (json.loads(line) for line in done.stdout.splitlines())
    assert plain["train"] == [["a", ["sad"]], ["b", ["glad"]]]
    assert plain["validation"] == [["a", ["glad"]], ["b", [None]]]
    assert plain["unlabelled"] == [["a", [None]], ["b", [None]]]
    assert extra == plain | {"test": [["a", ["sad"]], ["b", ["sad"]]]}
    assert wrong == "data.test: org/poems has no split extre, but train, dev, unsupervised, extra"
    assert unknown.startswith("data.source: org/songs is no local path, nor can it be loaded as a hub id")


def test_a_file_that_vanishes_is_reported(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "a.csv", [])
    found = sources.find(config.Data(train=str(tmp_path / "a.csv")))
    (tmp_path / "a.csv").unlink()
    with pytest.raises(DataError, match=r"a\.csv: cannot be read"):
        found["train"][0].fingerprint()
