"""Trials as Optuna sees them: importance of knobs, and a file that its own tools open."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.unit.spaces import BOTH, LOSS, NOISE, PAIRS, TEMPERATURE, grid, space
from threephase_ray.sweeps.space import Space
from threephase_ray.sweeps.tpe import importance, storage, suggestions
from threephase_ray.sweeps.trial import Mark, Point, Trial

MIXED: dict[str, Any] = {
    NOISE: {"uniform": [0.2, 0.8]},
    LOSS: {"choice": BOTH},
    TEMPERATURE: {"loguniform": [0.03, 0.5]},
    PAIRS: {"choice": ["batch", "sampled"]},
    "finetune.epochs": {"int": [1, 9]},
    "phases": {"choice": [["dae", "contrastive", "finetune"], ["contrastive", "finetune"]]},
}


def drawn(made: Space, count: int) -> list[Point]:
    rng = np.random.default_rng(0)
    return [made.draw(rng)[0] for _ in range(count)]


def done(made: Space, count: int, score: Any) -> list[Trial]:
    return [Trial(number, point, status="done", score=score(point)) for number, point in enumerate(drawn(made, count))]


def test_the_knob_that_matters_is_the_most_important() -> None:
    made = space({NOISE: {"uniform": [0.2, 0.8]}, "dae.epochs": {"uniform": [1, 3]}, "seed": {"int": [0, 9]}})
    found = importance(done(made, 60, lambda point: -((point[NOISE] - 0.5) ** 2)), made)
    assert next(iter(found)) == NOISE
    assert found[NOISE] > 0.8
    assert set(found) == {NOISE, "dae.epochs", "seed"}
    assert sum(found.values()) == pytest.approx(1)


def test_knobs_that_count_in_some_trials_have_an_importance() -> None:
    made = space(MIXED)
    found = importance(done(made, 60, lambda point: point.get(TEMPERATURE, 0.0)), made)
    assert set(found) == set(MIXED)
    assert next(iter(found)) == TEMPERATURE


@pytest.mark.parametrize(("count", "status"), [(0, "done"), (3, "done"), (20, "failed"), (20, "running"), (20, "stopped")])
def test_few_trials_say_nothing_of_importance(count: int, status: Any) -> None:
    made = space(MIXED)
    assert importance([Trial(n, point, status=status) for n, point in enumerate(drawn(made, count))], made) == {}


@pytest.mark.parametrize("axes", [{NOISE: [0.2, 0.3], "seed": [1, 2, 3]}, {NOISE: [0.2], "seed": list(range(6))}])
@pytest.mark.parametrize("score", [lambda point: 0.5, lambda point: float(point["seed"] == 1)])
def test_importance_of_lists_with_few_or_equal_scores(axes: dict[str, Any], score: Any) -> None:
    made = grid(axes)
    found = importance([Trial(n, point, status="done", score=score(point)) for n, point in enumerate(made.grid())], made)
    assert (found == {}) == (len({score(point) for point in made.grid()}) == 1)
    assert not found or (found["seed"] > 0.9 and set(found) == set(axes))


def test_suggestions_fit_the_space() -> None:
    made = space(MIXED)
    trials = done(made, 20, lambda point: point["finetune.epochs"])
    for seed in range(10):
        point = next(suggestions(trials, made, [seed]))
        assert made.fits(point)
        assert isinstance(point["finetune.epochs"], float)


def test_optunas_own_tools_open_the_file(tmp_path: Path) -> None:
    made = space(MIXED)
    points = drawn(made, 6)
    trials = [
        Trial(4, points[4], status="running"),
        Trial(0, points[0], status="done", score=0.5, scores={"macro_f1": 0.4}, cost=12.5, marks=[Mark(250, "finetune", 0.3)]),
        Trial(1, points[1], status="stopped", reason="behind", marks=[Mark(120, "contrastive", 0.1), Mark(150, "contrastive", 0.2)]),
        Trial(2, points[2], status="failed", reason="why"),
        Trial(3, points[3] | {NOISE: 0.9}, status="done", score=0.75),
        Trial(5, points[5], status="done", score=float("nan")),
    ]
    path = tmp_path / "optuna.journal"
    path.write_text("of before")
    storage(trials, made, path)
    assert [file.name for file in tmp_path.iterdir()] == ["optuna.journal"]
    study = optuna.load_study(study_name="a", storage=JournalStorage(JournalFileBackend(str(path))))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "RUNNING", "FAIL"]
    assert (study.best_trial.number, study.best_value) == (3, 0.75)
    first, second = study.trials[:2]
    assert first.params == {name: str(value).replace("'", '"') if name == "phases" else value for name, value in points[0].items()}
    assert first.user_attrs["validation_macro_f1"] == 0.4
    assert (first.user_attrs["cost"], first.intermediate_values) == (12.5, {250: 0.3})
    assert (second.intermediate_values, second.user_attrs["reason"]) == ({120: 0.1, 150: 0.2}, "behind")
    assert NOISE not in study.trials[3].params
    assert study.trials[3].user_attrs["point"][NOISE] == 0.9
