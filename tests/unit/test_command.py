"""The command line: what wins, how values are written, --help, exit codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threephase_ray import command
from threephase_ray.config import Config, CosineRegression, SupervisedContrastive
from threephase_ray.errors import ConfigError, DataError, JobError, ResourceError
from threephase_ray.knobs import knobs
from threephase_ray.sweeping import SweepConfig

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


def read(*flags: str) -> Config:
    return command.read([], [*LEAST, *flags])


def test_later_files_win_and_flags_win_over_files(write: Write) -> None:
    below = write("seed: 1\nstore: below\ndae: {noise_ratio: 0.1, epochs: 7}\n")
    above = write("seed: 2\ndae: {noise_ratio: 0.2}\n")
    config = command.read([below, above], [*LEAST, "--seed", "3"])
    assert (config.seed, config.dae.noise_ratio, config.dae.epochs, config.store) == (3, 0.2, 7, "below")
    assert config.dae.learning_rate == 5e-5
    assert command.read([above, below], LEAST).dae.noise_ratio == 0.1


def test_the_last_of_two_flags_wins() -> None:
    assert read("--compute.workers", "1", "--compute.workers=64").compute.workers == 64
    assert read("--phases", "dae,finetune", "--seed", "3", "--phases", "finetune").phases == ("finetune",)


def test_lists_are_replaced_and_not_joined(write: Write) -> None:
    assert command.read([write("phases: [dae, finetune]\n"), write("phases: [finetune]\n")], LEAST).phases == ("finetune",)


@pytest.mark.parametrize("number", ["2e-5", "2E-5", "0.00002", "2.0e-05"])
def test_small_numbers_are_numbers(write: Write, number: str) -> None:
    assert command.read([write(f"dae: {{learning_rate: {number}}}\n")], LEAST).dae.learning_rate == 2e-5
    assert read("--dae.learning_rate", number).dae.learning_rate == 2e-5


@pytest.mark.parametrize("value", ["dae,finetune", "[dae,finetune]", '["dae", "finetune"]'])
def test_lists_as_flags(value: str) -> None:
    assert read("--phases", value).phases == ("dae", "finetune")


@pytest.mark.parametrize(("value", "stage"), [("auto", "auto"), ("0", 0), ("1", 1), ("2", 2), ("3", 3)])
def test_zero_stage_as_flag(value: str, stage: object) -> None:
    assert read("--compute.zero_stage", value).compute.zero_stage == stage
    assert read(f"--compute.zero_stage={value}").compute.zero_stage == stage


@pytest.mark.parametrize("text", ["s3://b/x,y.csv", "[a].csv", "part-*.csv", "a b", "10", "true", "--odd", "x=y", "{a}", '"q"', "näive"])
def test_texts_as_flags_stay_as_they_are(text: str) -> None:
    assert read(f"--data.source={text}").data.source == text


def test_null_empties_a_knob(write: Write) -> None:
    path = write("data: {max_length: 64}\nbaseline: {}\n")
    assert command.read([path], LEAST).data.max_length == 64
    config = command.read([path], [*LEAST, "--data.max_length", "null", "--baseline", "null"])
    assert config.data.max_length is None
    assert config.baseline is None


@pytest.mark.parametrize("flags", [["--baseline", "{}"], ["--baseline.head_dropout", "0.1"]])
def test_optional_section_is_there_as_soon_as_it_is_named(flags: list[str]) -> None:
    assert read().baseline is None
    assert read(*flags).baseline is not None


def test_choice_of_another_name_starts_afresh(write: Write) -> None:
    below = write("contrastive: {loss: {name: supervised_contrastive, temperature: 0.5}}\n")
    above = write("contrastive: {loss: {name: cosine_regression}}\n")
    assert command.read([below, above], LEAST).contrastive.loss == CosineRegression()
    assert command.read([below], [*LEAST, "--contrastive.loss.name", "cosine_regression"]).contrastive.loss == CosineRegression()
    assert command.read([above, below], LEAST).contrastive.loss == SupervisedContrastive(temperature=0.5)


def test_choice_of_the_same_name_keeps_what_was_set(write: Write) -> None:
    below = write("contrastive: {loss: {name: cosine_regression, pairs: sampled}}\n")
    assert command.read([below], [*LEAST, "--contrastive.loss.name", "cosine_regression"]).contrastive.loss == CosineRegression(
        pairs="sampled"
    )
    assert read("--contrastive.loss.temperature", "0.5").contrastive.loss == SupervisedContrastive(temperature=0.5)


def test_run_of_another_name_keeps_the_rest(write: Write) -> None:
    assert command.read([write("name: b\nseed: 5\n")], LEAST).seed == 5


def test_resolved_configuration_is_accepted_by_the_command(write: Write) -> None:
    calls: list[tuple[Config, bool]] = []
    config = read("--contrastive.loss.name", "cosine_regression", "--baseline", "{}")
    code = command.job(lambda *call: calls.append(call), "", ["--config", write(command.dump(config)), "--dry-run"])
    assert (code, calls) == (0, [(config, True)])


@pytest.mark.parametrize("words", [["--config={}"], ["--config", "{}"], ["--seed", "1", "--config", "{}", "--seed", "2"]])
def test_ways_to_name_a_file(write: Write, words: list[str]) -> None:
    path, calls = write("name: b\ndata: {train: t}\nencoder: {path: e}\n"), list[tuple[Config, bool]]()
    assert command.job(lambda *call: calls.append(call), "", [word.format(path) for word in words]) == 0
    assert [(config.name, dry_run) for config, dry_run in calls] == [("b", False)]


@pytest.mark.parametrize("kind", [Config, SweepConfig])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_knob_with_meaning_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flag: str, kind: type[Config]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert command.job(_fail, "What it does.", [flag, "--no-such-knob"], kind=kind) == 0
    text = capsys.readouterr().out
    lines = [line.strip() for line in text.splitlines()]
    assert "What it does." in text
    assert ("--sweep.space <name: axis>" in text) == (kind is SweepConfig)
    for knob in knobs(kind):
        at = lines.index(f"--{knob.name} <{knob.values}>")
        default = "required" if knob.default == "required" else f"default: {knob.default}"
        assert lines[at + 1] == f"{knob.meaning} ({default})"


def test_help_does_not_read_the_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.job(_fail, "", ["--config", "missing.yaml", "--help"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("error", "code"), [(JobError, 1), (DataError, 3), (ResourceError, 4)])
def test_exit_codes(capsys: pytest.CaptureFixture[str], error: type[JobError], code: int) -> None:
    def main(config: Config, dry_run: bool) -> None:
        raise error("\n".join(["what", *(f"line {i}" for i in range(40))]))

    assert command.job(main, "", LEAST) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{error.__name__}: what"
    assert len(lines) == 15


def test_unforeseen_errors_keep_their_trace() -> None:
    def main(config: Config, dry_run: bool) -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        command.job(main, "", LEAST)


def _fail(config: Config, dry_run: bool) -> None:
    pytest.fail("must not be called")


def test_dashes_in_flags_are_underscores() -> None:
    found = read("--skip-nonfinite", "3", "--data.max-length=64")
    assert (found.skip_nonfinite, found.data.max_length) == (3, 64)


@pytest.mark.parametrize(("given", "least", "most"), [("3", 3, 3), ("1,4", 1, 4)])
def test_a_range_of_workers(given: str, least: int, most: int) -> None:
    compute = read("--compute.workers", given).compute
    assert (compute.least, compute.most) == (least, most)


@pytest.mark.parametrize("given", ["0", "4,1", "0,2", "1,2,3", "two"])
def test_a_wrong_range_of_workers(given: str) -> None:
    with pytest.raises(ConfigError, match=r"compute"):
        read("--compute.workers", given)


@pytest.mark.parametrize(
    ("flags", "knobs", "same"),
    [
        ([], {}, []),
        ([], {"seed": 3, "dae.noise_ratio": 0.2}, ["--seed", "3", "--dae.noise_ratio", "0.2"]),
        ([], {"phases": ["dae", "finetune"]}, ["--phases", "dae,finetune"]),
        ([], {"contrastive.loss.temperature": 0.5}, ["--contrastive.loss.temperature", "0.5"]),
        (
            ["--contrastive.loss.temperature", "0.5"],
            {"contrastive.loss.name": "cosine_regression"},
            ["--contrastive.loss.name", "cosine_regression"],
        ),
        (
            ["--contrastive.loss.temperature", "0.5"],
            {"contrastive.loss.pairs": "sampled", "contrastive.loss.name": "cosine_regression"},
            ["--contrastive.loss.name", "cosine_regression", "--contrastive.loss.pairs", "sampled"],
        ),
        ([], {"baseline.epochs": 2}, ["--baseline.epochs", "2"]),
        (["--baseline.epochs", "2"], {"baseline": None}, []),
    ],
)
def test_knobs_laid_over_a_configuration(flags: list[str], knobs: dict[str, Any], same: list[str]) -> None:
    base = read(*flags)
    assert command.laid_over(base, knobs) == read(*same)
    assert base == read(*flags)


def test_wrong_knobs_laid_over_a_configuration() -> None:
    with pytest.raises(ConfigError) as caught:
        command.laid_over(read(), {"dae.noise_ration": 1, "seed": -1, "contrastive.loss.pairs": "batch"})
    assert "dae.noise_ration: no such knob; did you mean dae.noise_ratio?" in str(caught.value)
    assert "seed: Input should be greater than or equal to 0 (given: -1)" in str(caught.value)
    assert "contrastive.loss.pairs: does not belong to the chosen contrastive.loss.name" in str(caught.value)
