"""Chain the phases, reuse what the store has, train the rest in one go, and look at the test split once, at the end."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from threephase_ray import __version__, console, export, metrics, planning, store
from threephase_ray.command import dump
from threephase_ray.config import Config
from threephase_ray.planning import Outline, Step
from threephase_ray.training.worker import Plan, Prediction


def train(config: Config, dry_run: bool = False) -> None:
    """The main job: all phases of the configuration, then the test split; shows the results. Run again, it goes on.

    Raises:
        JobError: with what is wrong, where, and what to do.
    """
    planning.check(config)
    plan = planning.outline(config, planning.prepare(config))
    planning.show(plan)
    if dry_run:
        console.console.print("the resolved configuration:", dump(plan.config), sep="\n", highlight=False, soft_wrap=True)
        return
    folder = store.root(config.store) / "runs" / config.name
    results = finished_results(plan, folder)
    if results is None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(dump(plan.config))
        execute(plan, folder)
        results = collect(plan, folder)
    show(results, folder)


def execute(plan: Outline, folder: Path) -> None:
    """Train the missing phases and predict the test split, in one launch of the workers; then export the models."""
    from threephase_ray.training.launch import launch  # here, so that a plan and a run that is done need no Ray

    (folder / "results.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
    events = folder / "events.jsonl"
    work = Plan(
        config=plan.config.model_dump(mode="json"),
        data=str(plan.data.folder),
        events=str(events),
        stage=plan.stage,
        engine="deepspeed",
        phases=[vars(job) for job in plan.missing()],
        tests=[vars(job) for job in tests(plan, folder).values()],
    )
    follower = console.Follower(events)
    with follower.showing():
        launch(work, plan.config.compute, folder)
    finished = Path(plan.chain[-1].job.folder)
    tokenizer, length = plan.data.folder / "tokenizer", int(plan.data.facts["max_length"])
    export.export_encoder(finished, tokenizer, length, folder / "model" / "encoder")
    if classifies(plan.chain[-1]):
        names = plan.data.label_names[: plan.data.classes]
        export.export_classifier(finished, tokenizer, names, length, folder / "model" / "classifier")


def classifies(step: Step) -> bool:
    """Whether a phase ends in a classifier, which can be tested."""
    return step.job.name in ("finetune", "baseline")


def tests(plan: Outline, folder: Path) -> dict[str, Prediction]:
    """The classifiers that predict the test split, by their name in the results."""
    jobs = {}
    if classifies(plan.chain[-1]):
        jobs["test"] = Prediction("finetune", plan.chain[-1].job.folder, str(folder / "predictions.parquet"))
    if plan.baseline is not None:
        jobs["baseline_test"] = Prediction("baseline", plan.baseline.job.folder, str(folder / "baseline_predictions.parquet"))
    return jobs


def finished_results(plan: Outline, folder: Path) -> dict[str, Any] | None:
    """The results of an earlier call, if they are those of this plan."""
    path = folder / "results.json"
    outputs = [folder / "model" / "encoder", *(Path(job.predictions) for job in tests(plan, folder).values())]
    if plan.missing() or not path.is_file() or not all(output.exists() for output in outputs):
        return None
    results: dict[str, Any] = json.loads(path.read_text())
    if results["keys"] != keys(plan):
        return None
    for row in [*results["phases"], *([results["baseline"]] if results["baseline"] else [])]:
        row["reused"] = True
    return results


def keys(plan: Outline) -> list[str]:
    """The keys of all that the results tell of."""
    return [step.job.key for step in [*plan.chain, *([plan.baseline] if plan.baseline else [])]]


def collect(plan: Outline, folder: Path) -> dict[str, Any]:
    """Write `results.json`, last of all: each phase's figures and cost, and the scores on the test split."""
    facts = plan.data.facts
    results = {
        "name": plan.config.name,
        "version": __version__,
        "keys": keys(plan),
        "data": {"folder": str(plan.data.folder), "content": facts["content"], "checks": facts["checks"]},
        "phases": [phase_result(step) for step in plan.chain],
        "baseline": phase_result(plan.baseline) if plan.baseline else None,
        "stage_reason": plan.stage_reason,
    }
    results |= {name: test_result(plan, Path(job.predictions)) for name, job in tests(plan, folder).items()}
    store.write_json(folder / "results.json", results)
    return results


def phase_result(step: Step) -> dict[str, Any]:
    """Key, figures and cost of a finished phase."""
    result: dict[str, Any] = json.loads((Path(step.job.folder) / "metrics.json").read_text())
    del result["losses"]  # one for each step: they stay with the phase
    return result | {"reused": step.finished}


def test_result(plan: Outline, predictions: Path) -> dict[str, Any]:
    """Scores, intervals, per-class figures and confusion counts of the predictions for the test split."""
    table, names = pq.read_table(predictions, columns=["label", "predicted"]).to_pydict(), plan.data.label_names
    index = {name: i for i, name in enumerate(names)}
    truth, said = (np.array([index[name] for name in table[column]]) for column in ("label", "predicted"))
    counts = metrics.confusion(truth, said, len(names))
    sides = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    per_class = {name: values.tolist() for name, values in metrics.by_class(*sides).items()}
    return {
        "rows": len(truth),
        **metrics.classification(*sides),
        "accuracy_interval": metrics.interval(int(np.trace(counts)), len(truth)),
        "per_class": {"names": names, **per_class, "support": sides[2].tolist()},
        "confusion": counts.tolist(),
    }


def show(results: dict[str, Any], folder: Path) -> None:
    """Print the phases' figures on validation, and the scores on the test split."""
    rows = [phase_row(row["phase"], row) for row in results["phases"]]
    if results["baseline"]:
        rows.append(phase_row("plain fine-tuning", results["baseline"]))
    console.table("validation", ["phase", "figures", "best step", "worker seconds", "reused"], rows)
    lines = []
    for name, title in (("test", "three phases" if len(results["phases"]) > 1 else "classifier"), ("baseline_test", "plain fine-tuning")):
        if name in results:
            test = results[name]
            low, high = test["accuracy_interval"]
            lines.append([title, f"{test['accuracy']:.2%}", f"{low:.2%} to {high:.2%}", f"{test['macro_f1']:.2%}", str(test["rows"])])
    if lines:
        console.table("test", ["classifier", "accuracy", "95 % interval", "macro F1", "rows"], lines)
    console.console.print(f"results, predictions and models: {folder}")


def phase_row(title: str, row: dict[str, Any]) -> list[str]:
    """One line of the table of phases."""
    return [
        title,
        console.figures(row["scores"]),
        f"{row['best_step']} of {row['steps']}",
        f"{row['worker_seconds']:.0f}",
        "yes" if row["reused"] else "no",
    ]
