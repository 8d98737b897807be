"""What a study found: each arm's scores with intervals, its difference from the reference, its cost."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from threephase_ray.evidence.intervals import compare, estimate
from threephase_ray.evidence.resampling import Metric
from threephase_ray.evidence.verdicts import holm, verdict
from threephase_ray.results import Store
from threephase_ray.studies import arms, work
from threephase_ray.studies.arms import Cell
from threephase_ray.studies.scored import Scored, calibrated, read, together
from threephase_ray.studies.work import Planned
from threephase_ray.studying import StudyConfig

METRICS: tuple[Metric, ...] = ("accuracy", "macro_f1")
_COSTS = ("cpu_seconds", "worker_seconds", "peak_memory", "parameters")


def find(
    config: StudyConfig, planned: Sequence[Planned], choices: work.Choices, failed: dict[str, str], store: Store
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The study's results, and a row for each run."""
    scored = {each.folder: read(each, store) for each in planned if work.is_done(each, store)}
    cells = [_cell(config, cell, planned, scored, choices) for cell in arms.cells(config)]
    _correct(cells)
    found = {
        "name": config.name,
        "question": config.study.question,
        "reference": config.study.base,
        "arms": list(config.study.arms),
        "axes": {axis: list(made.levels) for axis, made in config.study.axes.items()},
        "metrics": list(METRICS),
        "cells": cells,
        "verdicts": _verdicts(config, cells),
        "sharing": _sharing(planned, scored),
        "failed": [_where(each) | {"reason": failed[each.folder]} for each in planned if each.folder in failed],
    }
    return found, [_row(each, scored.get(each.folder), failed.get(each.folder, "")) for each in planned]


def parquet(rows: Sequence[dict[str, Any]], axes: Iterable[str]) -> bytes:
    """A row for each run, as Parquet; figures of runs that are not done are null."""
    texts = ["arm", *(f"axis.{axis}" for axis in axes), "run", "status", "reason", "tuned"]
    scores = ["accuracy", "macro_precision", "macro_recall", "macro_f1", "ece", "brier", "cpu_seconds", "worker_seconds"]
    fields = [(name, pa.string()) for name in texts] + [("seed", pa.int64())]
    fields += [(name, pa.float64()) for name in ("validation_accuracy", "validation_macro_f1", *scores)]
    schema = pa.schema([*fields, ("peak_memory", pa.int64()), ("parameters", pa.int64())])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([*rows], schema), buffer)
    return buffer.getvalue()


def _where(planned: Planned) -> dict[str, Any]:
    """Which run it is."""
    return {"arm": planned.run.arm, "levels": planned.run.cell.levels, "seed": planned.run.seed}


def _row(planned: Planned, scored: Scored | None, reason: str) -> dict[str, Any]:
    """A run as a row."""
    run = planned.run
    row: dict[str, Any] = {"arm": run.arm, "seed": run.seed, "run": planned.folder.removeprefix("runs/"), "tuned": json.dumps(run.tuned)}
    row |= {f"axis.{axis}": level for axis, level in run.cell.levels.items()}
    if scored is None:
        return row | {"status": "failed" if reason else "waiting", "reason": reason}
    validation = scored.results["phases"][-1]["scores"]
    row |= {f"validation_{name}": validation[name] for name in METRICS}
    row |= {name: scored.scores[name] for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1")}
    return row | {"status": "done", "reason": ""} | {name: scored.calibration[name] for name in ("ece", "brier")} | scored.cost


def _cell(config: StudyConfig, cell: Cell, planned: Sequence[Planned], scored: dict[str, Scored], choices: work.Choices) -> dict[str, Any]:
    """All of a cell: each arm's figures, and each arm against the reference."""
    by_arm: dict[str, list[Scored]] = {}
    for each in planned:
        if each.run.cell == cell and each.folder in scored:
            by_arm.setdefault(each.run.arm, []).append(scored[each.folder])
    found: dict[str, Any] = {"levels": cell.levels, "rows": 0, "arms": {}, "comparisons": []}
    for arm, runs in by_arm.items():
        found["rows"] = len(runs[0].labels)
        found["arms"][arm] = _figures(runs) | {"tuning": choices.get(arms.place(arm, cell))}
    if config.study.base in by_arm:
        others = {arm: runs for arm, runs in by_arm.items() if arm != config.study.base}
        found["comparisons"] = [each for arm, runs in others.items() for each in _against(arm, runs, by_arm[config.study.base])]
    return found


def _figures(runs: Sequence[Scored]) -> dict[str, Any]:
    """An arm's figures in a cell, over its seeds."""
    labels, predicted, classes = together(runs)
    scores: dict[str, Any] = {metric: asdict(estimate(metric, labels, predicted, classes)) for metric in METRICS}
    return {
        "seeds": len(runs),
        **scores,
        "per_class": _per_class(runs),
        "calibration": _mean_calibration(runs),
        "cost": {name: fmean(each.cost[name] for each in runs) for name in _COSTS},
        "probes": _probes(runs),
        "phases": {name: _mean_scores([each.validation(name) for each in runs]) for name in runs[0].phases},
    }


def _against(arm: str, runs: Sequence[Scored], reference: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """An arm against the reference, over the seeds that both have."""
    mine, theirs = ({each.seed: each for each in side} for side in (runs, reference))
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        return
    labels, both, classes = together([*(mine[seed] for seed in seeds), *(theirs[seed] for seed in seeds)])
    labels = labels[: len(seeds)] if isinstance(labels, list) else labels  # where seeds draw their own test rows, both arms have the same
    for metric in METRICS:
        found = compare(metric, labels, both[: len(seeds)], both[len(seeds) :], classes)
        difference = found.difference
        yield {
            "arm": arm,
            "metric": metric,
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p": found.p,
            "seeds": len(seeds),
        }


def _correct(cells: Sequence[dict[str, Any]]) -> None:
    """Correct the p values of all comparisons of a metric for their number, and say who wins."""
    for metric in METRICS:
        every = [each for cell in cells for each in cell["comparisons"] if each["metric"] == metric]
        for each, corrected in zip(every, holm([each["p"] for each in every]), strict=True):
            each["p_corrected"] = corrected
            each["verdict"] = verdict(each["difference"], corrected)


def _verdicts(config: StudyConfig, cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """How often each arm wins, ties, loses against the reference."""
    every = [each for cell in cells for each in cell["comparisons"]]
    return {
        arm: {
            metric: {
                outcome: sum(each["verdict"] == outcome for each in every if (each["arm"], each["metric"]) == (arm, metric))
                for outcome in ("win", "tie", "loss")
            }
            for metric in METRICS
        }
        for arm in config.study.arms
        if arm != config.study.base
    }


def _per_class(runs: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """Each class's figures, mean over the seeds."""
    tables = [each.scores["per_class"] for each in runs]
    names = sorted({name for table in tables for name in table["names"]})
    figures = ("precision", "recall", "f1", "support")
    found = {}
    for name in names:
        places = [(table, table["names"].index(name)) for table in tables if name in table["names"]]
        found[name] = {figure: fmean(table[figure][at] for table, at in places) for figure in figures}
    return found


def _mean_calibration(runs: Sequence[Scored]) -> dict[str, Any]:
    """Calibration over all seeds' predictions."""
    classes = max(each.probabilities.shape[1] for each in runs)  # seeds may draw subsets with other classes
    every = [np.pad(each.probabilities, ((0, 0), (0, classes - each.probabilities.shape[1]))) for each in runs]
    return calibrated(np.concatenate([each.truth for each in runs]), np.concatenate(every))


def _probes(runs: Sequence[Scored]) -> dict[str, dict[str, float | None]]:
    """What the embeddings were worth after each phase, mean over the seeds."""
    every: dict[str, list[dict[str, Any]]] = {}
    for each in runs:
        for probe in each.results["probes"]:
            every.setdefault(probe["after"], []).append(probe["figures"])
    return {
        after: {
            "linear": fmean(each["linear"]["accuracy"] for each in some),
            "knn": fmean(each["knn"]["accuracy"] for each in some),
            "silhouette": _mean([each["silhouette"] for each in some]),
        }
        for after, some in every.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_scores(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """A phase's figures on validation, mean over the seeds."""
    return {name: fmean(each[name] for each in scores) for name in scores[0]}


def _sharing(planned: Sequence[Planned], scored: dict[str, Scored]) -> dict[str, Any]:
    """What sharing phases saved."""
    every = [phase for each in planned if each.folder in scored for phase in scored[each.folder].results["phases"]]
    different = {phase["key"]: phase for phase in every}
    return {
        "phases_trained": len(different),
        "phases_reused": len(every) - len(different),
        "worker_seconds": sum(phase["worker_seconds"] for phase in different.values()),
        "worker_seconds_alone": sum(phase["worker_seconds"] for phase in every),
    }
