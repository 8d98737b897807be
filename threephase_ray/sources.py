"""Raw rows from anywhere: files on any file system, hub data sets, the demo.

A row is its text and its labels from coarse to fine, each None where it is missing.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import fsspec.core
from fsspec.utils import infer_compression

from threephase_ray import config, demo, formats
from threephase_ray.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test", "unlabelled")
Row = tuple[str | None, tuple[str | None, ...]]

_NAMES = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
_NAMES |= {"unsupervised": "unlabelled", "unlabeled": "unlabelled"} | {split: split for split in SPLITS}
# What a file system may tell about a file that changes with its content; without any of these the bytes are read.
_VERSIONS = {"etag", "content-md5", "md5hash", "crc", "generation"}
_VERSIONS |= {"lastmodified", "last_modified", "mtime", "modified", "updated", "created"}
_NO_FILE = "set it to an existing file, folder, glob or URI (or, for data.source, to a hub id such as org/name)"


@dataclass(frozen=True)
class File:
    """One file: csv, tsv, jsonl or parquet, perhaps compressed."""

    system: Any
    path: str
    kind: str

    @property
    def name(self) -> str:
        """The path, or the URI where the file is not local."""
        return self.path if _is_local(self.system) else str(self.system.unstrip_protocol(self.path))

    def fingerprint(self) -> str:
        """Changes with the content: a digest of a local file's bytes, else what the file system knows, else of its bytes too."""
        try:
            known = {name: value for name, value in self.system.info(self.path).items() if name.lower() in _VERSIONS and value}
            if known and not _is_local(self.system):
                return f"{self.kind} {self.name} {self.system.size(self.path)} {sorted(known.items())}"
            with self.system.open(self.path, "rb") as file:
                return f"{self.kind} {infer_compression(self.path)} {hashlib.file_digest(file, 'sha256').hexdigest()}"
        except Exception as error:  # of a remote file system's own kind
            raise DataError(f"{self.name}: cannot be read: {_short(error)}") from error

    def open(self, encoding: str) -> fsspec.core.OpenFile:
        """The decompressed content: text, or bytes of a Parquet file; a byte order mark is no text."""
        compression = infer_compression(self.path)
        if self.kind == "parquet":
            return fsspec.core.OpenFile(self.system, self.path, "rb", compression)
        encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        return fsspec.core.OpenFile(self.system, self.path, "rt", compression, encoding, "surrogateescape", "")

    def values(self, columns: Sequence[str], encoding: str) -> formats.Values:
        """(Line or row number, values of the columns) of every row; a ConfigError for an unknown encoding, a DataError for a bad file."""
        try:
            "".encode(encoding)
        except LookupError as error:
            raise ConfigError(f"data.encoding: {encoding!r} is no known encoding; try utf-8, latin-1 or cp1252") from error
        try:
            yield from formats.READERS[self.kind](partial(self.open, encoding), self.name, columns)
        except formats.UNREADABLE as error:
            raise DataError(f"{self.name}: cannot be read as {self.kind}: {_short(error)}") from error


@dataclass(frozen=True)
class HubSplit:
    """One split of a hub data set."""

    builder: Any
    split: str

    @property
    def name(self) -> str:
        """The hub id and the split."""
        return f"{self.builder.repo_id} ({self.split})"

    def fingerprint(self) -> str:
        """Changes with the revision that the hub resolved."""
        return f"{self.name} {self.builder.config.name} {self.builder.hash}"

    def values(self, columns: Sequence[str]) -> formats.Values:
        """(Row number, values of the columns) of every row; numbers of a class-label column become their names."""
        rows = self.builder.as_dataset(split=self.split)
        formats.positions(rows.column_names, columns, self.name)
        decoders = [_class_name(rows.features[column]) for column in columns]
        for number, row in enumerate(rows.select_columns(list(dict.fromkeys(columns)))):
            yield number, [decode(row[column]) for decode, column in zip(decoders, columns, strict=True)]


Origin = File | HubSplit


def find(data: config.Data) -> dict[str, list[Origin]]:
    """The files or hub splits of each split that is given.

    Raises:
        DataError: a path, URI or hub id that leads nowhere, or no training split.
        ConfigError: an unknown demo.
    """
    given = {split: path for split in SPLITS if (path := getattr(data, split)) is not None}
    found: dict[str, list[Origin]] = {}
    if data.source is not None and _is_hub_id(data.source):
        found = _hub(data.source, {split: given.pop(split) for split in SPLITS[:3] if split in given})
    elif data.source is not None:
        found = _source(data.source)
    for split, path in given.items():
        found[split] = [*files(path, f"data.{split}")]
    if "train" not in found:
        raise DataError(f"data.source: {data.source} has no training split, but {', '.join(found)}; name it with data.train")
    return {split: found[split] for split in SPLITS if split in found}


def read(origin: Origin, data: config.Data, *, labelled: bool) -> Iterator[Row]:
    """The rows of one file or hub split; rows of the unlabelled split have no labels.

    Raises:
        DataError: names file and line of what cannot be read, of a missing column, of a text or label of a wrong type.
    """
    levels = len(data.label_columns)
    columns = [data.text_column, *(data.label_columns if labelled else ())]
    values = origin.values(columns) if isinstance(origin, HubSplit) else origin.values(columns, data.encoding)
    name, unit = origin.name, "row" if isinstance(origin, HubSplit) or origin.kind == "parquet" else "line"
    for number, (text, *labels) in values:
        place = f"{name}, {unit} {number}"
        yield formats.text(text, place), tuple([formats.label(label, place) for label in labels]) if labelled else (None,) * levels


def _source(source: str) -> dict[str, list[Origin]]:
    """The splits of a demo, of a folder, or of a file or glob, which is the training split."""
    source = _undemo(source, "data.source")
    system, path = _locate(source, "data.source")
    if not _ask(system.isdir, path, "data.source"):
        return {"train": [*files(source, "data.source")]}
    found: dict[str, list[Origin]] = {}
    entries = sorted(_ask(system.ls, path, "data.source", detail=False))
    for entry in entries:
        word = re.fullmatch(r"([a-z]+)([-_.]?[0-9][^.]*)?(\..*)?", entry.rstrip("/").rsplit("/", 1)[-1].lower())
        if word and word[1] in _NAMES:
            found.setdefault(_NAMES[word[1]], []).extend(_under(system, entry))
    found = {split: files for split, files in found.items() if files}
    if not found:
        shown = ", ".join(entry.rsplit("/", 1)[-1] for entry in entries[:5])
        advice = "name the files train.csv, test.parquet or the like, or set data.train"
        raise DataError(f"data.source: {source} has no file named after a split, but {shown}; {advice}")
    return found


def files(uri: str, knob: str) -> list[File]:
    """The files that a demo, path, folder, glob or URI stands for; a DataError where there are none."""
    system, path = _locate(_undemo(uri, knob), knob)
    if any(letter in path for letter in "*?["):
        found = [file for entry in sorted(_ask(system.glob, path, knob)) for file in _under(system, entry)]
    elif not _ask(system.exists, path, knob):
        raise DataError(f"{knob}: {uri} does not exist; {_NO_FILE}")
    else:
        found = _under(system, path)
    if not found:
        raise DataError(f"{knob}: {uri} leads to no file ending in {', '.join(formats.KINDS)} (perhaps compressed)")
    return found


def _undemo(source: str, knob: str) -> str:
    """The folder of a demo's texts; anything else as it is."""
    if source.startswith("demo:") and source != "demo:reuters-r8":
        raise ConfigError(f"{knob}: there is no {source}; the demo is demo:reuters-r8")
    return str(demo.texts()) if source.startswith("demo:") else source


def _under(system: Any, path: str) -> list[File]:
    """A file, or the files of known kinds below a folder."""
    paths = sorted(system.find(path)) if system.isdir(path) else [path]
    hidden = (entry.rsplit("/", 1)[-1].startswith((".", "_")) for entry in paths)
    kinds = [_kind(entry) for entry in paths]
    return [File(system, entry, kind) for entry, kind, hide in zip(paths, kinds, hidden, strict=True) if kind and not hide]


def _kind(path: str) -> str | None:
    """The format that a file's name tells, before or without the ending of a compression."""
    ends = [end.lower() for end in Path(path).suffixes]
    return formats.KINDS.get(ends[-2 if infer_compression(path) and len(ends) > 1 else -1]) if ends else None


def _is_local(system: Any) -> bool:
    """Is it this machine's own file system?"""
    return isinstance(system, fsspec.get_filesystem_class("file"))


def _locate(uri: str, knob: str) -> tuple[Any, str]:
    """File system and path of a path or URI."""
    return _ask(fsspec.core.url_to_fs, uri, knob)  # type: ignore[no-any-return]


def _ask(question: Callable[..., Any], path: str, knob: str, **options: Any) -> Any:
    """Ask a file system, which may be remote and raise whatever its library likes."""
    try:
        return question(path, **options)
    except Exception as error:
        raise DataError(f"{knob}: {path} cannot be reached: {_short(error)}; {_NO_FILE}") from error


def _is_hub_id(source: str) -> bool:
    """Has it the form of a hub id, and is it neither a local path nor named like a file?"""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source) is not None and not Path(source).exists() and _kind(source) is None


def _hub(source: str, wanted: dict[str, str]) -> dict[str, list[Origin]]:
    """The splits of a hub data set, downloaded; code that comes with a data set is never run."""
    import datasets  # takes a second, and only hub ids need it

    try:
        builder = datasets.load_dataset_builder(source)
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(f"data.source: {source} is no local path, nor can it be loaded as a hub id: {_short(error)}") from error
    names = list(builder.info.splits)
    for split, name in wanted.items():
        if name not in names:
            raise DataError(f"data.{split}: {source} has no split {name}, but {', '.join(names)}")
    chosen = {_NAMES[name]: name for name in names if name in _NAMES} | wanted
    return {split: [HubSplit(builder, name)] for split, name in chosen.items()}


def _class_name(feature: Any) -> Callable[[Any], Any]:
    """Turns the numbers of a class-label column into names, and a number below 0 into a missing label."""
    if not hasattr(feature, "int2str"):
        return lambda value: value
    return lambda value: None if value is None or value < 0 else feature.int2str(value)


def _short(error: Exception) -> str:
    """The beginning of an error's text, or its name."""
    return " ".join(str(error).split())[:200] or type(error).__name__
