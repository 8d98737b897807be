"""`keep: better`: a phase that lowers what logistic regression makes of the embeddings hands over what it began with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit import tiny, tiny_models
from tests.unit.tiny_models import CPU
from threephase_ray import models, pretrained, trials
from threephase_ray.models import Embedder
from threephase_ray.planning import Outline
from threephase_ray.results import Store
from threephase_ray.training import worker

RUIN = {"learning_rate": 1.0, "clip": 1e9}  # after it all texts look alike


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keeping")
    for seed, split in enumerate(("train", "validation", "test")):
        tiny.write_csv(made / "source" / f"{split}.csv", tiny_models.texts(40, seed=seed))
    return made


def trained(folder: Path, **contrastive: Any) -> tuple[Outline, dict[str, Any], Embedder]:
    """A contrastive phase alone: its plan, what it tells, and what it hands over."""
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    places = {"source": str(folder / "source"), "store": str(folder / "store"), "scratch": str(folder / "scratch")}
    config = tiny_models.configured(encoder, **places, phases=("contrastive",), contrastive={"steps": 4, "batch": 12, **contrastive})
    plan = trials.Planner().outline(config)
    work = trials.work(plan, "runs/r", phases=[vars(step.job) for step in plan.chain])
    worker.work(type(work)(**{**vars(work), "engine": "plain"}), CPU)
    made = Store(config.store, config.scratch).fetch(plan.chain[0].job.result)
    found = models.restore(made)
    assert isinstance(found, Embedder)
    return plan, json.loads((made / "metrics.json").read_text()), found


def test_a_phase_that_ruins_the_embeddings_is_dropped(folder: Path) -> None:
    plan, told, found = trained(folder, **RUIN, keep="better")
    assert told["kept"] is False
    assert told["probe_after"] < told["probe_before"]
    began = pretrained.start(plan.config.encoder, None).state_dict()
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in began.items())
    assert torch.equal(found.layers["projection"].weight, torch.eye(found.hidden_size))


def test_it_is_kept_when_nobody_asks(folder: Path) -> None:
    plan, told, found = trained(folder, **RUIN)
    assert "kept" not in told
    began = pretrained.start(plan.config.encoder, None).state_dict()
    assert not all(torch.equal(found.state_dict()[name], tensor) for name, tensor in began.items())


def test_a_phase_that_does_no_harm_is_kept(folder: Path) -> None:
    _, told, found = trained(folder, learning_rate=1e-5, keep="better")
    assert told["kept"] is True
    assert told["probe_after"] >= told["probe_before"]
    assert not torch.equal(found.layers["projection"].weight, torch.eye(found.hidden_size))


def test_the_knob_is_part_of_the_key(folder: Path) -> None:
    keys = {knob: trained(folder, steps=1, keep=knob)[0].chain[0].job.key for knob in ("always", "better")}
    assert len(set(keys.values())) == 2
