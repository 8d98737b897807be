from pathlib import Path

import pytest

from threephase_ray.command import read
from threephase_ray.config import Config
from threephase_ray.errors import ConfigError
from threephase_ray.studying import StudyConfig
from threephase_ray.submitting import vetting
from threephase_ray.sweeping import SweepConfig

SOUND = {
    "name": "x",
    "store": "s3://bucket/store",
    "data.source": "s3://bucket/texts",
    "encoder.path": "sentence-transformers/all-MiniLM-L6-v2",
}
SECRETS = {
    "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI@bucket/texts": "a password or key inside a URI",
    "https://user:hunter2@host/texts.csv": "a password or key inside a URI",
    "https://host/texts.csv?X-Amz-Signature=abcdef0123": "a signature or token inside a URI",
    "https://host/texts.csv?sv=2024&sig=abcdef0123": "a signature or token inside a URI",
    "/texts/AKIAIOSFODNN7EXAMPLE": "an access key of AWS",
    "hf_abcdefghijklmnopqrstuvwxyz": "a token of a hub",
}
HARMLESS = ["s3://bucket/a:b@c", "https://host/texts?design=new&page=2", "user/hf_model", "C:/texts@home", "https://host:8443/texts.csv"]


def config(kind: type[Config] = Config, **knobs: str) -> Config:
    flags = [f"--{name.replace('__', '.')}={value}" for name, value in (SOUND | knobs).items()]
    return read([], flags, kind)


@pytest.mark.parametrize("value", SECRETS)
def test_what_looks_like_a_secret_is_refused_and_not_shown(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        vetting.check(config(data__train=value), tmp_path, set())
    assert str(caught.value).startswith(f"data.train: looks like {SECRETS[value]}")
    assert value not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", HARMLESS)
def test_what_only_resembles_a_secret_passes(value: str, tmp_path: Path) -> None:
    vetting.check(config(data__train=value), tmp_path, set())


def test_secrets_are_found_in_lists_and_mappings(tmp_path: Path) -> None:
    study = '{"arms": {"a": {"knobs": {"data.train": "s3://key:word@bucket/x"}}, "b": {}}}'
    with pytest.raises(ConfigError, match=r"^study\.arms\.a\.knobs\.data\.train: looks like"):
        vetting.check(config(StudyConfig, study=study), tmp_path, set())


@pytest.mark.parametrize("store", ["store", "./store", "../store"])
def test_a_relative_store_is_refused(store: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^store: .* would lie in the job's own folder"):
        vetting.check(config(store=store), tmp_path, set())


@pytest.mark.parametrize("store", ["/shared/store", "~/store", "s3://bucket/store"])
def test_other_stores_pass(store: str, tmp_path: Path) -> None:
    vetting.check(config(store=store), tmp_path, set())


def test_texts_that_lie_only_here_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.csv").write_text("text,label\n")
    knobs = {"data__train": "texts/train.csv", "data__unlabelled": "texts/*.csv"}
    with pytest.raises(ConfigError) as caught:
        vetting.check(config(**knobs), tmp_path, {"jobs/train.py"})
    assert "data.train: texts/train.csv lies here and is not uploaded" in str(caught.value)
    assert "data.unlabelled: texts/*.csv lies here and is not uploaded" in str(caught.value)
    vetting.check(config(**knobs), tmp_path, {"texts/train.csv"})
    with pytest.raises(ConfigError, match=r"data\.train: .* is not uploaded"):  # the job looks in the project's folder, not here
        vetting.check(config(**knobs), tmp_path / "elsewhere", {"texts/train.csv"})


def test_names_that_are_no_paths_here_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "label").mkdir()
    vetting.check(config(data__label_columns="label", data__train="train"), tmp_path, set())


def test_a_sweep_and_a_study_are_checked_whole(tmp_path: Path) -> None:
    sweep = '{"space": {"dae.noise_ratoi": {"grid": [0.1, 0.2]}}}'
    with pytest.raises(ConfigError, match=r"dae\.noise_ratio"):
        vetting.check(config(SweepConfig, sweep=sweep), tmp_path, set())
    study = '{"arms": {"a": {"knobs": {"dae.noise_ratio": 7}}}}'
    with pytest.raises(ConfigError, match="noise_ratio"):
        vetting.check(config(StudyConfig, study=study), tmp_path, set())
