"""From a study's knobs to its runs, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from threephase_ray import command
from threephase_ray.errors import ConfigError
from threephase_ray.studies import arms
from threephase_ray.studies.arms import Cell, Run
from threephase_ray.studying import StudyConfig

STUDY = """
name: s
data: {train: a.csv}
encoder: {path: e}
study:
  reference: fair
  seeds: [3, 4]
  axes:
    data: {levels: {one: {data.train: one.csv}, two: {data.train: two.csv, finetune.steps: 7}}}
    rows: {levels: {"10": {data.rows.train: 10}, "50": {data.rows.train: 50}}}
  arms:
    three: {}
    fair:
      knobs: {phases: [finetune], finetune.learning_rate: 0.1, finetune.steps: 9}
      tune: {finetune.epochs: [1, 2], finetune.batch: [8, 16]}
"""


def read(tmp_path: Path, text: str = STUDY) -> StudyConfig:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return command.read([str(path)], [], StudyConfig)


def test_every_arm_meets_every_cell_with_every_seed(tmp_path: Path) -> None:
    config = read(tmp_path)
    arms.check(config)
    cells = arms.cells(config)
    assert [cell.name for cell in cells] == ["one, 10", "one, 50", "two, 10", "two, 50"]
    runs = arms.runs(config, {arms.place("fair", cells[1]): {"finetune.epochs": 2}})
    assert len(runs) == 16
    assert [run.seed for run in runs] == [3] * 8 + [4] * 8
    assert {tuple(run.tuned) for run in runs if (run.arm, run.cell) == ("fair", cells[1])} == {("finetune.epochs",)}
    assert not any(run.tuned for run in runs if (run.arm, run.cell) != ("fair", cells[1]))
    assert arms.combinations(config, "three") == [{}]
    assert arms.combinations(config, "fair") == [{"finetune.epochs": a, "finetune.batch": b} for a in (1, 2) for b in (8, 16)]
    assert arms.tuned_arms(config) == [("fair", cell) for cell in cells]


def test_levels_come_first_then_the_arm_then_what_was_tuned(tmp_path: Path) -> None:
    config = read(tmp_path)
    found = arms.configuration(config, Run("fair", Cell({"data": "two", "rows": "50"}), 4, {"finetune.learning_rate": 0.2}))
    assert (found.data.train, found.data.rows.train, found.seed) == ("two.csv", 50, 4)
    assert (found.finetune.steps, found.finetune.learning_rate, found.phases) == (9, 0.2, ("finetune",))
    three = arms.configuration(config, Run("three", Cell({"data": "two", "rows": "10"}), 3, {}))
    assert (three.finetune.steps, three.phases) == (7, ("dae", "contrastive", "finetune"))


def test_a_study_without_axes_is_one_cell(tmp_path: Path) -> None:
    config = read(tmp_path, "name: s\ndata: {train: a.csv}\nencoder: {path: e}\n")
    assert arms.cells(config) == [Cell({})]
    assert len(arms.runs(config, {})) == 5
    assert config.study.base == "default"


# what stands in `study`: fragments of the message
BAD: dict[str, list[str]] = {
    "arms: {a: {knobs: {dae.nois_ratio: 0.5}}}": ["study.arms.a: dae.nois_ratio: no such knob", "did you mean dae.noise_ratio?"],
    "arms: {a: {knobs: {dae.noise_ratio: 5}}}": ["study.arms.a: dae.noise_ratio: Input should be less than 1"],
    "arms: {a: {tune: {dae.epochs: [1, x]}}}": ["study.arms.a: dae.epochs: ", "(given: 'x')"],
    "arms: {a: {tune: {dae.epochs: []}}}": ["study.arms.a.tune.dae.epochs"],
    "arms: {a: {knobs: {seed: 3}}}": ["study.arms.a.seed: is one of study.seeds"],
    "arms: {a: {tune: {store: [x]}}}": ["study.arms.a.store: is the study's"],
    "arms: {a: {knobs: {phases: [dae]}}}": ["study.arms.a: phases must end with finetune"],
    "arms: {A!: {}}": ["study.arms.A!: a name has small letters"],
    "arms: {}": ["study.arms: needs an item at least"],
    "axes: {x: {levels: {one: {data.text_colum: t}}}}": ["(one): data.text_colum: no such knob"],
    "axes: {x: {levels: {}}}": ["study.axes.x.levels"],
    "axes: {x: {levels: {one: {name: t}}}}": ["study.axes.x.levels.one.name: is that of the study"],
    "reference: b": ["b is none of the arms: default"],
    "seeds: [1, 1]": ["has a seed twice"],
    "seeds: []": ["study.seeds: needs an item at least"],
    "tune_seeds: 9": ["study.tune_seeds: there are only 5 seeds"],
}


@pytest.mark.parametrize("text", BAD)
def test_bad_studies_are_refused_before_anything_starts(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        arms.check(read(tmp_path, f"name: s\ndata: {{train: a.csv}}\nencoder: {{path: e}}\nstudy:\n  {text}\n"))
    assert all(fragment in str(refused.value) for fragment in BAD[text]), refused.value


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    arm = "{knobs: {dae.noise_ratio: 5, contrastive.lss: 3}}"
    text = f"name: s\ndata: {{train: a.csv}}\nencoder: {{path: e}}\nstudy: {{arms: {{a: {arm}, b: {{knobs: {{phases: []}}}}}}}}\n"
    with pytest.raises(ConfigError) as refused:
        arms.check(read(tmp_path, text))
    said: Any = str(refused.value)
    assert all(part in said for part in ("study.arms.a: dae.noise_ratio", "study.arms.a: contrastive.lss", "study.arms.b: phases"))
