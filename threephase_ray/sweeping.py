"""Knobs of a sweep: a run's configuration with the section `sweep`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from threephase_ray.config import Config
from threephase_ray.machine import Section

Value = bool | int | float | str | None | tuple[str, ...]
Whole = int  # the name `int` is an axis below
KINDS = ("grid", "choice", "uniform", "loguniform", "int")


class Axis(Section):
    """The values of one knob: one of grid, choice, uniform, loguniform, int."""

    grid: tuple[Value, ...] | None = Field(None, min_length=1, description="every value")
    choice: tuple[Value, ...] | None = Field(None, min_length=1, description="one of these values")
    uniform: tuple[float, float] | None = Field(None, description="a number between two")
    loguniform: tuple[float, float] | None = Field(None, description="a number between two, its logarithm uniform")
    int: tuple[Whole, Whole] | None = Field(None, description="a whole number between two, both included")
    when: dict[str, Value] = Field({}, description="the axis counts only in trials whose knobs have these values")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "Axis":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(KINDS)} (given: {', '.join(given) if given else 'none'})")
        low_high = getattr(self, self.kind) if self.kind in ("uniform", "loguniform", "int") else None
        if low_high is not None and not low_high[0] < low_high[1]:
            raise ValueError(f"{self.kind}: needs [low, high], with low < high (given: {list(low_high)})")
        if self.kind == "loguniform" and low_high is not None and low_high[0] <= 0:
            raise ValueError(f"loguniform: needs bounds above 0 (given: {list(low_high)})")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> tuple[Value, ...] | None:
        """The values that it lists; None for a range."""
        return self.grid if self.grid is not None else self.choice


class Search(Section):
    """Which points of the space are tried, in which order."""

    method: Literal["grid", "random", "optuna"] = Field("optuna", description="every point, points drawn at random, or Optuna's TPE")
    trials: int | None = Field(None, ge=1, description="trials (empty: all of a grid, else 20)")
    seed: int = Field(0, ge=0, lt=2**31, description="of the search alone")
    points: tuple[dict[str, Any], ...] = Field((), description="points to try first, each as knob: value; knobs left out are as configured")
    start_from: tuple[str, ...] = Field((), description="names of earlier sweeps in the same store whose trials Optuna learns from")


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020) over the progress of a trial, counted from the first phase with a score."""

    grace: int = Field(25, ge=1, description="first rung, in hundredths of a phase: 25 is a quarter of phase 2, 125 a quarter of phase 3")
    reduction: float = Field(3.0, gt=1, description="at each rung one in so many goes on; each rung is so many times as far as the last")


class Halving(Section):
    """After the last phase but one, a probe of the embeddings on validation decides which trials go on to the last."""

    keep: float = Field(1 / 3, gt=0, le=1, description="share of the trials that go on")
    probe: Literal["linear", "knn"] = Field("linear", description="logistic regression on the embeddings, or their nearest neighbours")
    wait: bool | None = Field(None, description="compare all trials, or those so far (empty: all, unless Optuna searches)")


class Limits(Section):
    """When a sweep ends, though there is more to try; running trials are saved, and go on when a limit is raised."""

    hours: float | None = Field(None, gt=0, description="hours since the sweep was started, that of a call before included")
    worker_hours: float | None = Field(None, gt=0, description="hours of workers spent on phases")
    plateau: int | None = Field(None, ge=1, description="finished trials in a row without a better one")


class Sweep(Section):
    """The search."""

    space: dict[str, Axis] = Field(
        {
            "dae.noise_ratio": Axis(uniform=(0.2, 0.8)),
            "contrastive.loss.temperature": Axis(loguniform=(0.03, 0.5)),
            "contrastive.imbalance.max_ratio": Axis(loguniform=(1.5, 20.0)),
        },
        min_length=1,
        description="dotted knob: {grid | choice: [...]} or {uniform | loguniform | int: [low, high]}, and {when: {knob: value}}",
    )
    configs: tuple[str, ...] = Field((), description="files with knobs, as an axis: each is laid over the configuration, one at a time")
    metric: Literal["accuracy", "macro_f1", "probe"] = Field("accuracy", description="what is searched for, on the validation split")
    search: Search = Field(Search(), description="the points")
    asha: Asha | None = Field(None, description="stop trials that fall behind, at any validation")
    halving: Halving | None = Field(None, description="stop trials after the last phase but one")
    limits: Limits = Field(Limits(), description="when to end")
    groups: int | None = Field(None, ge=1, description="trials at work at once (empty: as many as the cluster has room for)")
    retrain_seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (), description="seeds with which the best configuration is trained in the end; then, only then, the test split is looked at"
    )


class SweepConfig(Config):
    """A run's configuration, and what to search."""

    sweep: Sweep = Field(Sweep(), description="the search")
