"""The command line of reports: whose report, from which store, into which file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from threephase_ray import reports
from threephase_ray.errors import ConfigError, JobError
from threephase_ray.results import Store

_KINDS = {"run": "runs", "sweep": "sweeps", "study": "studies"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description="Make one HTML page of results: report.html in their folder, tables beside it.")
    made.add_argument("--store", required=True, help="folder, or URI such as s3://bucket/folder")
    which = made.add_mutually_exclusive_group(required=True)
    for kind in _KINDS:
        which.add_argument(f"--{kind}", metavar="NAME", help=f"of the {kind} of that name")
    made.add_argument("--output", metavar="FILE.html", help="write the page to this file alone, and nothing into the store")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes as those of the other jobs."""
    asked = parser().parse_args(argv)
    kind, name = next((kind, getattr(asked, kind)) for kind in _KINDS if getattr(asked, kind) is not None)
    try:
        with TemporaryDirectory() as scratch:
            store = Store(asked.store, scratch)
            if store.storage.folder is not None and not store.storage.folder.is_dir():
                raise ConfigError(f"store: there is no folder {store.storage.folder}")
            _make(store, kind, name, asked.output)
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.code
    return 0


def _make(store: Store, kind: str, name: str, output: str | None) -> None:
    """Write the page, and say where."""
    if output is None:
        for path in reports.write(store, f"{_KINDS[kind]}/{name}"):
            print(f"{store.storage.uri}/{path}")
        return
    html = getattr(reports, kind)(store, name)
    try:
        Path(output).write_text(html, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output: {output}: {error.strerror}") from error
    print(output)
