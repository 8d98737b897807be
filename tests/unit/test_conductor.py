"""Whole sweeps without Ray: the real conductor, search, journal and foreman over workers that only pretend to train."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import tiny, tiny_models
from threephase_ray.command import read
from threephase_ray.errors import ConfigError
from threephase_ray.results import Store
from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps import search
from threephase_ray.sweeps.conductor import Conductor
from threephase_ray.sweeps.journal import Journal
from threephase_ray.sweeps.space import Space
from threephase_ray.sweeps.trial import ENDED, Trial
from threephase_ray.training.accounting import Event
from threephase_ray.training.foreman import Foreman
from threephase_ray.training.tasks import Item
from threephase_ray.trials import Planner

RUN = """
name: s
store: {folder}/store
data: {{source: {folder}/source}}
encoder: {{path: {encoder}}}
dae: {{steps: 4}}
contrastive: {{steps: 4, batch: 12}}
finetune: {{steps: 4}}
"""
GRID = """
sweep:
  space:
    dae.noise_ratio: {grid: [0.3, 0.5, 0.7]}
    contrastive.loss.temperature: {grid: [0.05, 0.1, 0.2]}
    contrastive.imbalance.max_ratio: {grid: [2, 8, 12]}
  search: {method: grid}
"""
SMALL = GRID.replace("[0.3, 0.5, 0.7]", "[0.3, 0.7]").replace("[2, 8, 12]", "[2, 8]")  # 12 trials
ASHA = "  asha: {grace: 25, reduction: 2}\n"
HALVING = "  halving: {keep: 0.34}\n"
OPTUNA = """
sweep:
  space:
    dae.noise_ratio: {choice: [0.3, 0.5, 0.7]}
    contrastive.loss.temperature: {loguniform: [0.03, 0.5]}
  search: {method: optuna, trials: 14}
  halving: {keep: 0.5}
"""


class Crew:
    """Groups that pretend: each tick of a task gives one validation, whose figures follow from its key."""

    def __init__(self, groups: int, events: list[Event], finished: dict[str, Any]) -> None:
        self.groups, self.events, self.finished = groups, events, finished
        self.foreman = Foreman(events.append, list(events), 1, retries=1)
        self._hands: dict[int, tuple[str, Iterator[dict[str, Any]]]] = {}
        self.trained: list[str] = []
        for group in range(groups):
            self.foreman.sent_for(group)

    def enter(self, number: int, chain: list[Item], supervised: bool) -> None:
        self.foreman.enter(number, chain, {item.key: self.finished[item.key] for item in chain if item.key in self.finished}, supervised)

    def ask(self, name: str, *arguments: Any) -> Any:
        return getattr(self.foreman, name)(*arguments)

    def halt(self) -> None:
        self.foreman.close()

    def tick(self) -> None:
        """A moment of work for each group."""
        for group in range(self.groups):
            if group in self._hands:
                self._work(group)
            elif plan := self.foreman.take(group, ["here"]):
                key = (plan["phases"] + plan["probes"])[0]["key" if plan["phases"] else "result"]
                self._hands[group] = key, validations(key) if plan["phases"] else iter(())

    def _work(self, group: int) -> None:
        key, rest = self._hands[group]
        if self.foreman.unwanted(group):
            del self._hands[group]
            self.foreman.stopped(group)
        elif validation := next(rest, None):
            self.foreman.tell(group, {"event": "validation", **validation})
        else:
            del self._hands[group]
            self.trained.append(key)
            done = {"validations": list(validations(key)), "scores": {"accuracy": luck(key)}, "worker_seconds": 1.0}
            probe = {"linear": {"accuracy": luck(key)}}
            self.finished[key] = probe if key.startswith("probes/") else done
            self.foreman.done(group, self.finished[key])


def luck(*words: object) -> float:
    """A number from 0 to 1 that follows from the words."""
    return int(hashlib.sha256(repr(words).encode()).hexdigest()[:8], 16) / 16**8


def validations(key: str) -> Iterator[dict[str, Any]]:
    """Four, over four steps."""
    for step in range(1, 5):
        yield {"step": step, "steps": 4, "accuracy": luck(key, step), "neighbour_accuracy": luck(key, step)}


class Killed(Exception):
    """The driver is no more."""


class Bench:
    """A sweep in a store of its own, lived through in one life or in several."""

    def __init__(self, folder: Path, knobs: str, groups: int = 1) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "sweep.yaml").write_text(
            RUN.format(encoder=tiny_models.checkpoint(folder / "checkpoint", "bert").path, folder=folder) + knobs
        )
        for seed, split in enumerate(("train", "validation", "test")):
            tiny.write_csv(folder / "source" / f"{split}.csv", tiny_models.texts(30, seed=seed))
        self.config = read([str(folder / "sweep.yaml")], [], SweepConfig)
        self.groups, self.events, self.finished, self.trained = groups, list[Event](), dict[str, Any](), list[str]()
        self.planner = Planner()

    def live(self, ticks: int = 10_000) -> Conductor:
        """One life: to the end, or killed after so many ticks."""
        store = Store(self.config.store, self.config.scratch)
        journal = Journal(store, self.config.name, "same")
        crew, space = Crew(self.groups, self.events, self.finished), Space(self.config)
        found = search.build(space, self.config.sweep.search)
        try:
            conductor = Conductor(self.config.sweep, space, found, journal, crew, "sweeps/s", self.planner)
            running: set[int] = set()
            for _ in range(ticks):
                if not one_turn(conductor, crew, running):
                    return conductor
            raise Killed
        finally:
            self.trained += crew.trained
            journal.close()

    def lives(self, seed: int) -> Conductor:
        """Killed again and again, after a random number of ticks."""
        rng = random.Random(seed)  # noqa: S311
        while True:
            with contextlib.suppress(Killed):
                return self.live(rng.randint(5, 150))


def one_turn(conductor: Conductor, crew: Crew, running: set[int]) -> bool:
    """What Ray Tune does in a turn; false when all is over."""
    while (number := conductor.next()) is not None:
        running.add(number)
    if not running and not conductor.has_more:
        return False
    for number in sorted(running):
        news = crew.foreman.news(number)
        if news and (conductor.judge(number, news) != "go on" or news["kind"] != "mark"):
            running.discard(number)
    crew.tick()
    return True


def told(conductor: Conductor) -> list[tuple[Any, ...]]:
    """What became of each trial, but for the costs."""
    trials = [conductor.journal.trials[number] for number in sorted(conductor.journal.trials)]
    return [(trial.point, trial.keys, trial.status, trial.score, trial.probe, trial.marks, trial.reason) for trial in trials]


def with_status(conductor: Conductor, status: str) -> list[Trial]:
    return [trial for trial in conductor.journal.trials.values() if trial.status == status]


def test_a_grid_trains_each_phase_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, GRID)
    conductor = bench.live()
    trials = conductor.journal.trials.values()
    assert len(trials) == len(with_status(conductor, "done")) == 27
    assert len(bench.trained) == len(set(bench.trained)) == 3 + 27 + 27
    assert len({trial.keys["dae"] for trial in trials}) == 3
    assert [trial.score for trial in trials] == [luck(trial.keys["finetune"]) for trial in trials]
    assert sum(trial.cost for trial in trials) < sum(trial.alone for trial in trials)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_halving_lets_the_best_third_go_on(tmp_path: Path, groups: int) -> None:
    conductor = Bench(tmp_path, GRID + HALVING, groups).live()
    done, stopped = with_status(conductor, "done"), with_status(conductor, "stopped")
    assert (len(done), len(stopped)) == (10, 17)
    probes = [[trial.probe for trial in trials if trial.probe is not None] for trials in (done, stopped)]
    assert min(probes[0]) >= max(probes[1])


@pytest.mark.parametrize("knobs", [SMALL + ASHA, SMALL + HALVING, SMALL + ASHA + HALVING, OPTUNA, OPTUNA + ASHA])
def test_a_sweep_that_is_killed_comes_out_the_same(tmp_path: Path, knobs: str) -> None:
    whole = Bench(tmp_path / "whole", knobs).live()
    hurt = Bench(tmp_path / "hurt", knobs)
    assert told(hurt.lives(seed=1)) == told(whole)
    assert len(hurt.trained) == len(set(hurt.trained))
    assert all(trial.status in ENDED for trial in whole.journal.trials.values())


def test_with_several_groups_a_killed_sweep_still_ends_with_the_same_trials(tmp_path: Path) -> None:
    whole, hurt = (Bench(tmp_path / name, SMALL + ASHA, groups=2) for name in ("whole", "hurt"))
    points = [[trial.point for trial in each.journal.trials.values()] for each in (whole.live(), hurt.lives(seed=2))]
    assert points[0] == points[1]
    assert len(hurt.trained) == len(set(hurt.trained))


def test_asha_stops_trials_that_fall_behind(tmp_path: Path) -> None:
    conductor = Bench(tmp_path, GRID + ASHA).live()
    stopped = with_status(conductor, "stopped")
    assert 10 <= len(stopped) <= 26
    assert all("fell behind" in trial.reason for trial in stopped)
    best = max((trial.marks[0].score, trial.number) for trial in conductor.journal.trials.values())
    assert conductor.journal.trials[best[1]].marks[-1].progress > 125


def test_a_plateau_ends_the_search(tmp_path: Path) -> None:
    conductor = Bench(tmp_path, OPTUNA.replace("14", "60").replace("0.5}\n", "1}\n  limits: {plateau: 4}\n")).live()
    scores = [conductor.journal.trials[number].score for number in conductor.journal.ended]
    assert len(scores) < 60
    assert max(scores[-4:]) <= max(scores[:-4])  # type: ignore[type-var]


def test_more_trials_may_be_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OPTUNA)
    first = told(bench.live())
    trials = bench.config.sweep.search.model_copy(update={"trials": 18})
    bench.config = bench.config.model_copy(update={"sweep": bench.config.sweep.model_copy(update={"search": trials})})
    second = told(bench.live())
    assert second[:14] == first
    assert len(second) == 18


def test_another_sweep_of_the_name_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SMALL)
    bench.live()
    with pytest.raises(ConfigError, match="other knobs"):
        Journal(Store(bench.config.store, bench.config.scratch), bench.config.name, "another")
