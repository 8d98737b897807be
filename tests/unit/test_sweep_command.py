"""The command line of a sweep: a space is one knob; what is wrong below it is named by its path."""

from collections.abc import Callable
from pathlib import Path

import pytest

from threephase_ray import command
from threephase_ray.errors import ConfigError
from threephase_ray.sweeping import Axis, Halving, SweepConfig

LEAST = ["--name", "a", "--data.train", "a.csv", "--encoder.path", "e"]
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a YAML file and give its path."""

    def write(text: str) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def sweep(*flags: str, files: tuple[str, ...] = ()) -> SweepConfig:
    return command.read(files, [*LEAST, *flags], SweepConfig)


def test_a_sweeps_knobs_come_from_files_and_flags(write: Write) -> None:
    path = write("dae: {noise_ratio: 0.3}\nsweep:\n  space: {seed: {grid: [1, 2], when: {dae.noise: masking}}}\n  search: {trials: 5}\n")
    found = sweep("--sweep.search.trials", "7", "--sweep.halving.keep", "0.5", "--sweep.retrain_seeds", "1,2", files=(path,))
    assert found.sweep.space == {"seed": Axis(grid=(1, 2), when={"dae.noise": "masking"})}
    assert (found.sweep.search.trials, found.sweep.halving, found.sweep.asha) == (7, Halving(keep=0.5), None)
    assert (found.dae.noise_ratio, found.sweep.retrain_seeds) == (0.3, (1, 2))


def test_a_space_is_one_knob_and_replaced_as_a_whole(write: Write) -> None:
    below = write("sweep: {space: {seed: {grid: [1]}, dae.noise_ratio: {uniform: [0.2, 0.5]}}}\n")
    above = write("sweep: {space: {dae.noise_ratio: {choice: [0.2]}}}\n")
    assert sweep(files=(below, above)).sweep.space == {"dae.noise_ratio": Axis(choice=(0.2,))}
    assert sweep("--sweep.space", '{"seed": {"int": [1, 9]}}', files=(below,)).sweep.space == {"seed": Axis(int=(1, 9))}


def test_a_resolved_sweep_is_accepted_by_the_command(write: Write) -> None:
    found, calls = sweep("--sweep.asha", "{}", "--sweep.search.points", '[{"seed": 1}]'), list[tuple[SweepConfig, bool]]()
    assert command.job(lambda *call: calls.append(call), "", ["--config", write(command.dump(found))], kind=SweepConfig) == 0
    assert calls == [(found, False)]


# what stands in `sweep`: fragments of the message
BAD_SWEEPS: dict[str, list[str]] = {
    "{space: {dae.noise_ratio: {}}}": ["sweep.space.dae.noise_ratio: needs exactly one of grid, choice, uniform, loguniform, int"],
    "{space: {dae.epochs: {grid: [1], choice: [1]}}}": ["sweep.space.dae.epochs: needs exactly one of", "(given: grid, choice)"],
    "{space: {dae.epochs: {unifrom: [1, 2]}}}": ["sweep.space.dae.epochs.unifrom: must be one of grid, ", "did you mean uniform?"],
    "{space: {dae.epochs: {uniform: [2, 1]}}}": ["sweep.space.dae.epochs: uniform: needs [low, high], with low < high"],
    "{space: {dae.epochs: {loguniform: [0, 1]}}}": ["sweep.space.dae.epochs: loguniform: needs bounds above 0"],
    "{space: {dae.epochs: {uniform: [1]}}}": ["sweep.space.dae.epochs.uniform.1: needs two numbers, [low, high]"],
    "{space: {dae.epochs: {uniform: [1, 2, 3]}}}": ["sweep.space.dae.epochs.uniform: needs two numbers, [low, high]"],
    "{space: {dae.epochs: {uniform: [1, .inf]}}}": ["sweep.space.dae.epochs.uniform.1: Input should be a finite number"],
    "{space: {dae.epochs: {int: [1, two]}}}": ["sweep.space.dae.epochs.int.1: ", "valid integer", "(given: 'two')"],
    "{space: {dae.epochs: {grid: 3}}}": ["sweep.space.dae.epochs.grid: needs a list, such as [a, b] (given: 3)"],
    "{space: {dae.epochs: {grid: []}}}": ["sweep.space.dae.epochs.grid: needs an item at least"],
    "{space: {dae.epochs: {grid: [{a: 1}]}}}": ["sweep.space.dae.epochs.grid.0: needs text, a number, true, false, null or a list"],
    "{space: {dae.epochs: {grid: [1], when: {seed: {a: 1}}}}}": ["sweep.space.dae.epochs.when.seed: needs text, a number"],
    "{space: {dae.epochs: 3}}": ["sweep.space.dae.epochs: needs one of grid, choice, uniform, loguniform, int, when below it"],
    "{space: [seed]}": ["sweep.space: needs `knob: value` lines below it"],
    "{space: {}}": ["sweep.space: needs an item at least"],
    "{serch: {}}": ["sweep.serch: no such knob", "did you mean sweep.search?"],
    "{search: {method: tpe}}": ["sweep.search.method: ", "'grid', 'random' or 'optuna'", "given: 'tpe'"],
    "{search: {points: [3]}}": ["sweep.search.points.0: needs `knob: value` lines below it"],
    "{configs: a.yaml}": ["sweep.configs: needs a list"],
    "3": ["sweep: is a section"],
}


@pytest.mark.parametrize("text", BAD_SWEEPS)
def test_bad_sweep_in_a_file(write: Write, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(files=(write(f"sweep: {text}\n"),))
    assert not [fragment for fragment in BAD_SWEEPS[text] if fragment not in str(caught.value)], caught.value
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--sweep.space.seed", "1"], "--sweep.space.seed: give --sweep.space as a whole, as JSON"),
        (["--sweep.space", "seed"], "--sweep.space: needs all of it as JSON, in quotes (given: 'seed')"),
        (["--sweep.space", "null"], "--sweep.space: needs all of it as JSON"),
        (["--sweep.space"], "--sweep.space: needs a value after it"),
        (["--sweep.metrik", "probe"], "--sweep.metrik: no such knob; did you mean sweep.metric?"),
        (["--sweep.search", "grid"], "--sweep.search: is a section"),
    ],
)
def test_bad_sweep_in_a_flag(flags: list[str], fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(*flags)
    assert fragment in str(caught.value)


def test_a_run_knows_no_sweep(write: Write) -> None:
    with pytest.raises(ConfigError, match="sweep: no such knob"):
        command.read([write("sweep: {metric: probe}\n")], LEAST)


def test_knobs_laid_over_a_sweep() -> None:
    found = command.laid_over(sweep(), {"sweep.space": {"seed": {"grid": [1]}}, "seed": 4})
    assert found == sweep("--sweep.space", '{"seed": {"grid": [1]}}', "--seed", "4")
