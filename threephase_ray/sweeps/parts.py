"""What a sweep's space is made of, each part read and checked by itself: files, axes, points to try first."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from threephase_ray import command
from threephase_ray.config import Config
from threephase_ray.mistakes import explain, in_words
from threephase_ray.sweeping import Axis, Sweep, SweepConfig
from threephase_ray.sweeps import axes
from threephase_ray.sweeps.axes import FILES, Condition, Scale
from threephase_ray.sweeps.trial import Point


class Parts(NamedTuple):
    """The parts, as far as they are sound, and what is wrong with them."""

    bases: dict[str | None, Config]  # file of the axis `configs`, None without it -> the configuration below the other axes
    scales: dict[str, Scale]  # axis -> its values
    conditions: dict[str, list[Condition]]  # axis -> when it counts
    points: list[Point]  # that were given, values in the knobs' own types
    problems: list[str]


def read(config: SweepConfig) -> Parts:
    """Read every part of the space."""
    parts = Parts({None: Config(**config.model_dump(mode="json", exclude={"sweep"}))}, {}, {}, [], [])
    for file in config.sweep.configs:
        parts.problems.extend(_read_file(file, parts.bases))
    if config.sweep.configs:
        parts.scales[FILES], parts.conditions[FILES] = Scale("choice", tuple(dict.fromkeys(config.sweep.configs))), []
    for name, axis in config.sweep.space.items():
        path = f"sweep.space.{name}"
        parts.problems.extend(f"{path}{problem}" for problem in _read_axis(name, axis, config.sweep.search.method, parts))
    for number, point in enumerate(config.sweep.search.points):
        read, problems = _read_point(point, config.sweep)
        parts.points.append(read)
        parts.problems.extend(f"sweep.search.points.{number}: {problem}" for problem in problems)
    return parts


def _read_file(file: str, bases: dict[str | None, Config]) -> Iterator[str]:
    """Lay a file over the configuration, and say what is wrong with it."""
    layers, problems = command.load([file])
    yield from problems
    for layer in layers:
        for name in _leaves(layer):
            reason = axes.mistake(name)
            if reason and name.split(".")[0] != "baseline" and (axes.no_knob(name) is None or name.startswith("sweep")):
                yield f"{file}: {name}: {reason}"
        try:
            bases[file] = command.lay(bases[None], {key: knobs for key, knobs in layer.items() if key != "sweep"})
        except ValidationError as error:
            yield from (f"{file}: {line}" for line in explain(error, Config))


def _leaves(layer: dict[str, Any], above: str = "") -> Iterator[str]:
    """Dotted names of a file's knobs."""
    for key, below in layer.items():
        if isinstance(below, dict) and f"{above}{key}" != "sweep":
            yield from _leaves(below, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _read_axis(name: str, axis: Axis, method: str, parts: Parts) -> Iterator[str]:
    """Bring an axis into its knob's own type, and say what is wrong with it."""
    problem = axes.mistake(name)
    if problem is None:
        parts.scales[name], problems = axes.scale(name, axis)
        yield from (f".{axis.kind}: {problem}" for problem in problems)
    else:
        yield f": {problem}"
    parts.conditions[name], problems = axes.conditions(name, axis.when)
    yield from (f".when: {problem}" for problem in problems)
    if method == "grid" and axis.values is None:
        yield f".{axis.kind}: a range has no grid: list its values with grid, or search with random or optuna"
    if method == "optuna" and axis.kind == "grid":
        yield ".grid: Optuna chooses among values: write choice, or search with grid or random"


def _read_point(given: Point, sweep: Sweep) -> tuple[Point, list[str]]:
    """A given point with its values in the knobs' own types, and what is wrong with it."""
    point, problems = Point(), []
    for name, wanted in given.items():
        try:
            if name == FILES and wanted in sweep.configs:
                point[name] = wanted
            elif name not in sweep.space:
                problems.append(f"{name}: " + (axes.no_knob(name) or "is no axis of the space") if name != FILES else _no_file(wanted))
            elif axes.mistake(name) is None:
                point[name] = axes.value(name, wanted)
        except ValidationError as error:
            problems.append(f"{name}: {in_words(error)}")
    return point, problems


def _no_file(wanted: object) -> str:
    return f"configs: {wanted} is not one of sweep.configs"
