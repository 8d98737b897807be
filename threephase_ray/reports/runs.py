"""The report of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from threephase_ray.imbalance import corrected_sizes
from threephase_ray.reports import charts, curves, judging, maps, page, reading, settings, words
from threephase_ray.reports.charts import Axis, Picture, Reach
from threephase_ray.reports.judging import Predictions
from threephase_ray.reports.page import Report
from threephase_ray.reports.tables import Cell, Table
from threephase_ray.results import Store

MATRIX = 30  # classes up to which the confusion matrix is shown whole
PAIRS = 20  # pairs that are confused most
PLAIN = "plain fine-tuning"
OWN, BASE = "own", "base"  # the classifiers of a run: its own, and plain fine-tuning


def build(store: Store, name: str) -> Report:
    """The page of `runs/<name>` and the table of its test figures.

    Raises:
        ConfigError: there are no results of that name.
    """
    reading.check(store, "runs", name)
    folder = f"runs/{name}"
    results = store.read_json(f"{folder}/results.json")
    split, tested = judged(results)
    text = reading.content(store, f"{folder}/config.yaml")
    config = reading.yaml(text)
    made = predicted(store, folder, split, tested)
    title = method([row["phase"] for row in results["phases"]])
    table = scores(split, tested, made, title)
    data = reading.data_name(results)
    facts = reading.data_set(store, data)
    html = page.render(
        "run.html",
        kind="run",
        name=name,
        method=title,
        results=results,
        split=split,
        table=table,
        headline=headline(split, tested, made, title),
        phases=phases(store, results),
        probes=maps.drawn(store, results.get("probes") or []),
        confusion=confusion(tested.get(OWN)),
        classes=classes(tested.get(OWN)),
        sizes=sizes(facts, config),
        errors=errors(store, data, facts, split, made.get(OWN)),
        calibration=calibration(made, title),
        temperatures={titles(title)[who]: test["calibration"] for who, test in tested.items() if "calibration" in test},
        splits=splits(facts),
        checks={kind: check for kind, check in results["data"]["checks"].items() if check["count"]},
        differences=settings.differences(config),
        config=text.decode() if text is not None else None,
        store=store.storage.uri,
    )
    return Report(html, [table], table)


def method(phases: Sequence[str]) -> str:
    """What the run's classifier is called."""
    return "three phases" if len(phases) == 3 else " + ".join(phases)


def judged(results: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The split that the classifiers predicted, and the figures of each on it."""
    split = next((name for name in ("test", "validation") if {name, f"baseline_{name}"} & set(results)), "test")
    return split, {who: results[name] for who, name in ((OWN, split), (BASE, f"baseline_{split}")) if name in results}


def predicted(store: Store, folder: str, split: str, tested: dict[str, Any]) -> dict[str, Predictions]:
    """The predictions of the run's classifiers, as far as they are there."""
    start = f"{folder}/" + ("" if split == "test" else f"{split}_")
    files = {OWN: f"{start}predictions.parquet", BASE: f"{start}baseline_predictions.parquet"}
    tables = {who: reading.table(store, files[who]) for who in tested}
    return {name: judging.predictions(table) for name, table in tables.items() if table is not None}


def titles(title: str) -> dict[str, str]:
    """The classifiers in words."""
    return {OWN: title, BASE: PLAIN}


def scores(split: str, there: dict[str, Any], made: dict[str, Predictions], title: str) -> Table:
    """The figures of the classifiers on the split that they predicted."""
    figures = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
    best = {figure: max((test[figure] for test in there.values()), default=0.0) for figure in figures}
    rows = []
    for name, test in there.items():
        low, high = test["accuracy_interval"]
        cells = [Cell(words.percent(test[each]), test[each], len(there) > 1 and test[each] == best[each]) for each in figures]
        interval = Cell(f"{words.percent(low)} to {words.percent(high)}")
        error = judging.calibration_error(judging.bins(made[name])) if name in made else None
        rows.append(
            [
                Cell(titles(title)[name]),
                cells[0],
                interval,
                *cells[1:],
                Cell(words.percent(error), error),
                Cell(f"{test['rows']:,}", test["rows"]),
            ]
        )
    columns = ["classifier", "accuracy", "95 % interval", "macro precision", "macro recall", "macro F1", "ECE", "rows"]
    return Table(f"{split.capitalize()} split", columns, rows)


def headline(split: str, there: dict[str, Any], made: dict[str, Predictions], title: str) -> dict[str, Any] | None:
    """The test figure with its interval, and how plain fine-tuning did; None for a run without a classifier."""
    if OWN not in there:
        return None
    rows = [
        Reach(titles(title)[name], test["accuracy"], test["accuracy_interval"][0], test["accuracy_interval"][1], look)
        for look, (name, test) in enumerate(there.items())
    ]
    axis = Axis("accuracy", share=True, within=(0.0, 1.0))
    low, high = there[OWN]["accuracy_interval"]
    return {
        "test": there[OWN],
        "low": low,
        "high": high,
        "baseline": there.get(BASE),
        **against(made),
        "picture": charts.intervals(rows, axis, f"Accuracy on the {split} split with 95 % intervals", text=words.percent),
    }


def against(made: dict[str, Predictions]) -> dict[str, Any]:
    """The run's classifier against plain fine-tuning, on the same rows; nothing to tell unless there are predictions of both."""
    compared = judging.compared(made[OWN], made[BASE]) if len(made) == 2 else None
    if compared is None:
        return {"compared": None}
    ours, theirs = (made[who].right[np.argsort(made[who].rows)] for who in (OWN, BASE))
    alone = {"gained": int((ours & ~theirs).sum()), "lost": int((theirs & ~ours).sum())}
    return {"compared": compared, "verdict": judging.verdict(compared["accuracy"]), **alone}


def phases(store: Store, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The phases for the page, plain fine-tuning last."""
    cards = [curves.card(row["phase"], row, reading.phase(store, row["key"], row["phase"])) for row in results["phases"]]
    plain = results["baseline"]
    if plain:
        full = next((found for name in ("baseline", plain["phase"]) if (found := reading.phase(store, plain["key"], name))), None)
        cards.append(curves.card("baseline", plain, full) | {"title": curves.BASELINE})
    return cards


def confusion(test: dict[str, Any] | None) -> dict[str, Any] | None:
    """The confusion matrix of the classes that occur, or the pairs that are confused most where there are many."""
    if test is None:
        return None
    counts, names = np.array(test["confusion"]), test["per_class"]["names"]
    used = [k for k in range(len(names)) if counts[k].sum() + counts[:, k].sum()]
    wrong = sorted(((int(counts[i, j]), i, j) for i in used for j in used if i != j and counts[i, j]), reverse=True)
    pairs = [{"truth": names[i], "said": names[j], "rows": rows, "share": rows / int(counts[i].sum())} for rows, i, j in wrong[:PAIRS]]
    small = len(used) <= MATRIX
    matrix = (
        [{"name": names[i], "cells": [int(counts[i, j]) for j in used], "total": int(counts[i].sum())} for i in used] if small else None
    )
    return {"names": [names[k] for k in used], "matrix": matrix, "pairs": pairs, "wrong": sum(rows for rows, *_ in wrong)}


def classes(test: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class, largest first."""
    if test is None:
        return []
    each = test["per_class"]
    columns = ("precision", "recall", "f1", "support")
    rows = [{"name": name, **{column: each[column][k] for column in columns}} for k, name in enumerate(each["names"])]
    return sorted(rows, key=lambda row: (-row["support"], row["name"]))


def sizes(facts: dict[str, Any] | None, config: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(Class, training rows, rows after the imbalance correction), largest first; empty where nothing is corrected."""
    if facts is None or not {"contrastive", "joint"} & set(config.get("phases", [])):
        return []
    known, there = config["contrastive"]["imbalance"], facts["num_classes"]
    before = np.array(facts["splits"]["train"]["class_counts"][:there])
    after = corrected_sizes(before, known["min_ratio"], known["max_ratio"])
    names = facts["label_names"][-1]
    return [(names[k], int(before[k]), int(after[k])) for k in np.argsort(-before, kind="stable")]


def errors(store: Store, data: str | None, facts: dict[str, Any] | None, split: str, made: Predictions | None) -> list[dict[str, Any]]:
    """The errors that the classifier was surest of, with their texts."""
    found = judging.worst(made) if made is not None else []
    if data is None or facts is None or not found:
        return [each | {"text": None} for each in found]
    known = reading.texts(store, data, facts, [each["row"] for each in found], split)
    return [each | {"text": known.get(each["row"])} for each in found]


def calibration(made: dict[str, Predictions], title: str) -> Picture | None:
    """The reliability diagram of the run's classifiers."""
    sides = [(titles(title)[name], [(at.confidence, at.accuracy, at.rows) for at in judging.bins(each)]) for name, each in made.items()]
    return charts.reliability(sides, "Reliability diagram: accuracy over confidence") if sides else None


def splits(facts: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The splits of the data set."""
    if facts is None:
        return []
    rows = []
    for name, split in facts["splits"].items():
        there = [count for count in split["class_counts"] if count]
        spread = f"{min(there):,} to {max(there):,}" if there else words.NONE
        lengths = split["lengths"]
        rows.append(
            {
                "name": name,
                "rows": split["rows"],
                "origin": split["origin"],
                "classes": len(there),
                "spread": spread,
                "tokens": f"{lengths['mean']:.0f} / {lengths['p95']} / {lengths['max']}",
                "truncated": facts["truncated"][name],
            }
        )
    return rows
