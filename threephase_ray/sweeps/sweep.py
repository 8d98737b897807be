"""A sweep: search the knobs on the validation split; each phase is trained once, whichever trials need it."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from threephase_ray import console, pipeline, planning, reports, results, trials
from threephase_ray.command import dump
from threephase_ray.config import Config
from threephase_ray.errors import ConfigError, JobError
from threephase_ray.results import Store
from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps import plots
from threephase_ray.sweeps import results as found
from threephase_ray.sweeps.conductor import Conductor
from threephase_ray.sweeps.journal import Journal, read
from threephase_ray.sweeps.leaderboard import Board, table
from threephase_ray.sweeps.search import build, importance, storage
from threephase_ray.sweeps.space import Space
from threephase_ray.training.tasks import PROBE
from threephase_ray.trials import Planner

if TYPE_CHECKING:
    from threephase_ray.training.crew import Crew

_SECONDS = 0.5  # between two looks at a running sweep
_SHORT = 30  # characters of a sweep's name in those of its runs
_RUNS = 1_000_000  # numbers of the foreman's entries that are no trials
# Knobs that leave trials comparable.
_LOOSE = {"name", "store", "scratch", "checkpoint", "skip_nonfinite", "baseline", "probe", "predict", "calibrate", "tracking"}


def sweep(config: SweepConfig, dry_run: bool = False) -> None:
    """Search, then show the best; run again, it goes on.

    Raises:
        JobError: with what is wrong, where, and what to do.
    """
    check(config)
    space, planner = Space(config), Planner()
    store, folder = Store(config.store, config.scratch), f"sweeps/{config.name}"
    if dry_run:
        preview(config, space, planner)
        return
    with pipeline.alone(store, folder), contextlib.closing(Journal(store, config.name, identity(config))) as journal:
        try:
            if journal.complete == asked(config):
                console.console.print(table(list(journal.trials.values()), config.sweep.metric, space.scales, None))
            else:
                work(config, space, planner, journal, store)
        finally:
            deliver(config, space, journal, store)


def check(config: SweepConfig) -> None:
    """Refuse a search whose trials could not be compared.

    Raises:
        ConfigError: says why.
    """
    searched = config.sweep
    if config.phases[-1] != "finetune" and searched.metric != PROBE:
        raise ConfigError(f"sweep.metric: {searched.metric} needs phases that end with finetune; choose probe")
    if searched.halving is not None and len(config.phases) < 2:
        raise ConfigError("sweep.halving: decides before the last phase, and there is only one")
    if searched.search.start_from and searched.search.method != "optuna":
        raise ConfigError("sweep.search.start_from: only optuna learns from earlier sweeps")


def identity(config: SweepConfig) -> str:
    """A hash of all that makes trials comparable; machine, limits and the number of trials may change from call to call."""
    knobs = config.model_dump(mode="json", exclude=_LOOSE)
    knobs["compute"] = {name: knobs["compute"][name] for name in ("precision", "global_batch")}
    knobs["sweep"] = {name: value for name, value in knobs["sweep"].items() if name not in ("limits", "groups", "retrain_seeds")}
    del knobs["sweep"]["search"]["trials"]
    return results.key(knobs)


def asked(config: SweepConfig) -> str:
    """What a call asks for beyond its identity: once it is done there is nothing more to do."""
    return json.dumps([config.sweep.search.trials, config.sweep.limits.model_dump(), config.sweep.retrain_seeds])


def work(config: SweepConfig, space: Space, planner: Planner, journal: Journal, store: Store) -> None:
    """Run what is missing; a JobError if every trial failed, `signals.Stopped` if a stop was asked for."""
    from threephase_ray.training import signals  # here, so that a preview and a sweep that is done need no Ray
    from threephase_ray.training.cluster import cluster
    from threephase_ray.training.crew import Crew

    searched, folder, wish = config.sweep, f"sweeps/{config.name}", threading.Event()
    earlier = [trial for name in searched.search.start_from for trial in read(store, name).trials.values()]
    search = build(space, searched.search, earlier)
    with cluster(), signals.caught(wish.set) as came, Crew(store, folder, config, searched.groups) as crew:
        conductor = Conductor(searched, space, search, journal, crew, folder, planner)
        with Board(list(journal.trials.values()), searched.metric, space.scales, searched.search.trials) as board:
            attend(conductor, crew, wish, board)
        if not conductor.halted:
            retrain(config, space, planner, journal, crew, store, wish)
        trials.tell_of_starts(crew)
    if came:
        raise signals.Stopped("stopped as asked: all is saved\n  run the same command again to go on from there", came[0])
    if conductor.halted:
        console.console.print(f"ended early: {conductor.halted}; run the same command with another limit to go on", highlight=False)
    elif all(trial.status == "failed" for trial in journal.trials.values()):
        raise JobError(f"every trial failed, the last one so: {list(journal.trials.values())[-1].reason}\n  see {folder}/events.jsonl")
    journal.finish(asked(config))


def attend(conductor: Conductor, crew: "Crew", wish: threading.Event, board: Board) -> None:
    """Let Ray Tune run the trials, in a side thread, and look after limits, signals, worker groups and the board."""
    from threephase_ray.sweeps import tuning

    with ThreadPoolExecutor(1) as pool:
        trials = pool.submit(tuning.run, conductor, crew.foreman)
        while not wait([trials], _SECONDS).done:
            conductor.watch()
            board.update(list(conductor.journal.trials.values()))
            if wish.is_set():
                conductor.halt("stopped as asked")
            if problem := crew.problem():
                conductor.halt(problem)
        trials.result()
    board.update(list(conductor.journal.trials.values()))
    if conductor.error is not None:
        raise conductor.error


def retrain(
    config: SweepConfig, space: Space, planner: Planner, journal: Journal, crew: "Crew", store: Store, wish: threading.Event
) -> None:
    """Train the best configuration with other seeds, and look at the test split, which nobody has looked at before.

    Raises:
        TrainingError: one of these runs failed.
    """
    best = found.best(journal.trials.values())
    if best is None or not config.sweep.retrain_seeds:
        return
    runs = {}
    for i, seed in enumerate(config.sweep.retrain_seeds):
        outline = planner.outline(best_run(config, space.configuration(best.point), seed))
        run = f"runs/{outline.config.name}"
        if pipeline.finished_results(outline, store, run) is None:
            pipeline.begin(outline, store, run)
            store.storage.remove(f"{run}/predictions.parquet")  # of another best one; what is there counts as done
            runs[_RUNS + i] = outline
            crew.enter(_RUNS + i, trials.tested(outline, run), False)
    if runs:
        console.console.print(f"training the best configuration anew, for {len(runs)} seed(s)", highlight=False)
    for number in runs:
        crew.ask("begin", number)
    for number, outline in runs.items():
        news = crew.wait_for_end(number, wish)
        if news["kind"] == "failed":
            raise JobError(
                f"{outline.config.name}: {news['phase']}: {news['reason']}\n  the sweep itself is done: see sweeps/{config.name}"
            )
        if news["kind"] == "done":
            pipeline.deliver(outline, store, f"runs/{outline.config.name}")


def best_run(config: SweepConfig, best: Config, seed: int | None = None) -> Config:
    """The best configuration as a run of its own, `seed` in place of its own."""
    name = f"{config.name[:_SHORT].rstrip('-')}-best"
    if seed is None:
        return best.model_copy(update={"name": name})
    return best.model_copy(update={"name": f"{name}-s{seed}", "seed": seed, "baseline": None, "predict": "test"})


def deliver(config: SweepConfig, space: Space, journal: Journal, store: Store) -> None:
    """Write what is known: a row for each trial, the best configuration, plots, Optuna's own storage; and say where."""
    folder, trials, searched = f"sweeps/{config.name}", list(journal.trials.values()), config.sweep
    store.storage.write(f"{folder}/sweep.parquet", found.parquet(trials))
    summary = found.summary(trials)
    weights = importance(trials, space)
    drawn = plots.draw(trials, weights, searched.metric, store.place(f"{folder}/plots"), searched.space)
    place = store.place(f"{folder}/optuna.journal")
    place.unlink(missing_ok=True)
    storage(trials, space, place)
    store.put(place, f"{folder}/optuna.journal")
    store.put(store.place(f"{folder}/plots"), f"{folder}/plots")
    best = found.best(trials)
    if best is not None:
        run = best_run(config, space.configuration(best.point))
        store.storage.write(f"{folder}/best.yaml", dump(run).encode())
        console.console.print(
            f"best: trial {best.number}; python jobs/train.py --config {store.storage.uri}/{folder}/best.yaml", soft_wrap=True
        )
        summary["retrained"] = retrained(config, store)
    store.write_json(f"{folder}/results.json", summary | {"importance": weights})
    reports.write(store, folder)
    for reason in drawn.skipped:
        console.console.print(f"no plot: {reason}", highlight=False)
    console.console.print(f"trials, plots and the best configuration: {store.storage.uri}/{folder}", soft_wrap=True)


def retrained(config: SweepConfig, store: Store) -> list[dict[str, Any]]:
    """The test scores of the runs with the best configuration, shown as a table."""
    found = []
    for seed in config.sweep.retrain_seeds:
        run = f"runs/{config.name[:_SHORT].rstrip('-')}-best-s{seed}"
        if store.storage.sizes(f"{run}/results.json"):
            test = store.read_json(f"{run}/results.json")["test"]
            found.append({"seed": seed, "run": run, "accuracy": test["accuracy"], "macro_f1": test["macro_f1"], "rows": test["rows"]})
    if found:
        rows = [[str(each["seed"]), f"{each['accuracy']:.2%}", f"{each['macro_f1']:.2%}", str(each["rows"])] for each in found]
        if len(found) > 1:
            mean = {name: sum(each[name] for each in found) / len(found) for name in ("accuracy", "macro_f1")}
            rows.append(["mean", f"{mean['accuracy']:.2%}", f"{mean['macro_f1']:.2%}", ""])
        console.table("test split, best configuration", ["seed", "accuracy", "macro F1", "rows"], rows)
    return found


def preview(config: SweepConfig, space: Space, planner: Planner) -> None:
    """Show the space and, where it can be listed, the phases that its trials share."""
    rows = [[name, axis.kind, ", ".join(map(str, getattr(axis, axis.kind)))] for name, axis in config.sweep.space.items()]
    console.table("space", ["knob", "kind", "values"], rows)
    searched = config.sweep.search
    points = space.grid() if searched.method == "grid" else [space.draw(np.random.default_rng(searched.seed))[0]]
    outlines = [planner.outline(space.configuration(point)) for point in points]
    planning.show(outlines[0])
    if searched.method != "grid":
        console.console.print(
            f"{searched.method}: {searched.trials} trials, drawn while it runs; the plan above is of one", highlight=False
        )
        return
    keys = {name: {step.job.key for made in outlines for step in made.chain if step.job.name == name} for name in config.phases}
    rows = [[name, str(len(found)), str(len(outlines) - len(found))] for name, found in keys.items()]
    console.table(f"grid of {len(outlines)} trials", ["phase", "trained", "reused"], rows)
