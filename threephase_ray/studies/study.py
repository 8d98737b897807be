"""A study: every arm at every level with every seed, on equal terms; then what the comparison shows."""

import threading
from collections import Counter
from collections.abc import Callable

from threephase_ray import console, pipeline, reports, trials
from threephase_ray.command import dump
from threephase_ray.errors import JobError
from threephase_ray.results import Store
from threephase_ray.studies import arms, findings, tables, work
from threephase_ray.studies.arms import Run
from threephase_ray.studies.progress import Progress
from threephase_ray.studies.work import Bench, Planned, Tuning
from threephase_ray.studying import StudyConfig
from threephase_ray.trials import Planner


def study(config: StudyConfig, dry_run: bool = False) -> None:
    """Train and test what is missing, then compare; run again, it goes on.

    Raises:
        JobError: with what is wrong, where, and what to do.
    """
    arms.check(config)
    store, folder, planner = Store(config.store, config.scratch), f"studies/{config.name}", Planner()
    with pipeline.alone(store, folder):
        tunings = [Tuning(config, planner, arm, cell) for arm, cell in arms.tuned_arms(config)]
        choices = {made.place: found for made in tunings if (found := made.known(store, folder)) is not None}
        planned = plan_all(config, planner, choices)
        preview(config, planned, tunings, store)
        if dry_run:
            return
        store.storage.write(f"{folder}/study.yaml", dump(config).encode())
        failed = dict[str, str]()
        if len(choices) < len(tunings) or not all(work.is_done(each, store) for each in planned):
            failed = perform(config, planner, tunings, choices, store, folder)
            planned = plan_all(config, planner, choices)
        refuse_if_empty(failed, planned)
        deliver(config, planned, choices, failed, store, folder)


def plan_all(
    config: StudyConfig, planner: Planner, choices: work.Choices, wanted: Callable[[str], bool] = lambda place: True
) -> list[Planned]:
    """Every run of the wanted places; arms that are not tuned yet with the first of their combinations."""
    made = []
    for run in arms.runs(config, work.knobs(choices)):
        if wanted(arms.place(run.arm, run.cell)):
            first = arms.combinations(config, run.arm)[0]
            made.append(work.plan(config, planner, run if run.tuned or not first else Run(run.arm, run.cell, run.seed, first)))
    return made


def preview(config: StudyConfig, planned: list[Planned], tunings: list[Tuning], store: Store) -> None:
    """Show how many runs and phases there are, and how many of them share what they need or find it in the store."""
    outlines = [each.outline for each in planned] + [each.outline for made in tunings for _, some in made.tried for each in some]
    rows = []
    for name in dict.fromkeys(step.job.name for outline in outlines for step in outline.chain):
        steps = [step for outline in outlines for step in outline.chain if step.job.name == name]
        unique = {step.job.key: step for step in steps}
        rows.append([name, str(len(steps)), str(len(unique)), str(sum(step.finished for step in unique.values()))])
    done = sum(work.is_done(each, store) for each in planned)
    cells, seeds = len(arms.cells(config)), len(config.study.seeds)
    console.table(f"study: {len(config.study.arms)} arms x {cells} cells x {seeds} seeds", ["phase", "needed", "different", "there"], rows)
    console.console.print(f"{len({each.folder for each in planned})} different runs, {done} done", highlight=False)


def perform(
    config: StudyConfig, planner: Planner, tunings: list[Tuning], choices: work.Choices, store: Store, folder: str
) -> dict[str, str]:
    """Run what is missing; adds to `choices`. Folder -> reason of the runs that failed.

    Raises:
        Stopped: SIGTERM or SIGINT arrived, and everything is saved.
        JobError: no worker group is left.
    """
    from threephase_ray.training import signals  # here, so that a preview and a study that is done need no Ray
    from threephase_ray.training.cluster import cluster
    from threephase_ray.training.crew import Crew

    wish = threading.Event()
    with (
        cluster(),
        signals.caught(wish.set) as came,
        Crew(store, folder, config, config.study.groups) as crew,
        Progress(store) as progress,
    ):
        bench = Bench(crew, store, config.study.keep_classifiers, wish, progress)
        carry_out(config, planner, tunings, choices, folder, bench)
        if came:
            raise signals.Stopped("stopped as asked: all is saved\n  run the same command again to go on from there", came[0])
        trials.tell_of_starts(crew)
        return bench.failed


def carry_out(config: StudyConfig, planner: Planner, tunings: list[Tuning], choices: work.Choices, folder: str, bench: Bench) -> None:
    """Tune what is to be tuned, and meanwhile train and test all the rest; then what was tuned."""
    waiting = [made for made in tunings if made.place not in choices]
    for made in waiting:
        made.enter(bench)
    places = {made.place for made in waiting}
    bench.test(plan_all(config, planner, choices, lambda place: place not in places))
    for made in waiting:
        if (choice := made.choose(bench)) is None:
            break  # all was stopped
        choices[made.place] = choice
        bench.store.write_json(f"{folder}/tuning.json", choices)
        bench.test(plan_all(config, planner, choices, made.place.__eq__))
    bench.finish()


def deliver(config: StudyConfig, planned: list[Planned], choices: work.Choices, failed: dict[str, str], store: Store, folder: str) -> None:
    """Write and show what was found."""
    found, rows = findings.find(config, planned, choices, failed, store)
    store.storage.write(f"{folder}/runs.parquet", findings.parquet(rows, config.study.axes))
    store.write_json(f"{folder}/results.json", found)
    reports.write(store, folder)
    tables.show(found)
    console.console.print(f"runs, results and report.html: {store.storage.uri}/{folder}", soft_wrap=True)


def refuse_if_empty(failed: dict[str, str], planned: list[Planned]) -> None:
    """Raise when every run failed."""
    if failed and {each.folder for each in planned} <= set(failed):
        reason, count = Counter(failed.values()).most_common(1)[0]
        raise JobError(f"every run failed, {count} of them so: {reason}")
