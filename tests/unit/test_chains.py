"""From configurations to chains, and what a sweep refuses because its trials could not be compared."""

from pathlib import Path

import pytest

from tests.unit.test_conductor import GRID, HALVING, Bench
from threephase_ray import trials
from threephase_ray.command import read
from threephase_ray.errors import ConfigError
from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps import chains
from threephase_ray.sweeps.space import Space
from threephase_ray.sweeps.sweep import check, identity


@pytest.mark.parametrize(
    ("knobs", "names", "figures"),
    [
        (GRID, ["dae", "contrastive", "finetune"], [None, "neighbour_accuracy", "accuracy"]),
        (GRID + HALVING, ["dae", "contrastive", "probe", "finetune"], [None, "neighbour_accuracy", "linear.accuracy", "accuracy"]),
        (
            GRID + "  metric: probe\n",
            ["dae", "contrastive", "finetune", "probe"],
            [None, "neighbour_accuracy", "accuracy", "linear.accuracy"],
        ),
        (
            GRID + "  metric: macro_f1\n  halving: {keep: 0.5, probe: knn}\n",
            ["dae", "contrastive", "probe", "finetune"],
            [None, "neighbour_accuracy", "knn.macro_f1", "macro_f1"],
        ),
    ],
)
def test_a_chain_has_the_phases_and_the_probes_that_the_sweep_needs(
    tmp_path: Path, knobs: str, names: list[str], figures: list[str | None]
) -> None:
    bench = Bench(tmp_path, knobs)
    point = {"dae.noise_ratio": 0.3, "contrastive.loss.temperature": 0.1, "contrastive.imbalance.max_ratio": 2}
    outline = bench.planner.outline(Space(bench.config).configuration(point))
    made = chains.items(outline, "sweeps/s", bench.config.sweep)
    assert [item.name for item in made] == names
    assert [item.figure for item in made] == figures
    assert (chains.begin(made), chains.end(made)) == (100, 300)
    whole = ["dae", "probe", "contrastive", "probe", "finetune", "probe", "probe", "test"]
    assert [item.name for item in trials.tested(outline, "runs/r")] == whole


def sweep(*flags: str) -> SweepConfig:
    return read([], ["--name", "s", "--data.train", "a.csv", "--encoder.path", "e", *flags], SweepConfig)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--phases", "dae,contrastive"), "choose probe"),
        (("--phases", "finetune", "--sweep.halving.keep", "0.5"), "only one"),
        (("--sweep.search.method", "random", "--sweep.search.start_from", "other"), "only optuna learns"),
    ],
)
def test_what_cannot_be_compared_is_refused(flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(sweep(*flags))


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        (("--sweep.search.trials", "7"), True),
        (("--sweep.limits.hours", "7"), True),
        (("--compute.workers", "7"), True),
        (("--sweep.retrain_seeds", "1,2"), True),
        (("--tracking.wandb", "project"), True),
        (("--sweep.metric", "macro_f1"), False),
        (("--sweep.asha.grace", "30"), False),
        (("--compute.precision", "bf16"), False),
        (("--finetune.steps", "3"), False),
    ],
)
def test_a_sweep_is_the_same_as_long_as_its_trials_can_be_compared(flags: tuple[str, ...], same: bool) -> None:
    assert (identity(sweep(*flags)) == identity(sweep())) is same
