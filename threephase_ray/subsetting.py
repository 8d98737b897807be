"""Every knob of subsets: how many rows of a split, of which class sizes, of which lengths."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from threephase_ray.machine import Section


def _span(value: object) -> tuple[int, int | None] | None:
    """The least and the most: [1, 8], [9, null]; flags say it as "1,8" and "9,null"."""
    given = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    parts = [None if str(part).strip() in ("", "null", "None") else str(part).strip() for part in given]
    if parts == [None]:
        return None
    if len(parts) == 2 and all(part is None or part.isdecimal() for part in parts) and parts[0] is not None:
        least, most = int(parts[0]), None if parts[1] is None else int(parts[1])
        if least >= 1 and (most is None or least <= most):
            return least, most
    raise ValueError("needs [least, most] with 1 ≤ least ≤ most, the most null where there is none")


Words = Annotated[tuple[int, int | None] | None, BeforeValidator(_span)]


class Rows(Section):
    """Subsets, drawn with the seed: with the same seed a smaller one is part of a larger one."""

    train: int | None = Field(None, ge=1, description="at most so many training rows, class sizes in proportion (empty: all)")
    validation: int | None = Field(None, ge=1, description="rows of the validation split, likewise (empty: all)")
    test: int | None = Field(None, ge=1, description="rows of the test split, likewise (empty: all)")
    min_per_class: int = Field(4, ge=1, description="rows that each class keeps at least in these three, where it has them")
    unlabelled: int | None = Field(None, ge=1, description="rows of the unlabelled split, those of `rest` included (empty: all)")
    per_class: int | None = Field(None, ge=1, description="at most so many training rows of each class; with `imbalance`, their mean")
    imbalance: float | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="largest to smallest class in training, the others geometrically in between, in an order that the seed draws; without "
        "`per_class` as large as no class runs short; with it a class that runs short keeps all its rows, and others share what it lacks",
    )
    rest: Literal["leave", "unlabelled"] = Field(
        "leave", description="training rows that a subset leaves out: not used, or part of the unlabelled split, without their labels"
    )

    @model_validator(mode="after")
    def _says_once_how_many(self) -> "Rows":
        shaped = [name for name in ("per_class", "imbalance") if getattr(self, name) is not None]
        if self.train is not None and shaped:
            raise ValueError(f"train and {shaped[0]} both say how many training rows each class has: set one of them to null")
        return self

    @property
    def cuts_train(self) -> bool:
        """Whether the training split may lose rows."""
        return any(knob is not None for knob in (self.train, self.per_class, self.imbalance))

    @property
    def draws(self) -> bool:
        """Whether any split may lose rows, so that the seed matters."""
        return self.cuts_train or any(knob is not None for knob in (self.validation, self.test, self.unlabelled))
