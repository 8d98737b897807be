"""The space of a sweep: which points it has, in which order, and what each point's configuration is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.spaces import BOTH, LOSS, NOISE, PAIRS, RATIO, TEMPERATURE, config, grid, space
from threephase_ray import command
from threephase_ray.config import Config, CosineRegression, SupervisedContrastive
from threephase_ray.sweeps.space import Space, key
from threephase_ray.sweeps.trial import Point

USUAL = SupervisedContrastive().temperature
FIVE = {NOISE: [0.2, 0.3, 0.4, 0.5, 0.6], TEMPERATURE: [0.03, 0.05, 0.1, 0.2, 0.5], RATIO: [1.5, 2, 4, 8, 20]}
COSINE: dict[str, Any] = {"contrastive": {"loss": {"name": "cosine_regression"}}}


def test_a_grid_has_every_point_once() -> None:
    points = grid(FIVE).grid()
    assert len(points) == len({key(point) for point in points}) == 125
    assert all(set(point) == set(FIVE) for point in points)


def test_a_knob_of_another_choice_does_not_count() -> None:
    points = grid(FIVE, **COSINE).grid()
    assert len(points) == 25
    assert all(set(point) == {NOISE, RATIO} for point in points)


# axes, when, knobs of the base: the points, in order
GRIDS: list[tuple[dict[str, list[Any]], dict[str, Any], dict[str, Any], list[Point]]] = [
    ({"seed": [2, 1]}, {}, {}, [{"seed": 2}, {"seed": 1}]),
    ({"dae.epochs": [1, 1.0, "1"]}, {}, {}, [{"dae.epochs": 1.0}]),
    ({"phases": [["dae"], ["finetune"]]}, {}, {}, [{"phases": ["dae"]}, {"phases": ["finetune"]}]),
    # a choice, and the knobs of its members
    (
        {TEMPERATURE: [0.1, 0.2], PAIRS: ["batch"], LOSS: BOTH},
        {},
        {},
        [{LOSS: BOTH[0], TEMPERATURE: 0.1}, {LOSS: BOTH[0], TEMPERATURE: 0.2}, {LOSS: BOTH[1], PAIRS: "batch"}],
    ),
    # phases that are not trained
    (
        {NOISE: [0.2, 0.3], "phases": [["dae", "finetune"], ["finetune"]], "finetune.head": ["mlp"]},
        {},
        {},
        [
            {"phases": ["dae", "finetune"], NOISE: 0.2, "finetune.head": "mlp"},
            {"phases": ["dae", "finetune"], NOISE: 0.3, "finetune.head": "mlp"},
            {"phases": ["finetune"], "finetune.head": "mlp"},
        ],
    ),
    (
        {NOISE: [0.2], RATIO: [2, 3], "seed": [1]},
        {},
        {"phases": ["joint"]},
        [{"seed": 1, NOISE: 0.2, RATIO: 2.0}, {"seed": 1, NOISE: 0.2, RATIO: 3.0}],
    ),
    ({NOISE: [0.2, 0.3]}, {}, {"phases": ["finetune"]}, [{}]),
    # conditions on the base, on another axis, on an axis that does not count, on knobs of a choice
    ({"seed": [1, 2]}, {"seed": {"dae.noise": "masking"}}, {}, [{}]),
    ({"seed": [1, 2]}, {"seed": {"dae.noise": "masking"}}, {"dae": {"noise": "masking"}}, [{"seed": 1}, {"seed": 2}]),
    (
        {"dae.decoder_layers": [1, 2], "dae.decoder": ["tied", "fresh"]},
        {"dae.decoder_layers": {"dae.decoder": "fresh"}},
        {},
        [{"dae.decoder": "tied"}, {"dae.decoder": "fresh", "dae.decoder_layers": 1}, {"dae.decoder": "fresh", "dae.decoder_layers": 2}],
    ),
    (
        {"finetune.epochs": [1, 2], TEMPERATURE: [0.2], LOSS: BOTH},
        {"finetune.epochs": {TEMPERATURE: 0.2}},
        {},
        [
            {LOSS: BOTH[0], TEMPERATURE: 0.2, "finetune.epochs": 1.0},
            {LOSS: BOTH[0], TEMPERATURE: 0.2, "finetune.epochs": 2.0},
            {LOSS: BOTH[1]},
        ],
    ),
    ({LOSS: BOTH, "seed": [5]}, {"seed": {PAIRS: "batch"}}, {}, [{LOSS: BOTH[0]}, {LOSS: BOTH[1], "seed": 5}]),
    ({LOSS: BOTH, "seed": [5]}, {"seed": {TEMPERATURE: USUAL}}, COSINE, [{LOSS: BOTH[1]}, {LOSS: BOTH[0], "seed": 5}]),
    ({"seed": [5]}, {"seed": {"phases": ["dae", "contrastive", "finetune"], "compute.workers": 1}}, {}, [{"seed": 5}]),
    ({"seed": [5]}, {"seed": {"baseline.epochs": 3}}, {}, [{}]),
]


@pytest.mark.parametrize(("axes", "when", "knobs", "points"), GRIDS)
def test_points_of_a_grid(axes: dict[str, list[Any]], when: dict[str, Any], knobs: dict[str, Any], points: list[Point]) -> None:
    made = grid(axes, when, **knobs)
    assert made.grid() == points
    assert all(made.fits(point) and made.usable(point) for point in points)
    assert made.size >= len(points)


def test_points_that_begin_alike_stand_together() -> None:
    axes = {"finetune.epochs": [1, 2], RATIO: [2, 3], NOISE: [0.2, 0.3], "joint.epochs": [1, 2], "data.max_length": [8, 9], "seed": [1, 2]}
    points = grid(axes, phases=["dae", "contrastive", "joint", "finetune"]).grid()
    order = ["data.max_length", "seed", NOISE, RATIO, "joint.epochs", "finetune.epochs"]
    assert len(points) == 64
    assert points == sorted(points, key=lambda point: [point[name] for name in order])


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_files_as_an_axis(tmp_path: Path) -> None:
    one = write(tmp_path, "one.yaml", "dae: {noise: masking, epochs: 7}\nbaseline: {}\n")
    two = write(tmp_path, "two.yaml", "contrastive: {loss: {name: cosine_regression, pairs: sampled}}\n")
    axes = {TEMPERATURE: [0.2, 0.3], "finetune.epochs": [8], "seed": [1, 2]}
    made = grid(axes, {"finetune.epochs": {"configs": one}, "seed": {"dae.noise": "masking"}}, files=[two, one])
    head = {"configs": one, "finetune.epochs": 8.0}
    assert made.grid() == [
        {"configs": two},
        *({**head, "seed": seed, TEMPERATURE: temperature} for seed in (1, 2) for temperature in (0.2, 0.3)),
    ]
    assert made.configuration({"configs": two}).contrastive.loss == CosineRegression(pairs="sampled")
    found = made.configuration({**head, "seed": 2, TEMPERATURE: 0.3})
    assert (found.dae.noise, found.dae.epochs, found.finetune.epochs, found.seed) == ("masking", 7, 8, 2)


def test_the_configuration_of_a_trial_is_plain() -> None:
    base = config(FIVE_AXES, seed=3)
    made = Space(base)
    plain = Config(**base.model_dump(exclude={"sweep"}))
    assert type(made.configuration({})) is Config
    assert made.configuration({}) == plain
    point = {NOISE: 0.25, LOSS: "cosine_regression", PAIRS: "sampled"}
    assert made.configuration(point) == command.laid_over(plain, point)
    assert made.configuration(point).name == "a"


FIVE_AXES = {
    NOISE: {"uniform": [0.2, 0.8]},
    TEMPERATURE: {"loguniform": [0.03, 0.5]},
    "contrastive.texts_per_class": {"int": [2, 6]},
    LOSS: {"choice": BOTH},
    "dae.epochs": {"int": [1, 3]},
}


def test_draws_lie_within_their_ranges_and_reach_their_ends() -> None:
    made, rng = space(FIVE_AXES), np.random.default_rng(0)
    points = [point for _ in range(1000) for point in made.draw(rng)]
    assert all(made.fits(point) for point in points)
    columns = {name: [point[name] for point in points if name in point] for name in FIVE_AXES}
    assert 0.2 <= min(columns[NOISE]) < 0.21
    assert 0.79 < max(columns[NOISE]) <= 0.8
    assert set(columns["contrastive.texts_per_class"]) == {2, 3, 4, 5, 6}
    assert {repr(value) for value in columns["dae.epochs"]} == {"1.0", "2.0", "3.0"}
    assert 440 < columns[LOSS].count(BOTH[0]) == len(columns[TEMPERATURE]) < 560
    assert np.median(columns[TEMPERATURE]) == pytest.approx(np.sqrt(0.03 * 0.5), rel=0.15)
    assert made.size == float("inf")


def test_draws_come_with_every_combination_of_the_grid() -> None:
    axes = {NOISE: {"uniform": [0.2, 0.8]}, "seed": {"grid": [1, 2, 3]}, LOSS: {"grid": BOTH}, TEMPERATURE: {"uniform": [0.1, 0.2]}}
    points = space(axes).draw(np.random.default_rng(0))
    assert [(point["seed"], point[LOSS]) for point in points] == [(seed, loss) for seed in (1, 2, 3) for loss in BOTH]
    assert len({point[NOISE] for point in points}) == 1
    assert [TEMPERATURE in point for point in points] == [True, False] * 3


@pytest.mark.parametrize(
    ("point", "fits"),
    [
        ({NOISE: 0.2, LOSS: BOTH[0], TEMPERATURE: 0.5, "seed": 1}, True),
        ({NOISE: 0.8, LOSS: BOTH[1], "seed": 3}, True),
        ({NOISE: 0.8, LOSS: BOTH[1], "seed": 3, TEMPERATURE: 0.5}, False),
        ({NOISE: 0.8, LOSS: BOTH[0], "seed": 3}, False),
        ({NOISE: 0.81, LOSS: BOTH[1], "seed": 3}, False),
        ({NOISE: 0.8, LOSS: BOTH[1], "seed": 1.5}, False),
        ({NOISE: "0.8", LOSS: BOTH[1], "seed": 1}, False),
        ({NOISE: 0.8, LOSS: "triplet", "seed": 1}, False),
        ({NOISE: 0.8, LOSS: BOTH[1], "seed": 1, "dae.epochs": 1}, False),
        ({}, False),
    ],
)
def test_points_of_other_spaces_do_not_fit(point: Point, fits: bool) -> None:
    axes = {NOISE: {"uniform": [0.2, 0.8]}, LOSS: {"choice": BOTH}, TEMPERATURE: {"loguniform": [0.03, 0.5]}, "seed": {"int": [1, 3]}}
    assert space(axes).fits(point) == fits


SMALL = {NOISE: {"uniform": [0.2, 0.8]}, LOSS: {"choice": BOTH}, TEMPERATURE: {"choice": [0.2, 0.3]}, PAIRS: {"choice": ["sampled"]}}


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ({}, [{NOISE: 0.6, LOSS: BOTH[0], TEMPERATURE: USUAL}]),
        ({NOISE: 0.9}, [{NOISE: 0.9, LOSS: BOTH[0], TEMPERATURE: USUAL}]),
        ({NOISE: "0.5", LOSS: BOTH[1]}, [{NOISE: 0.5, LOSS: BOTH[1], PAIRS: "batch"}]),
    ],
)
def test_what_a_given_point_leaves_out_is_as_configured(given: Point, completed: list[Point]) -> None:
    assert space(SMALL, search={"points": [given]}).given == completed


def test_a_given_point_is_tried_with_every_value_of_the_grid() -> None:
    axes = {"seed": {"grid": [1, 2]}, NOISE: {"uniform": [0.2, 0.8]}}
    points = [{NOISE: 0.5}, {"seed": 2}, {"seed": 2}]
    assert space(axes, search={"points": points}).given == [{"seed": 1, NOISE: 0.5}, {"seed": 2, NOISE: 0.5}, {"seed": 2, NOISE: 0.6}]


def test_a_given_point_without_a_file_is_the_configuration_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "one.yaml", "dae: {noise_ratio: 0.7}\n")
    made = space({NOISE: {"uniform": [0.2, 0.8]}}, files=[path], search={"points": [{}, {"configs": path}]})
    assert made.given == [{NOISE: 0.6}, {"configs": path, NOISE: 0.7}]
    assert made.configuration(made.given[0]).dae.noise_ratio == 0.6
