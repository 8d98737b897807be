"""A study's runs at work: arms are tuned on validation first, then every run is trained and looks at the test split, once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from threading import Event
from typing import Any, Protocol

from threephase_ray import pipeline, results, scoring, trials
from threephase_ray.errors import JobError
from threephase_ray.planning import Outline
from threephase_ray.results import Store
from threephase_ray.studies import arms
from threephase_ray.studies.arms import Cell, Run
from threephase_ray.studying import StudyConfig
from threephase_ray.training.tasks import Item
from threephase_ray.trials import Planner

Choices = dict[str, dict[str, Any]]  # by place: what was chosen for an arm in a cell, and why
_SECONDS = 1.0  # between two looks at the crew
COST = ("cpu_seconds", "worker_seconds")  # what the last phases of an arm's choice cost
_SHORT = 34  # characters of a study's name in those of its runs


class Crew(Protocol):
    """See `training.crew.Crew`."""

    def enter(self, number: int, chain: list[Item], supervised: bool) -> None:
        """A chain that may begin."""

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a function of the foreman."""

    def halt(self) -> None:
        """Ask all groups to save and end."""

    def problem(self) -> JobError | None:
        """What ended all groups."""


@dataclass(frozen=True)
class Planned:
    """A run with its phases; runs that are the same in all that counts have one `folder`."""

    run: Run
    outline: Outline
    folder: str


def plan(config: StudyConfig, planner: Planner, run: Run) -> Planned:
    """Lay out a run; its name is a hash of what its results depend on.

    Raises:
        JobError: its configuration, or its data, cannot be used.
    """
    outline = planner.outline(arms.configuration(config, run))
    name = f"{config.name[:_SHORT].rstrip('-')}-{pipeline.identity(outline)[:12]}"
    return Planned(run, replace(outline, config=outline.config.model_copy(update={"name": name})), f"runs/{name}")


def is_done(planned: Planned, store: Store) -> bool:
    """Whether an earlier call has trained and tested the run."""
    outputs = {f"{planned.folder}/results.json", *(job.predictions for job in scoring.tests(planned.outline, planned.folder).values())}
    if not outputs <= set(store.storage.sizes(planned.folder)):
        return False
    return bool(store.read_json(f"{planned.folder}/results.json")["identity"] == pipeline.identity(planned.outline))


class Progress(Protocol):
    """Who is told how far it is, see `progress.Progress`."""

    def expect(self, runs: int) -> None:
        """So many runs more are to be done."""

    def told(self, planned: Planned, reason: str) -> None:
        """A run has ended; `reason`: why it failed, if it did."""


class Bench:
    """Runs at the crew: who enters, who is done."""

    def __init__(self, crew: Crew, store: Store, keep: bool, wish: Event, progress: Progress) -> None:
        """`keep`: the weights of last phases stay after their test; `wish`: set when all is to stop."""
        self.store = store
        self._crew, self._keep, self._wish, self._progress = crew, keep, wish, progress
        self._open: dict[int, Planned | None] = {}  # by number; None: only trained, not tested
        self._news: dict[int, dict[str, Any]] = {}
        self._count, self._mine = 0, set[str]()  # results of last phases that this study trains
        self.failed: dict[str, str] = {}  # folder -> reason

    def train(self, planned: Planned) -> int:
        """Let a run's phases be trained, without a test; the number to ask for."""
        return self._enter(planned, trials.phases(planned.outline, planned.folder), False)

    def test(self, planned: Sequence[Planned]) -> None:
        """Let runs be trained and tested that are not done; runs that are the same once."""
        different = {each.folder: each for each in planned if not is_done(each, self.store)}
        self._progress.expect(len(different))
        for each in different.values():
            pipeline.begin(each.outline, self.store, each.folder)
            for job in scoring.tests(each.outline, each.folder).values():
                self.store.storage.remove(job.predictions)
            self._enter(each, trials.tested(each.outline, each.folder), True)

    def news(self, number: int) -> dict[str, Any]:
        """How a chain ended, once it has."""
        while number not in self._news:
            self._look()
        return self._news[number]

    def finish(self) -> None:
        """Wait until all have ended."""
        while self._open:
            self._look()

    def _enter(self, planned: Planned, chain: list[Item], tested: bool) -> int:
        number, self._count = self._count, self._count + 1
        if not (last := planned.outline.chain[-1]).finished:
            self._mine.add(last.job.result)
        self._crew.enter(number, chain, False)
        self._crew.ask("begin", number)
        self._open[number] = planned if tested else None
        return number

    def _look(self) -> None:
        """See who has ended, and wait a little if nobody has."""
        if self._wish.is_set():
            self._crew.halt()
        if problem := self._crew.problem():
            raise problem
        ended = self._crew.ask("ends", list(self._open))
        for number, news in ended.items():
            planned = self._open.pop(number)
            self._news[number] = news
            if planned is not None and news["kind"] != "halted":
                self._collect(planned, news)
        if not ended:
            time.sleep(_SECONDS)

    def _collect(self, planned: Planned, news: dict[str, Any]) -> None:
        """Write the results of a run that has ended."""
        reason = f"{news['phase']}: {news['reason']}" if news["kind"] == "failed" else ""
        if reason:
            self.failed[planned.folder] = reason
        else:
            found = pipeline.collect(planned.outline, self.store, planned.folder)
            self.store.write_json(f"{planned.folder}/results.json", found)
            self.forget(planned)
        self._progress.told(planned, reason)

    def forget(self, planned: Planned) -> None:
        """Remove the weights of a last phase that this study has trained: its figures are in the run's results."""
        last = planned.outline.chain[-1]
        if last.job.result in self._mine and not self._keep and planned.outline.config.predict == "test":  # else it will be tested yet
            self.store.storage.remove(last.job.result)


class Tuning:
    """What is tuned of an arm in a cell: runs with each combination of knobs, over some seeds."""

    def __init__(self, config: StudyConfig, planner: Planner, arm: str, cell: Cell) -> None:
        seeds = config.study.seeds[: config.study.tune_seeds]
        self.place, self._metric = arms.place(arm, cell), config.study.metric
        self.tried = [
            (tuned, [plan(config, planner, Run(arm, cell, seed, tuned)) for seed in seeds]) for tuned in arms.combinations(config, arm)
        ]
        self.identity = results.key({"keys": [pipeline.keys(each.outline) for _, made in self.tried for each in made], "by": self._metric})
        self._numbers: list[list[int]] = []

    def enter(self, bench: Bench) -> None:
        """Let all of it be trained."""
        self._numbers = [[bench.train(each) for each in made] for _, made in self.tried]

    def known(self, store: Store, folder: str) -> dict[str, Any] | None:
        """What an earlier call chose among the same combinations."""
        found = chosen(store, folder).get(self.place)
        return found if found is not None and found["identity"] == self.identity else None

    def choose(self, bench: Bench) -> dict[str, Any] | None:
        """The best combination, of equal ones the first, as {"identity", "tried", "chosen"} and its cost; None: all was stopped.

        Where none can be trained it is the first, whose runs then fail and say why.
        """
        ends = [[bench.news(number) for number in numbers] for numbers in self._numbers]
        if any(news["kind"] == "halted" for each in ends for news in each):
            return None
        done = [[news["figures"] for news in each if news["kind"] == "done"] for each in ends]
        scores = [_mean([figures["scores"][self._metric] for figures in each], len(self.tried[0][1])) for each in done]
        winner = max(range(len(scores)), key=lambda i: (-1.0 if (score := scores[i]) is None else score, -i))
        for each in (each for i, (_, made) in enumerate(self.tried) if i != winner for each in made):
            bench.forget(each)
        tried = [{"knobs": tuned, "score": score} for (tuned, _), score in zip(self.tried, scores, strict=True)]
        cost = {name: sum(figures[name] for each in done for figures in each) for name in COST}
        return {"identity": self.identity, "tried": tried, "chosen": self.tried[winner][0], **cost}


def _mean(scores: Sequence[float], wanted: int) -> float | None:
    """The mean, if all are there."""
    return fmean(scores) if len(scores) == wanted else None


def chosen(store: Store, folder: str) -> Choices:
    """What was chosen by earlier calls, by place."""
    name = f"{folder}/tuning.json"
    return dict(store.read_json(name)) if store.storage.sizes(name) else {}


def knobs(choices: Choices) -> dict[str, dict[str, Any]]:
    """Only what was chosen, by place."""
    return {place: choice["chosen"] for place, choice in choices.items()}
