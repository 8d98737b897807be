"""Spaces for the tests of the search."""

from typing import Any

from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps.space import Space

NOISE, TEMPERATURE, RATIO = "dae.noise_ratio", "contrastive.loss.temperature", "contrastive.imbalance.max_ratio"
LOSS, PAIRS = "contrastive.loss.name", "contrastive.loss.pairs"
BOTH = ["supervised_contrastive", "cosine_regression"]


def config(axes: dict[str, Any] | None = None, *, search: dict[str, Any] | None = None, files: Any = (), **knobs: Any) -> SweepConfig:
    """A sweep over the axes, else over the default ones, of a run with some knobs."""
    least = {"name": "a", "data": {"train": "a.csv"}, "encoder": {"path": "e"}}
    space = {} if axes is None else {"space": axes}
    return SweepConfig(**least | knobs, sweep={**space, "search": {"method": "random"} | (search or {}), "configs": files})


def space(axes: dict[str, Any] | None = None, **more: Any) -> Space:
    """The space of such a sweep."""
    return Space(config(axes, **more))


def grid(axes: dict[str, list[Any]], when: dict[str, Any] | None = None, **more: Any) -> Space:
    """A space of lists, all of them tried; `when` by axis."""
    conditions = when or {}
    described = {name: {"grid": values, "when": conditions.get(name, {})} for name, values in axes.items()}
    return space(described, search={"method": "grid"} | more.pop("search", {}), **more)
