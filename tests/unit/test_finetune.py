import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from pytorch_metric_learning.losses import SupConLoss
from pytorch_metric_learning.reducers import MeanReducer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unit import tiny_models
from threephase_ray import losses, phases, sampling
from threephase_ray.config import Baseline, Encoder, FineTune
from threephase_ray.loader import DataSet
from threephase_ray.models import Classifier
from threephase_ray.phases.spec import Phase
from threephase_ray.training import loop
from threephase_ray.training.engine import PlainEngine, Settings

Place = tuple[Encoder, DataSet]
WITH_CONTRAST = {"contrastive_weight": 0.4, "contrastive_temperature": 0.2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny checkpoint and a data set with 40 training rows, half of them of one of three classes."""
    folder = tmp_path_factory.mktemp("finetune")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    return encoder, tiny_models.prepared(folder, encoder)


def built(place: Place, **knobs: Any) -> tuple[Phase, Classifier]:
    """Phase 3 and its network, without dropout."""
    config = tiny_models.configured(place[0].model_copy(update={"dropout": 0.0}), finetune={"head_dropout": 0.0} | knobs)
    phase = phases.build("finetune", config, place[1])
    torch.manual_seed(1)
    model = phase.model(None)
    assert isinstance(model, Classifier)
    return phase, model


def logits_of(phase: Phase, model: Classifier, step: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, classes and embeddings of a step."""
    batch = phase.collate(phase.train, step, step, 0)
    embeddings = model.embedder(batch["ids"], batch["mask"])
    return model.head(embeddings), batch["truth"], embeddings


@torch.no_grad()
def test_the_defaults_are_the_mean_cross_entropy(place: Place) -> None:
    phase, model = built(place)
    for step in phase.steps(0):
        batch = phase.collate(phase.train, step, step, 0)
        logits, truth, _ = logits_of(phase, model, step)
        assert torch.equal(phase.loss(model, batch), F.cross_entropy(logits, truth, reduction="sum") / len(step))
    assert phase.whole_step is None


def test_class_weights_are_those_of_scikit_learn() -> None:
    for seed in range(5):
        labels = np.random.default_rng(seed).choice(5, size=60, p=[0.5, 0.3, 0.1, 0.05, 0.05])
        labels[:5] = np.arange(5)
        ours = losses.class_weights(torch.from_numpy(labels), 5)
        np.testing.assert_allclose(ours.numpy(), compute_class_weight("balanced", classes=np.arange(5), y=labels), rtol=1e-6)
        assert float(ours[labels].mean()) == pytest.approx(1.0)
    assert losses.class_weights(torch.tensor([0, 0, 0, 2]), 4).tolist() == pytest.approx([2 / 3, 0, 2, 0])  # two classes have no row


@torch.no_grad()
def test_a_balanced_loss_weighs_rows_by_their_class_over_the_whole_split(place: Place) -> None:
    phase, model = built(place, class_weight="balanced")
    train = phase.train.labels[:, -1]
    weights = torch.from_numpy(compute_class_weight("balanced", classes=np.unique(train), y=train)).float()
    assert weights.min() < 0.8
    for step in phase.steps(0):
        logits, truth, _ = logits_of(phase, model, step)
        expected = F.cross_entropy(logits, truth, weight=weights, reduction="sum") / len(step)
        torch.testing.assert_close(phase.loss(model, phase.collate(phase.train, step, step, 0)), expected)


@torch.no_grad()
def test_label_smoothing_is_torchs_and_goes_with_class_weights(place: Place) -> None:
    phase, model = built(place, label_smoothing=0.2)
    both, same = built(place, label_smoothing=0.2, class_weight="balanced")
    for step in phase.steps(0):
        logits, truth, _ = logits_of(phase, model, step)
        ours = phase.loss(model, phase.collate(phase.train, step, step, 0))
        torch.testing.assert_close(ours, F.cross_entropy(logits, truth, label_smoothing=0.2))
        assert float(ours - F.cross_entropy(logits, truth)) != 0
        batch = both.collate(both.train, step, step, 0)
        shares = torch.log_softmax(logits.double(), dim=-1)
        rows = [-0.8 * float(shares[i, k]) - 0.2 * float(shares[i].mean()) for i, k in enumerate(truth.tolist())]
        expected = float(np.mean([row * float(weight) for row, weight in zip(rows, batch["importance"], strict=True)]))
        assert float(both.loss(same, batch)) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_the_contrast_is_that_of_another_library(place: Place) -> None:
    phase, model = built(place, **WITH_CONTRAST)
    for step in phase.steps(0):
        logits, truth, embeddings = logits_of(phase, model, step)
        paired = (truth[:, None] == truth[None, :]).sum(dim=1) > 1  # theirs counts a text that is alone in its class with loss 0
        contrast = 0.2 * SupConLoss(temperature=0.2, reducer=MeanReducer())(embeddings, truth) / paired.float().mean()
        expected = 0.6 * F.cross_entropy(logits, truth) + 0.4 * contrast
        torch.testing.assert_close(phase.loss(model, phase.collate(phase.train, step, step, 0)), expected, atol=1e-5, rtol=1e-5)


def gradients(phase: Phase, model: nn.Module, micro: int, train: bool = False) -> tuple[float, list[Tensor]]:
    """Loss and gradients of a step, in micro-batches of a size."""
    settings = Settings(stage=0, precision="fp32", clip=1.0, epsilon=1e-8, micros=1)
    setting = replace(
        tiny_models.setting(phase, model, engine=PlainEngine(model, phase.groups(model), torch.device("cpu"), settings)), micro=micro
    )
    setting.engine.train(train)
    model.zero_grad()
    step = phase.steps(0)[0]
    values = loop.accumulate(setting, loop.own_parts(phase, step, micro), step, 0)
    return math.fsum(float(value) for value in values), [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]


@pytest.mark.parametrize(
    "knobs",
    [
        {"class_weight": "balanced"},
        {"label_smoothing": 0.1},
        WITH_CONTRAST,
        {"class_weight": "balanced", "label_smoothing": 0.1, **WITH_CONTRAST},
    ],
)
@pytest.mark.parametrize("micro", [1, 5])
def test_accumulation_changes_neither_loss_nor_gradient(place: Place, knobs: dict[str, Any], micro: int) -> None:
    phase, model = built(place, batch=11, **knobs)  # steps of 10 texts: the last micro-batch is filled up with padding
    (whole, at_once), (parts, summed) = gradients(phase, model, 32), gradients(phase, model, micro)
    assert parts == pytest.approx(whole, abs=1e-6)
    assert len(at_once) == len(summed) > 20
    for one, other in zip(at_once, summed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_parts_of_several_workers_add_up(place: Place) -> None:
    phase, model = built(place, class_weight="balanced", label_smoothing=0.1)
    for step in phase.steps(0):
        whole = phase.loss(model, phase.collate(phase.train, step, step, 0)).item()
        parts = [part for rank in range(3) for part in sampling.share(step, rank, 3, micro=2)]
        assert sum(phase.loss(model, phase.collate(phase.train, part, step, 0)).item() for part in parts) == pytest.approx(whole, abs=1e-6)


def test_an_accumulated_contrast_sees_one_and_the_same_dropout(place: Place) -> None:
    """The gradient of a step's contrast belongs to the embeddings of the first pass, so the second must drop the same units."""
    config = tiny_models.configured(place[0].model_copy(update={"dropout": 0.3}), finetune=WITH_CONTRAST)
    phase = phases.build("finetune", config, place[1])
    model, passes = phase.model(None), []
    assert phase.embed is not None
    model.embedder.register_forward_hook(lambda module, inputs, output: passes.append(output.detach().clone()))
    gradients(phase, model, 5, train=True)
    half = len(passes) // 2
    assert half == 3  # twelve texts at most, five at a time
    for first, second in zip(passes[:half], passes[half:], strict=True):
        assert torch.equal(first, second)
    gradients(phase, model, 5, train=True)
    assert not torch.equal(passes[0], passes[2 * half])


def test_a_whole_phase_trains_with_all_of_them(place: Place, tmp_path: Path) -> None:
    knobs = {"class_weight": "balanced", "label_smoothing": 0.1, "layer_decay": 0.8, "steps": 30, **WITH_CONTRAST}
    config = tiny_models.configured(place[0], finetune=knobs | {"learning_rate": 1e-2, "head_learning_rate": 1e-2})
    _, _, course = tiny_models.trained("finetune", config, place[1], None, tmp_path / "out")
    assert np.mean(course.losses[-5:]) < 0.9 * np.mean(course.losses[:5])
    assert course.scores["accuracy"] > 0.6


def test_a_balanced_logistic_head_is_scikit_learns(place: Place) -> None:
    rng = np.random.default_rng(0)
    classes = rng.choice(3, size=80, p=[0.8, 0.1, 0.1])
    points = (rng.normal(size=(80, 16)) + classes[:, None]).astype(np.float32)
    heads = {}
    for kind in ("none", "balanced"):
        phase, model = built(place, head="logistic", class_weight=kind)
        assert phase.fit is not None
        phase.fit(model, (points[:60], classes[:60]), (points[60:], classes[60:]))
        heads[kind] = model.head(torch.from_numpy(points)).detach().softmax(dim=-1).numpy()
    scaler = StandardScaler().fit(points[:60])
    ways = [
        LogisticRegression(C=strength, max_iter=1000, class_weight="balanced").fit(scaler.transform(points[:60]), classes[:60])
        for strength in (0.01, 0.1, 1.0, 10.0, 100.0)
    ]
    best = max(ways, key=lambda way: way.score(scaler.transform(points[60:]), classes[60:]))
    np.testing.assert_allclose(heads["balanced"], best.predict_proba(scaler.transform(points)), atol=1e-4)
    assert np.abs(heads["balanced"] - heads["none"]).max() > 0.05


@pytest.mark.parametrize("knobs", [{"head": "logistic", "label_smoothing": 0.1}, {"head": "logistic", "contrastive_weight": 0.1}])
@pytest.mark.parametrize("section", [FineTune, Baseline])
def test_knobs_that_a_logistic_head_has_no_use_for_are_refused(section: type[FineTune], knobs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="logistic regression has a loss of its own; set head to mlp"):
        section(**knobs)


def test_a_contrast_of_frozen_embeddings_is_refused() -> None:
    with pytest.raises(ValidationError, match="a frozen encoder learns nothing from it"):
        FineTune(freeze_encoder=True, contrastive_weight=0.1)
