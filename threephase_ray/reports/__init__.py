"""Results as one HTML page that needs nothing else. Everything is read from the store; nothing is trained or computed anew.

The page of a run, a sweep or a study: `report.html` in its folder, with `table.md`, `table.tex` and `table.csv` beside it.
"""

from threephase_ray.results import Store

KINDS = ("runs", "sweeps", "studies")
PAGE = "report.html"


def run(store: Store, name: str) -> str:
    """The page of `runs/<name>`.

    Raises:
        ConfigError: there are no results of that name.
    """
    return _build(store, f"runs/{name}")[0]


def sweep(store: Store, name: str) -> str:
    """The page of `sweeps/<name>`; raises as `run`."""
    return _build(store, f"sweeps/{name}")[0]


def study(store: Store, name: str) -> str:
    """The page of `studies/<name>`; raises as `run`."""
    return _build(store, f"studies/{name}")[0]


def write(store: Store, folder: str) -> list[str]:
    """Write page and tables of `folder`, such as runs/demo, into it, and give their names in the store; raises as `run`."""
    html, files = _build(store, folder)
    contents = {PAGE: html, **files}
    for name, content in contents.items():
        store.storage.write(f"{folder}/{name}", content.encode())
    return [f"{folder}/{name}" for name in contents]


def _build(store: Store, folder: str) -> tuple[str, dict[str, str]]:
    """The page of a folder, and the files of its table."""
    from threephase_ray.reports import runs, searches, studies, tables  # here, so that whoever may write a report starts fast

    kind, name = folder.split("/")
    builders = {"runs": runs.build, "sweeps": searches.build, "studies": studies.build}
    report = builders[kind](store, name)
    return report.html, tables.files(report.tables, report.flat) if report.flat.rows else {}
