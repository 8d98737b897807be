"""The report of a sweep."""

import base64
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean, stdev
from typing import Any

from threephase_ray.reports import charts, page, reading, settings, words
from threephase_ray.reports.charts import Axis, Picture, Series
from threephase_ray.reports.page import Report
from threephase_ray.reports.tables import Cell, Table
from threephase_ray.results import Store

_SCORES = ("accuracy", "macro_f1")  # on validation, by which trials may have been ranked
_OTHER = ("number", "status", "score", "probe", "reused", "cost", "alone", "reason")  # columns that are no knobs
_ENDED = ("done", "stopped", "failed")


def build(store: Store, name: str) -> Report:
    """The page of `sweeps/<name>` and the table of its trials.

    Raises:
        ConfigError: there are no results of that name.
    """
    reading.check(store, "sweeps", name)
    folder = f"sweeps/{name}"
    results = store.read_json(f"{folder}/results.json")
    found = reading.table(store, f"{folder}/sweep.parquet")
    trials: list[dict[str, Any]] = found.to_pylist() if found is not None else []
    metric = searched_for(trials)
    table = board(trials, results["best"], metric)
    text = reading.content(store, f"{folder}/best.yaml")
    html = page.render(
        "sweep.html",
        kind="sweep",
        name=name,
        results=results,
        metric=metric,
        table=table,
        best=[(knob, settings.said(value)) for knob, value in results["best"]["point"].items()] if results["best"] else [],
        importance=sorted(results["importance"].items(), key=lambda pair: -pair[1]),
        cost=cost(trials, metric),
        parallel=embedded(reading.content(store, f"{folder}/plots/parallel.svg")),
        retrained=retrained(results.get("retrained") or []),
        failed=[trial for trial in trials if trial["status"] == "failed"],
        yaml=text.decode() if text is not None else None,
        store=store.storage.uri,
    )
    return Report(html, [table], table)


def searched_for(trials: Sequence[dict[str, Any]]) -> str:
    """The name of the score: that of the figure on validation which equals it everywhere."""
    done = [trial for trial in trials if trial["score"] is not None]
    for name in _SCORES:
        if done and all(trial.get(f"validation_{name}") == trial["score"] for trial in done):
            return name
    return "probe" if done and all(trial["probe"] == trial["score"] for trial in done) else "score"


def knobs(trials: Sequence[dict[str, Any]]) -> list[str]:
    """The knobs that the trials set."""
    columns = list(trials[0]) if trials else []
    return [name for name in columns if name not in _OTHER and not name.startswith(("key_", "validation_"))]


def board(trials: Sequence[dict[str, Any]], best: dict[str, Any] | None, metric: str) -> Table:
    """All trials, those with the best score first."""
    axes, winners = knobs(trials), best["trials"] if best else []
    order = sorted(trials, key=lambda trial: (trial["score"] is None, -(trial["score"] or 0.0), trial["cost"], trial["number"]))
    rows = []
    for trial in order:
        first = trial["number"] in winners
        score = Cell(words.figure("accuracy", trial["score"]), trial["score"], first)
        values = [Cell(words.NONE if trial[axis] is None else settings.said(rounded(trial[axis])), None, first) for axis in axes]
        reused = Cell(", ".join(trial["reused"]) or words.NONE)
        rows.append(
            [
                Cell(str(trial["number"]), trial["number"], first),
                Cell(trial["status"]),
                *values,
                score,
                Cell(words.seconds(trial["cost"]), trial["cost"]),
                reused,
            ]
        )
    columns = ["trial", "status", *axes, f"validation {words.title(metric)}", "worker time", "reused"]
    return Table("Trials", columns, rows, 2, "Figures are of the validation split, by which all selection was made")


def rounded(value: Any) -> Any:
    """A knob's value with four significant digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def cost(trials: Sequence[dict[str, Any]], metric: str) -> Picture | None:
    """The score of each trial, and the best so far, over what the sweep had cost; None with fewer than two."""
    ended = sorted((trial for trial in trials if trial["status"] in _ENDED), key=lambda trial: trial["number"])
    spent = list(accumulate(trial["cost"] for trial in ended))
    points = [(at / 60, trial["score"]) for at, trial in zip(spent, ended, strict=True) if trial["score"] is not None]
    if len(points) < 2:
        return None
    best = list(accumulate((score for _, score in points), max))
    stairs = [(x, y) for i, (x, _) in enumerate(points) for y in ((best[i - 1], best[i]) if i else (best[0],))] + [
        (spent[-1] / 60, best[-1])
    ]
    series = [Series("best so far", stairs), Series("trial", points, 1, dots=True, joined=False)]
    score, caption = words.title(metric), f"Validation {words.title(metric)} against cost"
    return charts.lines(series, Axis("worker minutes spent so far"), Axis(score, share=True, within=(0.0, 1.0)), caption)


def embedded(svg: bytes | None) -> str | None:
    """A plot's file as an address that holds all of it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" if svg is not None else None


def retrained(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The best configuration with other seeds on the test split: each run, and mean and spread."""
    if not runs:
        return None
    means = {name: fmean(run[name] for run in runs) for name in _SCORES}
    spreads = {name: stdev(run[name] for run in runs) if len(runs) > 1 else None for name in _SCORES}
    return {"runs": runs, "mean": means, "spread": spreads}
