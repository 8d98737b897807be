"""Wrong spaces: each problem is named before anything starts, all at once."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.spaces import BOTH, LOSS, NOISE, PAIRS, TEMPERATURE, config
from threephase_ray.errors import ConfigError
from threephase_ray.sweeps.space import Space

OTHER = "contrastive.texts_per_class"


def problems(axes: dict[str, Any] | None = None, **more: Any) -> list[str]:
    """What is wrong with a space, in lines."""
    with pytest.raises(ConfigError) as caught:
        Space(config(axes, **more))
    first, *lines, last = str(caught.value).splitlines()
    assert (first, last) == ("the configuration cannot be used:", "see --help for every knob")
    assert len(lines) <= 13
    return [line.strip() for line in lines]


# axes: the problem
BAD: list[tuple[dict[str, Any], str]] = [
    ({"dae.noise_ration": {"choice": [0.5]}}, "sweep.space.dae.noise_ration: no such knob; did you mean dae.noise_ratio?"),
    ({"zzz": {"choice": [0.5]}}, "sweep.space.zzz: no such knob"),
    ({"compute.wrokers": {"choice": [1]}}, "sweep.space.compute.wrokers: no such knob; did you mean compute.workers?"),
    ({"contrastive.loss": {"choice": ["a"]}}, "sweep.space.contrastive.loss: is a section: name one of its knobs"),
    ({"name": {"choice": ["b"]}}, "sweep.space.name: is that of the sweep and changes no result"),
    ({"store": {"choice": ["b"]}}, "sweep.space.store: is where results are kept and changes none"),
    ({"scratch": {"choice": ["b"]}}, "sweep.space.scratch: is where results are copied to and changes none"),
    ({"compute.workers": {"choice": [1]}}, "sweep.space.compute.workers: belongs to the machine and changes no result"),
    ({"compute.micro_batch": {"int": [1, 2]}}, "sweep.space.compute.micro_batch: belongs to the machine and changes no result"),
    ({"checkpoint.steps": {"choice": [1]}}, "sweep.space.checkpoint.steps: belongs to the machine and changes no result"),
    ({"tracking.experiment": {"choice": ["a"]}}, "sweep.space.tracking.experiment: shows what is trained and changes no result"),
    ({"skip_nonfinite": {"choice": [1]}}, "sweep.space.skip_nonfinite: lets damaged steps pass and changes no sound result"),
    ({"baseline.epochs": {"choice": [1]}}, "sweep.space.baseline.epochs: is not part of a trial"),
    ({"sweep.metric": {"choice": ["probe"]}}, "sweep.space.sweep.metric: is the search itself"),
    ({"sweep.search.seed": {"int": [1, 2]}}, "sweep.space.sweep.search.seed: is the search itself"),
    ({NOISE: {"choice": [0.5, 1.5]}}, f"sweep.space.{NOISE}.choice: Input should be less than 1 (given: 1.5)"),
    ({NOISE: {"uniform": [0.5, 1.5]}}, f"sweep.space.{NOISE}.uniform: Input should be less than 1 (given: 1.5)"),
    ({NOISE: {"uniform": [0, 0.5]}}, f"sweep.space.{NOISE}.uniform: Input should be greater than 0 (given: 0.0)"),
    (
        {TEMPERATURE: {"loguniform": [1, 11]}},
        f"sweep.space.{TEMPERATURE}.loguniform: Input should be less than or equal to 10 (given: 11.0)",
    ),
    ({"seed": {"int": [-1, 2]}}, "sweep.space.seed.int: Input should be greater than or equal to 0 (given: -1)"),
    ({"seed": {"uniform": [1, 2]}}, "sweep.space.seed.uniform: is a whole number: write int, or list its values with grid or choice"),
    (
        {"seed": {"uniform": [1.5, 2]}},
        "sweep.space.seed.uniform: Input should be a valid integer, got a number with a fractional part (given: 1.5)",
    ),
    (
        {"finetune.freeze_encoder": {"int": [0, 1]}},
        "sweep.space.finetune.freeze_encoder.int: is not a number: list its values with grid or choice",
    ),
    (
        {"dae.noise": {"choice": ["typos"]}},
        "sweep.space.dae.noise.choice: Input should be 'word_deletion', 'token_deletion' or 'masking' (given: 'typos')",
    ),
    (
        {LOSS: {"choice": ["triplet"]}},
        f"sweep.space.{LOSS}.choice: Input should be 'supervised_contrastive' or 'cosine_regression' (given: 'triplet')",
    ),
    ({"phases": {"choice": ["dae"]}}, "sweep.space.phases.choice: needs a list, such as [a, b] (given: 'dae')"),
    ({"seed": {"choice": [1], "when": {"dae.nose": 1}}}, "sweep.space.seed.when: dae.nose: no such knob; did you mean dae.noise?"),
    ({"seed": {"choice": [1], "when": {"dae": 1}}}, "sweep.space.seed.when: dae: is a section: name one of its knobs"),
    ({"seed": {"choice": [1], "when": {NOISE: 2}}}, f"sweep.space.seed.when: {NOISE}: Input should be less than 1 (given: 2)"),
    ({"seed": {"choice": [1], "when": {"configs": "a.yaml"}}}, "sweep.space.seed.when: configs is never a.yaml"),
    ({"seed": {"choice": [1], "when": {NOISE: 0.9}}, NOISE: {"uniform": [0.1, 0.8]}}, f"sweep.space.seed.when: {NOISE} is never 0.9"),
    ({"seed": {"choice": [1], "when": {"seed": 1}}}, "sweep.space: axes wait for each other by `when`: seed"),
    (
        {
            "dae.epochs": {"choice": [1], "when": {"dae.clip": 1}},
            "dae.clip": {"choice": [1], "when": {"dae.epochs": 1}},
            "seed": {"choice": [1]},
        },
        "sweep.space: axes wait for each other by `when`: dae.epochs, dae.clip",
    ),
    (
        {"contrastive.batch": {"choice": [8]}, OTHER: {"choice": [8, 16]}},
        "sweep.space: contrastive.batch: must hold at least two groups of contrastive.texts_per_class texts",
    ),
]


@pytest.mark.parametrize(("axes", "problem"), BAD, ids=lambda case: case if isinstance(case, str) else "")
def test_wrong_axis(axes: dict[str, Any], problem: str) -> None:
    found = problems(axes)
    assert len(found) == 1
    assert found[0] == problem or (found[0].startswith(problem) and "(at " in found[0])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("compute.precision", ["fp32", "bf16"]),
        ("compute.global_batch", [8, 16]),
        ("data.max_length", [None, 8]),
        ("encoder.dropout", [0.1, None]),
        ("phases", [["finetune"], ["dae", "finetune"]]),
        ("finetune.freeze_encoder", [True, False]),
    ],
)
def test_knobs_that_can_be_searched(name: str, values: list[Any]) -> None:
    space = Space(config({name: {"grid": values}}, search={"method": "grid"}))
    assert [point[name] for point in space.grid()] == values


@pytest.mark.parametrize(
    ("method", "axis", "problem"),
    [
        ("grid", {"uniform": [0.1, 0.2]}, f"sweep.space.{NOISE}.uniform: a range has no grid: list its values"),
        ("grid", {"loguniform": [0.1, 0.2]}, f"sweep.space.{NOISE}.loguniform: a range has no grid: list its values"),
        ("optuna", {"grid": [0.1, 0.2]}, f"sweep.space.{NOISE}.grid: Optuna chooses among values: write choice"),
    ],
)
def test_axis_that_the_method_cannot_search(method: str, axis: dict[str, Any], problem: str) -> None:
    [found] = problems({NOISE: axis}, search={"method": method})
    assert found.startswith(problem)


def test_every_clash_of_a_grid_is_named_beforehand() -> None:
    axes = {"contrastive.batch": {"grid": [8, 16, 48]}, OTHER: {"grid": [4, 8, 16]}, "phases": {"grid": [["contrastive"], ["dae", "dae"]]}}
    found = problems(axes, search={"method": "grid"})
    assert found == [
        "sweep.space: contrastive.batch: must hold at least two groups of contrastive.texts_per_class texts "
        "(at 3 of 10 points, the first: phases=['contrastive'], contrastive.batch=8, contrastive.texts_per_class=8)",
        "sweep.space: phases: dae, dae names a phase twice (at 1 of 10 points, the first: phases=['dae', 'dae'])",
    ]


@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_grid_that_nobody_could_try(method: str) -> None:
    axes = {"seed": {"grid": list(range(200))}, "dae.epochs": {"grid": list(range(1, 101))}}
    found = problems(axes, search={"method": method})
    assert found == ["sweep.space: a grid of 20,000 combinations, 10,000 at most: list fewer values, or search with random"]


# search.points: the problem
BAD_POINTS: list[tuple[dict[str, Any], str]] = [
    ({"dae.nose_ratio": 1}, "dae.nose_ratio: no such knob; did you mean dae.noise_ratio?"),
    ({"dae.epochs": 1}, "dae.epochs: is no axis of the space"),
    ({"dae": 1}, "dae: is a section: name one of its knobs"),
    ({NOISE: 1.5}, f"{NOISE}: Input should be less than 1 (given: 1.5)"),
    ({NOISE: [1]}, f"{NOISE}: Input should be a valid number (given: [1])"),
    ({"configs": "a.yaml"}, "configs: a.yaml is not one of sweep.configs"),
    ({TEMPERATURE: 0.5, LOSS: BOTH[1]}, f"{TEMPERATURE} does not count at this point"),
]


@pytest.mark.parametrize(("point", "problem"), BAD_POINTS)
def test_wrong_point(point: dict[str, Any], problem: str) -> None:
    axes = {NOISE: {"uniform": [0.2, 0.8]}, LOSS: {"choice": BOTH}, TEMPERATURE: {"uniform": [0.1, 0.8]}, PAIRS: {"choice": ["batch"]}}
    assert problems(axes, search={"points": [{NOISE: 0.3}, point]}) == [f"sweep.search.points.1: {problem}"]


def test_values_of_a_point_that_do_not_go_together() -> None:
    [found] = problems({OTHER: {"choice": [2, 4]}}, search={"points": [{OTHER: 100}]})
    assert found.startswith("sweep.search.points: contrastive.batch: must hold at least two groups")


# content of a file of `configs`: fragments of its problems, one each
BAD_FILES: list[tuple[str, list[str]]] = [
    ("dae: [\n", ["line 2, column 1"]),
    ("- seed\n", ["must hold `knob: value` lines"]),
    ("dae: {noise_ration: 1, epochs: 0}\n", ["dae.noise_ration: no such knob; did you mean", "dae.epochs: Input should be greater than 0"]),
    ("name: b\nstore: c\n", ["name: is that of the sweep", "store: is where results are kept"]),
    ("compute: {workers: 2, precision: bf16}\n", ["compute.workers: belongs to the machine"]),
    ("sweep: {metric: probe, space: {}}\n", ["sweep: is the search itself"]),
    ("dae: 3\n", ["dae: is a section"]),
    ("contrastive: {texts_per_class: 30}\n", ["contrastive.batch: must hold at least two groups"]),
]


@pytest.mark.parametrize(("text", "fragments"), BAD_FILES)
def test_wrong_file(tmp_path: Path, text: str, fragments: list[str]) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(text, encoding="utf-8")
    found = problems(files=[str(path)])
    assert len(found) == len(fragments)
    assert not [line for line, fragment in zip(sorted(found), sorted(fragments), strict=True) if f"{path}: {fragment}" not in line], found


def test_file_that_is_not_there() -> None:
    assert problems(files=["missing.yaml"]) == ["missing.yaml: No such file or directory"]


def test_all_problems_come_at_once() -> None:
    axes = {
        "zzz": {"choice": [1]},
        NOISE: {"choice": [2, 0.5, -1]},
        "seed": {"int": [0, 3], "when": {"zz": 1}},
        "store": {"grid": ["a"]},
    }
    found = problems(axes, files=["missing.yaml"], search={"method": "optuna", "points": [{"dae.epochs": 1}]})
    assert len(found) == 8
    assert len(problems({f"zzz{i}": {"choice": [1]} for i in range(20)})) == 13
