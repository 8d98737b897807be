"""From a study's knobs to its runs: every arm at every level of the axes, with every seed."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from threephase_ray.command import lay, nested
from threephase_ray.config import Config
from threephase_ray.mistakes import explain, refusal
from threephase_ray.studying import StudyConfig

Knobs = Mapping[str, Any]  # dotted name: value
_FIXED = {
    "name": "is that of the study",
    "store": "is the study's",
    "scratch": "is the study's",
    "seed": "is one of study.seeds",
    "predict": "is the same for all",
    "baseline": "is an arm of its own: phases: [finetune]",
}


@dataclass(frozen=True)
class Cell:
    """What is varied beside the arms: a level of each axis."""

    levels: dict[str, str]

    @property
    def name(self) -> str:
        """The levels in a few words."""
        return ", ".join(self.levels.values()) if self.levels else "all"


@dataclass(frozen=True)
class Run:
    """One run to come: an arm in a cell with a seed, and the knobs that were chosen for it."""

    arm: str
    cell: Cell
    seed: int
    tuned: dict[str, Any]


def cells(config: StudyConfig) -> list[Cell]:
    """Every combination of the axes' levels; the last axis varies fastest."""
    axes = config.study.axes
    return [Cell(dict(zip(axes, levels, strict=True))) for levels in itertools.product(*(axis.levels for axis in axes.values()))]


def combinations(config: StudyConfig, arm: str) -> list[dict[str, Any]]:
    """The knobs among which an arm is tuned; a single empty choice where it is not."""
    tune = config.study.arms[arm].tune
    return [dict(zip(tune, values, strict=True)) for values in itertools.product(*tune.values())]


def configuration(config: StudyConfig, run: Run) -> Config:
    """The configuration of a run: the study's, then the levels' knobs, then the arm's, then those that were tuned.

    Raises:
        ConfigError: names every wrong knob at once.
    """
    try:
        return _laid(config, run)
    except ValidationError as error:
        raise refusal([f"{_place(run)}: {problem}" for problem in explain(error, Config)]) from None


def _laid(config: StudyConfig, run: Run) -> Config:
    """As `configuration`, but what is wrong as pydantic says it."""
    base = Config(**config.model_dump(mode="json", exclude={"study", "baseline"}))
    for knobs in layers(config, run):
        base = lay(base, nested(knobs))
    return lay(base, nested({"seed": run.seed}))


def layers(config: StudyConfig, run: Run) -> Iterator[Knobs]:
    """The knobs of a run in the order in which they are laid over each other."""
    for axis, level in run.cell.levels.items():
        yield config.study.axes[axis].levels[level]
    yield config.study.arms[run.arm].knobs
    yield run.tuned


def _place(run: Run) -> str:
    """Where a run's knobs come from."""
    return f"study.arms.{run.arm}" + (f" ({run.cell.name})" if run.cell.levels else "")


def check(config: StudyConfig) -> None:
    """Refuse a study with a run that cannot be, before anything starts.

    Raises:
        ConfigError: names what is wrong, once for each arm and level.
    """
    problems = [*_forbidden(config)]
    for cell, arm in itertools.product(cells(config), config.study.arms):
        for tuned in combinations(config, arm):
            run = Run(arm, cell, config.study.seeds[0], tuned)
            try:
                if _laid(config, run).phases[-1] != "finetune":
                    problems.append(f"study.arms.{arm}: phases must end with finetune, so that there is something to compare")
            except ValidationError as error:
                problems += [f"{_place(run)}: {problem}" for problem in explain(error, Config)]
    if config.study.tune_seeds > len(config.study.seeds):
        problems.append(f"study.tune_seeds: there are only {len(config.study.seeds)} seeds")
    if problems:
        raise refusal(list(dict.fromkeys(problems)))


def _forbidden(config: StudyConfig) -> Iterator[str]:
    """Knobs that no arm and no level may set."""
    study = config.study
    places: list[tuple[str, Sequence[str]]] = [(f"study.arms.{name}", [*arm.knobs, *arm.tune]) for name, arm in study.arms.items()]
    places += [(f"study.axes.{axis}.levels.{level}", [*knobs]) for axis, made in study.axes.items() for level, knobs in made.levels.items()]
    for place, names in places:
        yield from (f"{place}.{name}: {_FIXED[name]}" for name in names if name in _FIXED)


def runs(config: StudyConfig, tuned: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """Every run, seeds outermost, so that a study that is cut short has whole seeds; `tuned`: what was chosen, by `place`."""
    return [
        Run(arm, cell, seed, dict(tuned.get(place(arm, cell), {})))
        for seed in config.study.seeds
        for cell in cells(config)
        for arm in config.study.arms
    ]


def place(arm: str, cell: Cell) -> str:
    """An arm in a cell, as one word."""
    return json.dumps([arm, cell.levels], sort_keys=True)


def tuned_arms(config: StudyConfig) -> list[tuple[str, Cell]]:
    """The arms that have something to tune, in each cell."""
    return [(arm, cell) for cell in cells(config) for arm, made in config.study.arms.items() if made.tune]
