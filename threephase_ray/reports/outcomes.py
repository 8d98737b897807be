"""The tables of a study."""

from itertools import product
from statistics import fmean
from typing import Any

from threephase_ray.reports import words
from threephase_ray.reports.tables import Cell, Table

ALL = "all runs"  # the one cell of a study without axes
_COSTS = {"cpu_seconds": words.seconds, "worker_seconds": words.seconds, "peak_memory": words.size, "parameters": words.large}
_SIGNS = {"win": " \N{UPWARDS ARROW}", "tie": " =", "loss": " \N{DOWNWARDS ARROW}"}
Found = dict[str, Any]


def place(cell: Found) -> str:
    """A cell in words: its levels."""
    return ", ".join(f"{axis} {level}" for axis, level in cell["levels"].items()) or ALL


def against(cell: Found, arm: str, metric: str) -> Found | None:
    """The comparison of an arm with the reference in a cell."""
    return next((each for each in cell["comparisons"] if (each["arm"], each["metric"]) == (arm, metric)), None)


def scores(found: Found, metric: str) -> Table:
    """Mean and interval of each arm in each cell; the best of a cell is marked, and what the corrected test says."""
    rows = []
    for cell in found["cells"]:
        there = {arm: figures[metric] for arm, figures in cell["arms"].items()}
        best = max((each["mean"] for each in there.values()), default=0.0)
        rows.append(
            [Cell(place(cell)), *(_score(cell, arm, metric, best) for arm in found["arms"]), Cell(f"{cell['rows']:,}", cell["rows"])]
        )
    columns = ["cell", *found["arms"], "rows"]
    return Table(words.sentence(words.title(metric)), columns, rows, 1, _note(found))


def at_once(found: Found) -> Table:
    """All metrics of each arm in the only cell."""
    cell = found["cells"][0]
    best = {metric: max((each[metric]["mean"] for each in cell["arms"].values()), default=0.0) for metric in found["metrics"]}
    rows = []
    for arm in found["arms"]:
        seeds = cell["arms"][arm]["seeds"] if arm in cell["arms"] else None
        rows.append([Cell(arm), *(_score(cell, arm, metric, best[metric]) for metric in found["metrics"]), Cell(words.whole(seeds), seeds)])
    return Table(f"{words.whole(cell['rows'])} rows", ["arm", *map(words.title, found["metrics"]), "seeds"], rows, 1, _note(found))


def _note(found: Found) -> str:
    """What the figures of the tables are."""
    return (
        f"Mean over seeds with its 95 % interval, in per cent; arrows: better or worse than {found['reference']}, "
        "=: not told apart (p < 0.05, corrected by Holm's method)"
    )


def _score(cell: Found, arm: str, metric: str, best: float) -> Cell:
    """An arm's score in a cell."""
    if arm not in cell["arms"]:
        return Cell(words.NONE)
    each, versus = cell["arms"][arm][metric], against(cell, arm, metric)
    interval = f"{100 * each['low']:.1f}\N{EN DASH}{100 * each['high']:.1f}" if each["low"] is not None else ""
    mark = _SIGNS[versus["verdict"]] if versus else ""
    return Cell(f"{100 * each['mean']:.1f}", each["mean"], each["mean"] == best, f"{interval}{mark}")


def per_class(found: Found, cell: Found) -> Table:
    """F1 of each class by arm."""
    arms = [arm for arm in found["arms"] if arm in cell["arms"]]
    tables = {arm: cell["arms"][arm]["per_class"] for arm in arms}
    support = {name: each["support"] for table in tables.values() for name, each in table.items()}
    rows = []
    for name in sorted(support, key=lambda name: (-support[name], name)):
        values = {arm: tables[arm][name]["f1"] for arm in arms if name in tables[arm]}
        best = max(values.values())
        cells = [Cell(words.percent(values.get(arm)), values.get(arm), values.get(arm) == best) for arm in arms]
        rows.append([Cell(name), *cells, Cell(words.whole(support[name]), support[name])])
    return Table(f"F1 of each class: {place(cell)}", ["class", *arms, "test rows"], rows)


def calibration(found: Found) -> Table:
    """Errors of the probabilities, of each arm in each cell."""
    names = ("ece", "brier", "log_loss")
    rows = []
    for cell in found["cells"]:
        for arm in found["arms"]:
            if arm in cell["arms"]:
                each = cell["arms"][arm]["calibration"]
                rows.append([Cell(place(cell)), Cell(arm), *(Cell(words.decimals(each[name]), each[name]) for name in names)])
    return Table("Calibration, smaller is better", ["cell", "arm", "ECE", "Brier score", "log loss"], rows, 2)


def costs(found: Found) -> Table:
    """What a run of each arm costs, the mean over cells, and how many times the reference's time that is."""
    base, rows = _cost(found, found["reference"]), []
    for arm in found["arms"]:
        each = _cost(found, arm)
        if each:
            times = each["cpu_seconds"] / base["cpu_seconds"] if base and base["cpu_seconds"] else None
            cells = [Cell(show(each[name]), each[name]) for name, show in _COSTS.items()]
            rows.append([Cell(arm), *cells, Cell(words.decimals(times, 2), times)])
    columns = ["arm", "CPU time", "worker time", "peak memory", "parameters", f"CPU time against {found['reference']}"]
    return Table("Cost of a run, mean over cells and seeds", columns, rows)


def _cost(found: Found, arm: str) -> dict[str, float]:
    """The mean cost of an arm over the cells; empty where none is done."""
    every = [cell["arms"][arm]["cost"] for cell in found["cells"] if arm in cell["arms"]]
    return {name: fmean(each[name] for each in every) for name in _COSTS} if every else {}


def probes(found: Found) -> Table:
    """What the embeddings were worth after each phase, the mean over cells."""
    rows = []
    for arm in found["arms"]:
        every = [cell["arms"][arm].get("probes") or {} for cell in found["cells"] if arm in cell["arms"]]
        for phase in dict.fromkeys(name for each in every for name in each):
            some = [each[phase] for each in every if phase in each]
            means = {name: [each[name] for each in some if each[name] is not None] for name in ("knn", "linear", "silhouette")}
            mean = {name: fmean(values) if values else None for name, values in means.items()}
            shares = [Cell(words.percent(mean[name]), mean[name]) for name in ("knn", "linear")]
            after = "before any phase" if phase == "pretrained" else f"after {phase}"
            rows.append([Cell(arm), Cell(after), *shares, Cell(words.decimals(mean["silhouette"]), mean["silhouette"])])
    return Table(
        "Embeddings on validation, mean over cells and seeds",
        ["arm", "embeddings", "nearest neighbours", "logistic regression", "silhouette"],
        rows,
        2,
    )


def long(found: Found) -> Table:
    """A row for each arm, cell and metric, for other programs."""
    axes, rows = list(found["axes"]), []
    for cell, metric, arm in product(found["cells"], found["metrics"], found["arms"]):
        if arm in cell["arms"]:
            each, versus = cell["arms"][arm][metric], against(cell, arm, metric) or {}
            numbers = [each["mean"], each["low"], each["high"], *(versus.get(name) for name in ("difference", "p", "p_corrected"))]
            words_ = [Cell(str(cell["levels"][axis])) for axis in axes] + [Cell(arm), Cell(metric)]
            rows.append(
                [*words_, Cell("", cell["arms"][arm]["seeds"]), *(Cell("", number) for number in numbers), Cell(versus.get("verdict", ""))]
            )
    columns = [*axes, "arm", "metric", "seeds", "mean", "low", "high", "difference", "p", "p_corrected", "verdict"]
    return Table("All figures", columns, rows, len(axes) + 2)
