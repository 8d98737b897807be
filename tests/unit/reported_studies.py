"""A sweep and a study in a store, as jobs leave them, for tests of reports."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.reported import EVIL, LABELS, guessed, parquet, scored, store
from threephase_ray.evidence.calibration import calibration
from threephase_ray.evidence.intervals import compare, estimate
from threephase_ray.evidence.verdicts import holm, verdict
from threephase_ray.results import Store
from threephase_ray.sweeps import results as sweep_results
from threephase_ray.sweeps.trial import Trial

ARMS = ["fair-ft", "three-phase", "cl-ft & more"]


def sweep(folder: Path, name: str = "search", done: int = 12) -> Store:
    """A store with a sweep: some trials were stopped, one failed."""
    kept, rng, trials = store(folder), np.random.default_rng(1), []
    for number in range(done + 3):
        point = {
            "dae.noise_ratio": float(rng.uniform(0.2, 0.8)),
            "contrastive.loss.name": str(rng.choice(["supervised_contrastive", "cosine_regression"])),
        }
        score, status = float(rng.uniform(0.7, 0.9)), "done" if number < done else "failed" if number == done else "stopped"
        ended = {"score": score, "scores": {"accuracy": score, "macro_f1": 0.9 * score}} if status == "done" else {"reason": EVIL}
        trials.append(
            Trial(
                number,
                point,
                {"dae": f"{number}"},
                status=status,
                cost=60.0 + number,
                alone=120.0,
                reused=["dae"] if number % 2 else [],
                **ended,
            )
        )
    summary = sweep_results.summary(trials) | {"importance": {"dae.noise_ratio": 0.7, "contrastive.loss.name": 0.3} if done else {}}
    seeds = [
        {"seed": seed, "run": f"runs/{name}-best-s{seed}", "accuracy": 0.8 + seed / 100, "macro_f1": 0.7, "rows": 300} for seed in (1, 2)
    ]
    place = f"sweeps/{name}"
    kept.storage.write(f"{place}/sweep.parquet", sweep_results.parquet(trials))
    kept.storage.write(f"{place}/best.yaml", b"name: search-best\n")
    kept.storage.write(
        f"{place}/plots/parallel.svg",
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 4"><path d="M0 0L9 4" stroke="black"/></svg>',
    )
    kept.write_json(f"{place}/results.json", summary | {"retrained": seeds if done else []})
    return kept


def study(folder: Path, name: str = "compare", axes: dict[str, list[str]] | None = None, seeds: int = 3) -> Store:
    """A store with a study over the axes' levels."""
    kept = store(folder)
    levels = {"rows": ["10", "50", "all"], "texts <b>": ["news", "queries"]} if axes is None else axes
    places = [dict(zip(levels, each, strict=True)) for each in product(*levels.values())]
    cells = [cell(number, place, seeds) for number, place in enumerate(places)]
    for metric in ("accuracy", "macro_f1"):
        every = [each for made in cells for each in made["comparisons"] if each["metric"] == metric]
        for each, corrected in zip(every, holm([each["p"] for each in every]), strict=True):
            each |= {"p_corrected": corrected, "verdict": verdict(each["difference"], corrected)}
    kept.write_json(
        f"studies/{name}/results.json",
        {
            "name": name,
            "question": f"Does it pay {EVIL}?",
            "reference": ARMS[0],
            "arms": ARMS,
            "axes": levels,
            "metrics": ["accuracy", "macro_f1"],
            "cells": cells,
            "verdicts": {arm: {metric: tally(cells, arm, metric) for metric in ("accuracy", "macro_f1")} for arm in ARMS[1:]},
            "sharing": {"phases_trained": 30, "phases_reused": 24, "worker_seconds": 4000.0, "worker_seconds_alone": 7600.0},
            "failed": [{"arm": ARMS[1], "levels": places[0], "seed": 2, "reason": "out of memory"}],
        },
    )
    kept.storage.write(f"studies/{name}/study.yaml", b"name: compare\n")
    parquet(kept, f"studies/{name}/runs.parquet", runs(cells, levels, seeds))
    return kept


def tally(cells: list[dict[str, Any]], arm: str, metric: str) -> dict[str, int]:
    """Wins, ties and losses of an arm."""
    every = [each["verdict"] for made in cells for each in made["comparisons"] if (each["arm"], each["metric"]) == (arm, metric)]
    return {outcome: every.count(outcome) for outcome in ("win", "tie", "loss")}


def cell(number: int, levels: dict[str, str], seeds: int) -> dict[str, Any]:
    """A cell: all arms, better from cell to cell, the second one best."""
    truth = np.random.default_rng(number).integers(0, len(LABELS), 300)
    skills = {arm: min(0.97, 0.55 + 0.07 * number + (0, 0.12, 0.02)[i]) for i, arm in enumerate(ARMS)}
    every = {
        arm: np.stack([guessed(truth, len(LABELS), skill, 100 * number + 10 * i + seed) for seed in range(seeds)])
        for i, (arm, skill) in enumerate(skills.items())
    }
    said = {arm: each.argmax(axis=2) for arm, each in every.items()}
    found: dict[str, Any] = {"levels": levels, "rows": len(truth), "arms": {}, "comparisons": []}
    for i, (arm, each) in enumerate(every.items()):
        errors, tables = calibration(truth, each), scored(truth, said[arm][0], LABELS)["per_class"]
        found["arms"][arm] = {
            "seeds": seeds,
            **{metric: vars(estimate(metric, truth, said[arm], len(LABELS))) for metric in ("accuracy", "macro_f1")},
            "per_class": {
                label: {key: tables[key][k] for key in ("precision", "recall", "f1", "support")} for k, label in enumerate(LABELS)
            },
            "calibration": {
                "ece": errors.error,
                "brier": errors.brier,
                "log_loss": errors.log_loss,
                "bins": [vars(point) for point in errors.points],
            },
            "cost": {
                "cpu_seconds": 60.0 * (i + 1),
                "worker_seconds": 70.0 * (i + 1),
                "peak_memory": 2_000_000_000,
                "parameters": 22_700_000,
            },
            "probes": {
                after: {"silhouette": 0.1 * k, "knn": 0.6 + 0.1 * k, "linear": 0.7} for k, after in enumerate(("pretrained", "finetune"))
            },
        }
        for metric in ("accuracy", "macro_f1") if i else ():
            versus = compare(metric, truth, said[arm], said[ARMS[0]], len(LABELS))
            sides = {"difference": versus.difference.mean, "low": versus.difference.low, "high": versus.difference.high}
            found["comparisons"].append({"arm": arm, "metric": metric, "p": versus.p, **sides})
    return found


def runs(cells: list[dict[str, Any]], axes: dict[str, list[str]], seeds: int) -> dict[str, list[Any]]:
    """The table of runs; the last one failed."""
    lines = []
    for made, arm, seed in product(cells, ARMS, range(seeds)):
        levels = {f"axis.{axis}": made["levels"][axis] for axis in axes}
        figures = {"validation_accuracy": 0.8, "validation_macro_f1": 0.7, "accuracy": 0.8, "macro_f1": 0.7, "cpu_seconds": 60.0}
        lines.append(
            {
                "arm": arm,
                **levels,
                "seed": seed,
                "run": f"r{len(lines)}",
                "status": "done",
                "reason": "",
                "tuned": '{"finetune.steps": 9}',
                **figures,
            }
        )
    lines[-1] |= {"status": "failed", "reason": "out of memory", "accuracy": None, "macro_f1": None, "cpu_seconds": None, "tuned": None}
    return {name: [line[name] for line in lines] for name in lines[0]}
