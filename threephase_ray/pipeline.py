"""Chain the phases, reuse what the store has, train the rest in one go, and look at the test split once, at the end."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threephase_ray import __version__, console, export, planning, pretrained, reports, scoring, sums
from threephase_ray.command import dump
from threephase_ray.config import Config
from threephase_ray.errors import ResourceError
from threephase_ray.lock import LEASE, Lock
from threephase_ray.planning import Outline, Step
from threephase_ray.reports import cards
from threephase_ray.results import MANIFEST, Store, key
from threephase_ray.trackers import choosing
from threephase_ray.trackers.following import following
from threephase_ray.training import accounting, events, nodes
from threephase_ray.training.plan import Plan, told

PATIENCE = 1.5  # leases after which a holder that still gives signs of life is believed to be alive


def train(config: Config, dry_run: bool = False) -> None:
    """The main job: all phases of the configuration, then the test split; shows the results. Run again, it goes on.

    Raises:
        JobError: with what is wrong, where, and what to do.
    """
    choosing.check(config)
    planning.check(config)
    plan = planning.outline(config, planning.prepare(config))
    planning.show(plan)
    if dry_run:
        console.console.print("the resolved configuration:", dump(plan.config), sep="\n", highlight=False, soft_wrap=True)
        return
    store, run = Store(config.store, config.scratch), f"runs/{config.name}"
    with alone(store, run):
        results = finished_results(plan, store, run)
        phases = {step.job.name: step.job.key for step in plan.steps()}
        with following(plan.config, phases, store, run, finished=results is not None) as tracked:
            if results is None:
                begin(plan, store, run)
                execute(plan, store, run)
                results = deliver(plan, store, run)
            tracked(results)
    show(results, f"{store.storage.uri}/{run}")


@contextlib.contextmanager
def alone(store: Store, run: str) -> Iterator[None]:
    """Hold the run's lock; a holder that died is replaced once that is sure.

    Raises:
        ResourceError: somebody else is at work on the run.
    """
    lock, told = Lock(store.storage, run), False
    deadline = time.monotonic() + PATIENCE * LEASE
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            raise ResourceError(f"{run}: is being worked on by {lock.holder}\n  wait until it is done, stop it, or choose another `name`")
        if not told:
            console.console.print(f"{run} is held by {lock.holder}: looking whether it is alive")
        told = True
        time.sleep(1.0)
    with lock:
        yield


def execute(plan: Outline, store: Store, run: str) -> None:
    """Train the missing phases and predict the test split, in one launch of the workers."""
    from threephase_ray.training.launch import launch  # here, so that a plan and a run that is done need no Ray

    log = f"{run}/events.jsonl"
    work = Plan(
        config=told(plan.config),
        data=plan.data.name,
        run=run,
        stage=plan.stage,
        engine="deepspeed",
        phases=[vars(job) for job in plan.missing()],
        probes=[vars(job) for job in scoring.probes(plan).values()],
        tests=[vars(job) for job in scoring.tests(plan, run).values()],
    )

    def report(event: dict[str, Any]) -> None:
        with events.Log(store, log) as book:  # opened anew each time, since the workers write it while they live
            book.add(event)

    report({"event": "start"})
    with console.Follower(events.tail(store, log)).showing():
        launch(work, plan.config.compute, store, lambda: reached(plan, store), report)


def deliver(plan: Outline, store: Store, run: str) -> dict[str, Any]:
    """Of a run whose phases and tests are done: export the models, then write the results, which are returned, and the report."""
    results = collect(plan, store, run)
    export_models(plan, store, run, results)
    store.write_json(f"{run}/results.json", results)  # after the models, so that a run that looks finished has them
    reports.write(store, run)
    return results


def begin(plan: Outline, store: Store, run: str) -> None:
    """Write the run's configuration, and remove what an earlier run of the name left."""
    for stale in ("results.json", "model", "error.txt"):
        store.storage.remove(f"{run}/{stale}")
    store.storage.write(f"{run}/config.yaml", dump(plan.config).encode())


def export_models(plan: Outline, store: Store, run: str, results: dict[str, Any]) -> None:
    """Encoder and classifier in stock formats, each with its card and the sums of its files."""
    finished = store.fetch(plan.chain[-1].job.result)
    tokenizer, length = plan.data.folder / "tokenizer", int(plan.data.facts["max_length"])
    models = store.place(f"{run}/model")
    shutil.rmtree(models, ignore_errors=True)  # of an earlier run, on its way to an object store
    export.export_encoder(finished, tokenizer, length, models / "encoder")
    libraries = {"encoder": "sentence-transformers"}
    if scoring.classifies(plan.chain[-1]):
        names, temperature = plan.data.label_names[: plan.data.classes], results[plan.config.predict]["calibration"]["temperature"]
        out = models / "classifier"
        libraries["classifier"] = export.export_classifier(finished, tokenizer, names, length, out, temperature)
    facts, config, base = plan.data.facts, plan.config.model_dump(mode="json"), pretrained.card(plan.config.encoder)
    for kind, library in libraries.items():
        card = cards.card(kind, library, results, facts, config, base)
        (models / kind / "README.md").write_text(card, encoding="utf-8")
        sums.seal(models / kind)
    store.put(models, f"{run}/model")


def reached(plan: Outline, store: Store) -> str:
    """How far the missing phases are in the store: those finished, and the newest whole checkpoint of the others."""
    words = []
    for job in plan.missing():
        saved = [name for name in store.storage.sizes(f"progress/{Path(job.result).name}") if name.endswith(MANIFEST)]
        if store.is_finished(job.result):
            words.append(f"{job.name} is finished")
        elif saved:
            words.append(f"{job.name} is saved at step {int(max(saved).split('/')[2].split('-')[0])}")
    return ", ".join(words) if words else "nothing is saved yet"


def finished_results(plan: Outline, store: Store, run: str) -> dict[str, Any] | None:
    """The results of an earlier call, if they are those of this plan."""
    kinds = ("encoder", "classifier") if scoring.classifies(plan.chain[-1]) else ("encoder",)
    outputs = {f"{run}/results.json", *(f"{run}/model/{kind}/{sums.NAME}" for kind in kinds)}
    outputs |= {job.predictions for job in scoring.tests(plan, run).values()}
    if plan.missing() or not outputs <= set(store.storage.sizes(run)):
        return None
    results: dict[str, Any] = store.read_json(f"{run}/results.json")
    if results["identity"] != identity(plan):
        return None
    for row in [*results["phases"], *([results["baseline"]] if results["baseline"] else [])]:
        row["reused"] = True
    return results


def keys(plan: Outline) -> list[str]:
    """The keys of all that is trained."""
    return [step.job.key for step in plan.steps()]


def identity(plan: Outline) -> str:
    """A hash of all that the results depend on: what is trained, and how it is tested."""
    return key({"keys": keys(plan), "predict": plan.config.predict, "calibrate": plan.config.calibrate})


def collect(plan: Outline, store: Store, run: str) -> dict[str, Any]:
    """The results, which are written last of all: each phase's figures and cost, and the scores on the test split."""
    facts = plan.data.facts
    results: dict[str, Any] = {
        "name": plan.config.name,
        "version": __version__,
        "versions": nodes.versions(),
        "identity": identity(plan),
        "data": {"folder": str(plan.data.folder), "content": facts["content"], "checks": facts["checks"]},
        "phases": [phase_result(step, store) for step in plan.chain],
        "baseline": phase_result(plan.baseline, store) if plan.baseline else None,
        "probes": scoring.probe_results(plan, store),
        "stage_reason": plan.stage_reason,
    }
    trained = [row["accounting"] for row in [*results["phases"], results["baseline"]] if row and not row["reused"]]
    results["goodput"] = accounting.goodput(*(sum(made[part] for made in trained) for part in ("total_seconds", "lost_seconds")))
    results |= {name: scoring.test_result(plan, store, job.predictions) for name, job in scoring.tests(plan, run).items()}
    return results


def phase_result(step: Step, store: Store) -> dict[str, Any]:
    """Key, figures and cost of a finished phase."""
    result: dict[str, Any] = json.loads((store.fetch(step.job.result) / "metrics.json").read_text())
    del result["losses"]  # one for each step: they stay with the phase
    return result | {"reused": step.finished}


def show(results: dict[str, Any], folder: str) -> None:
    """Print the phases' figures on validation, and the scores on the test split."""
    rows = [phase_row(row["phase"], row) for row in results["phases"]]
    if results["baseline"]:
        rows.append(phase_row("plain fine-tuning", results["baseline"]))
    console.table("validation", ["phase", "figures", "best step", "worker seconds", "reused"], rows)
    lines, split = [], "test" if "test" in results else "validation"
    for name, title in (
        (split, "three phases" if len(results["phases"]) > 1 else "classifier"),
        (f"baseline_{split}", "plain fine-tuning"),
    ):
        if name in results:
            test = results[name]
            low, high = test["accuracy_interval"]
            scores = [f"{test['accuracy']:.2%}", f"{low:.2%} to {high:.2%}", f"{test['macro_f1']:.2%}"]
            lines.append([title, *scores, f"{test['calibration']['splits'][split]['after']['ece']:.2%}", str(test["rows"])])
    if lines:
        console.table(split, ["classifier", "accuracy", "95 % interval", "macro F1", "ECE", "rows"], lines)
    if split in results and (reason := results[split]["calibration"]["reason"]):
        console.console.print(f"not calibrated: {reason}")
    console.console.print(f"results, predictions and models: {folder}")


def phase_row(title: str, row: dict[str, Any]) -> list[str]:
    """One line of the table of phases."""
    dropped = f"  dropped: probe {row['probe_after']:.4f}, before {row['probe_before']:.4f}" if row.get("kept") is False else ""
    return [
        title,
        console.figures(row["scores"]) + dropped,
        f"{row['best_step']} of {row['steps']}",
        f"{row['worker_seconds']:.0f}",
        "yes" if row["reused"] else "no",
    ]
