"""What shares a key, and what must not."""

from typing import Any

import pytest

from tests.unit import tiny_models
from threephase_ray import command, keys
from threephase_ray.config import Config, Encoder
from threephase_ray.loader import DataSet


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, DataSet]:
    folder = tmp_path_factory.mktemp("keys")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    return encoder, tiny_models.prepared(folder, encoder)


def key(place: tuple[Encoder, DataSet], name: str, **knobs: Any) -> str:
    config = Config(**command.merge(tiny_models.configured(place[0]).model_dump(mode="json"), knobs))
    return keys.of_phase(name, 1, config, place[1], None)


def imbalance(**knobs: float) -> dict[str, Any]:
    return {"contrastive": {"imbalance": knobs}}


@pytest.mark.parametrize("name", ["contrastive", "joint"])
def test_a_correction_that_changes_no_class_size_is_none(place: tuple[Encoder, DataSet], name: str) -> None:
    sizes = place[1].facts["splits"]["train"]["class_counts"]
    assert len(set(sizes)) > 1
    none = key(place, name, **imbalance(min_ratio=1, max_ratio=1))
    assert key(place, name, **imbalance(min_ratio=1.5, max_ratio=1.5)) == none
    assert key(place, name, **imbalance(min_ratio=1.5, max_ratio=20)) != none
    assert key(place, name, **imbalance(min_ratio=1, max_ratio=1, stop_word_deletion=0)) != none


def test_a_phase_does_not_depend_on_what_it_does_not_read(place: tuple[Encoder, DataSet]) -> None:
    plain = key(place, "dae")
    assert key(place, "dae", **imbalance(max_ratio=20)) == plain
    assert key(place, "dae", probe=False, predict="validation", compute={"workers": 2, "micro_batch": 3}) == plain
    assert key(place, "dae", tracking={"tensorboard": False, "mlflow": "https://host", "experiment": "a", "wandb": "b"}) == plain
    changes: list[dict[str, Any]] = [{"dae": {"steps": 99}}, {"seed": 1}, {"compute": {"precision": "bf16"}}, {"dae": {"keep": "better"}}]
    assert len({plain, *(key(place, "dae", **change) for change in changes)}) == 5


def test_a_probe_of_the_pretrained_encoder_is_one_for_all_phases(place: tuple[Encoder, DataSet]) -> None:
    one, other = (tiny_models.configured(place[0], dae={"steps": steps}) for steps in (3, 4))
    assert keys.of_probe(1, one, place[1], None) == keys.of_probe(1, other, place[1], None)
    assert len({keys.of_probe(1, one, place[1], of) for of in (None, "a", "b")}) == 3
    assert keys.of_probe(2, one, place[1], None) != keys.of_probe(1, one, place[1], None)
