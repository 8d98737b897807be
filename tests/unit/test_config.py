"""The configuration: defaults, what may be combined, and that it survives being written and read."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from threephase_ray import command
from threephase_ray.config import Config, CosineRegression, SupervisedContrastive

LEAST: dict[str, Any] = {"name": "a", "data": {"train": "a.csv"}, "encoder": {"path": "e"}}


def test_least_configuration_has_the_documented_defaults() -> None:
    config = Config(**LEAST)
    assert config.phases == ("dae", "contrastive", "finetune")
    assert config.dae.noise_ratio == 0.6
    assert config.contrastive.loss == SupervisedContrastive(temperature=0.05)
    assert (config.contrastive.imbalance.min_ratio, config.contrastive.imbalance.max_ratio) == (1.5, 4.0)
    assert config.baseline is None


def test_configuration_is_frozen() -> None:
    config = Config(**LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.dae.noise_ratio = 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dae": {"learning_rate": 2e-5, "epsilon": 1e-12}},
        {"contrastive": {"loss": {"name": "cosine_regression", "pairs": "sampled"}}},
        {"baseline": {}, "data": {"source": "s3://bucket/texts, new", "label_columns": ["area", "topic"], "encoding": "cp1252"}},
        {"compute": {"zero_stage": 3}, "phases": ["joint", "finetune"], "data": {"train": "null", "text_column": "yes"}},
        {"data": {"train": "naïve: 10:20.csv", "test": "# no: comment"}, "store": "1e3"},
    ],
)
def test_what_is_written_is_read_back_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = Config(**(LEAST | changes))
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(command.dump(config), encoding="utf-8")
    again = command.read([str(first)])
    second.write_text(command.dump(again), encoding="utf-8")
    assert again == config
    assert first.read_bytes() == second.read_bytes()


def test_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NAME": "env",
        "SEED": "77",
        "DATA": '{"train": "env.csv"}',
        "STORE": "/env",
        "DAE": '{"noise_ratio": 0.1}',
    }.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    assert os.environ["SEED"] == "77"
    config = command.read([], ["--name", "flag", "--data.train", "a.csv", "--encoder.path", "e"])
    assert (config.name, config.seed, config.data.train, config.store, config.dae.noise_ratio) == ("flag", 0, "a.csv", "store", 0.6)


def test_choice_has_only_the_knobs_of_its_member() -> None:
    config = Config(**LEAST, contrastive={"loss": {"name": "cosine_regression"}})
    assert config.contrastive.loss == CosineRegression(pairs="batch")
    assert not hasattr(config.contrastive.loss, "temperature")
