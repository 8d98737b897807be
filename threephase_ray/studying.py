"""Knobs of a study: a run's configuration with the section `study`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from threephase_ray.config import Config
from threephase_ray.machine import Section
from threephase_ray.sweeping import Value

NAME = r"^[a-z0-9][a-z0-9._-]{0,39}$"
Name = Annotated[str, Field(pattern=NAME)]


class Arm(Section):
    """A variant of the method: the knobs in which it differs."""

    knobs: dict[str, Any] = Field({}, description="dotted knob: value")
    tune: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(
        {}, description="dotted knob: [values]; of all combinations the best on validation is taken, in each cell anew"
    )


class Levels(Section):
    """An axis: what is varied beside the arms, such as the data set or the rows per class."""

    levels: dict[Name, dict[str, Any]] = Field(min_length=1, description="name of the level: {dotted knob: value}")


class Study(Section):
    """The comparison: every arm, at every combination of the axes' levels (a cell), with every seed."""

    question: str = Field("", description="what the study is to answer, for its report")
    arms: dict[Name, Arm] = Field({"default": Arm()}, min_length=1, description="name of the arm: {knobs, tune}")
    axes: dict[Name, Levels] = Field({}, description="name of the axis: {levels}")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (0, 1, 2, 3, 4), min_length=1, description="each also draws the subset of the texts, the same for all arms"
    )
    reference: str | None = Field(None, description="arm that the others are compared with (empty: the last one)")
    metric: Literal["accuracy", "macro_f1"] = Field("accuracy", description="by which an arm is tuned, on the validation split")
    tune_seeds: int = Field(1, ge=1, description="with so many of the seeds an arm is tuned, by the mean; the others take what was found")
    keep_classifiers: bool = Field(False, description="keep the weights of the last phases, which nothing shares, after their test")
    groups: int | None = Field(None, ge=1, description="runs at work at once (empty: as many as the cluster has room for)")

    @model_validator(mode="after")
    def _fits_together(self) -> "Study":
        if self.reference is not None and self.reference not in self.arms:
            raise ValueError(f"reference: {self.reference} is none of the arms: {', '.join(self.arms)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: has a seed twice")
        return self

    @property
    def base(self) -> str:
        """The arm that the others are compared with."""
        return self.reference if self.reference is not None else list(self.arms)[-1]


class StudyConfig(Config):
    """A run's configuration, and what to compare."""

    study: Study = Field(Study(), description="the comparison")
