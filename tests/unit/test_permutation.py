import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from tests.unit import tiny_models
from threephase_ray import phases, pretrained, sampling
from threephase_ray.config import DAE
from threephase_ray.errors import ConfigError
from threephase_ray.loader import DataSet
from threephase_ray.models import restore
from threephase_ray.phases import dae
from threephase_ray.phases.spec import Batch, Phase

ABLE = [family for family in tiny_models.FAMILIES if family in pretrained.PERMUTED]
NARROW = {"modernbert": {"local_attention": 6}}  # layers that look three tokens far


def built(folder: Path, family: str, **knobs: object) -> tuple[Phase, dae.PermutedLM, DataSet]:
    """Phase 1 of a tiny checkpoint, its network without dropout, and the data set."""
    encoder = tiny_models.checkpoint(folder / "checkpoint", family, **NARROW.get(family, {}))
    data = tiny_models.prepared(folder, encoder)
    phase = dae.phase(tiny_models.configured(encoder, dae={"objective": "permutation", "noise_ratio": 0.4} | knobs), data)
    torch.manual_seed(0)
    model = phase.model(None).eval()
    assert isinstance(model, dae.PermutedLM)
    return phase, model, data


def some_batch(phase: Phase) -> Batch:
    """The first training step as one batch."""
    step = phase.steps(0)[0]
    return phase.collate(phase.train, step, step, 0)


def hidden(batch: Batch, row: int) -> list[int]:
    """Positions of a text's hidden tokens, in their order."""
    width = batch["ids"].shape[1] - batch["targets"].shape[1]
    return batch["positions"][row, width:][batch["targets"][row] >= 0].tolist()


def naive(model: dae.PermutedLM, tokens: list[int], order: list[int], mask_id: int) -> list[Tensor]:
    """Logits of the tokens at `order`, each from a sequence that holds only what stands before it in the order, and one mask token."""
    found = []
    for place, asked in enumerate(order):
        known = [position for position in range(len(tokens)) if position not in order[place:]]
        sequence = [*known, asked]
        when = [order.index(position) + 1 if position in order else 0 for position in known]
        sees = [[(i == j) or (i == len(known) and j < i) or (max(i, j) < len(known) and when[j] <= when[i])
                 for j in range(len(sequence))] for i in range(len(sequence))]  # fmt: skip
        batch = {
            "ids": torch.tensor([[*(tokens[position] for position in known), mask_id]]),
            "positions": torch.tensor([sequence]),
            "sight": torch.tensor([sees]),
            "targets": torch.tensor([[tokens[asked]]]),
        }
        found.append(model.states(batch)[0, 0])
    return found


@pytest.mark.parametrize("family", ABLE)
@torch.no_grad()
def test_one_pass_equals_asking_for_token_after_token(family: str, tmp_path: Path) -> None:
    phase, model, data = built(tmp_path, family)
    batch, step = some_batch(phase), phase.steps(0)[0]
    together, compared = model.states(batch), 0
    for row in range(len(step)):
        tokens = phase.train.padded(step[row : row + 1, 0]).tokens[0].tolist()
        for place, alone in enumerate(naive(model, tokens, hidden(batch, row), int(data.tokenizer.mask_token_id))):
            torch.testing.assert_close(together[row, place], alone, atol=1e-5, rtol=0)
            compared += 1
    assert compared > len(step)


@pytest.mark.parametrize("family", ABLE)
@torch.no_grad()
def test_no_prediction_knows_its_token_or_a_later_one(family: str, tmp_path: Path) -> None:
    phase, model, _ = built(tmp_path, family, noise="masking", noise_ratio=0.7)
    step = phase.steps(0)[0]
    batch = phase.collate(phase.train, step[:5], step, 0)
    before, moved, orders = model.states(batch), 0, [hidden(batch, row) for row in range(5)]
    for row, order in enumerate(orders):
        for place, position in enumerate(order):
            ids = batch["ids"].clone()
            ids[row, position] = 5 + (ids[row, position] + 1) % 20
            change = (model.states(batch | {"ids": ids}) - before)[row, : len(order)].abs().amax(dim=-1)
            assert float(change[: place + 1].max()) < 1e-6
            moved += int((change[place + 1 :] > 1e-4).sum())
    assert moved == sum(len(order) * (len(order) - 1) // 2 for order in orders) > 10  # those after it do know it


@torch.no_grad()
def test_the_order_matters(tmp_path: Path) -> None:
    _, model, data = built(tmp_path, "bert")
    padded, mask_id = data.split("train").padded(np.arange(8)), int(data.tokenizer.mask_token_id)
    ranks = np.zeros_like(padded.tokens)
    ranks[:, 1], ranks[:, 2] = 1, 2
    forth = model.states(dae.permuted(padded.tokens, padded.present, ranks, mask_id))
    back = model.states(dae.permuted(padded.tokens, padded.present, np.where(ranks > 0, 3 - ranks, 0), mask_id))
    assert (forth[:, 0] - back[:, 1]).abs().amax(dim=-1).min() > 1e-4  # the first token: asked for first, or after the second
    assert (forth[:, 1] - back[:, 0]).abs().amax(dim=-1).min() > 1e-4


@pytest.mark.parametrize("family", ABLE)
@torch.no_grad()
def test_with_nothing_hidden_the_network_is_the_stock_one(family: str, tmp_path: Path) -> None:
    """Positions, windows and padding are those of an ordinary pass, up to the longest text that the model takes."""
    _, model, data = built(tmp_path, family)
    limit = pretrained.load_tokenizer(tiny_models.Encoder(path=str(tmp_path / "checkpoint")))[1]
    present = np.arange(limit) < np.array([[limit], [limit // 2]])
    tokens = np.where(present, np.random.default_rng(0).integers(5, 20, present.shape), int(data.tokenizer.pad_token_id))
    batch = dae.permuted(tokens, present, np.zeros_like(tokens), mask_id=4)
    stock = model.language_model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(present).long()).logits
    whole = batch | {"targets": batch["ids"]}  # asks for the logits of all
    torch.testing.assert_close(
        model.states(whole)[:, :limit][torch.from_numpy(present)], stock[torch.from_numpy(present)], atol=1e-5, rtol=0
    )
    ranks = np.where(present & (np.arange(limit) > 1), np.arange(limit), 0)  # far more positions than the model has
    assert torch.isfinite(model.states(dae.permuted(tokens, present, ranks, mask_id=4))).all()


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_phase_learns_and_hands_its_encoder_on(family: str, tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    data = tiny_models.prepared(tmp_path, encoder)
    knobs = {"objective": "permutation", "noise_ratio": 0.3, "steps": 24, "learning_rate": 1e-2}
    config = tiny_models.configured(encoder, dae=knobs)
    _, _, course = tiny_models.trained("dae", config, data, None, tmp_path / "dae")
    assert np.mean(course.losses[-8:]) < 0.9 * np.mean(course.losses[:8])
    assert not restore(tmp_path / "dae").layers
    _, _, joint = tiny_models.trained("joint", config, data, None, tmp_path / "joint")
    assert all(math.isfinite(loss) for loss in joint.losses)


@pytest.mark.parametrize("ratio", [0.05, 0.4])  # at the lower one there are texts, and parts of a step, without a hidden token
def test_padding_visits_and_the_split_into_micro_batches_leave_a_steps_loss_alone(ratio: float, tmp_path: Path) -> None:
    phase, model, _ = built(tmp_path, "bert", noise_ratio=ratio)
    for step in phase.steps(0):
        whole = phase.loss(model, phase.collate(phase.train, step, step, 3)).item()
        parts = [part for rank in range(5) for part in sampling.share(step, rank, 5, micro=2)]
        assert sum(phase.loss(model, phase.collate(phase.train, part, step, 3)).item() for part in parts) == pytest.approx(whole, abs=1e-5)


def test_the_same_visit_hides_the_same_tokens_in_the_same_order_whatever_stands_beside_it(tmp_path: Path) -> None:
    phase, _, _ = built(tmp_path, "bert")
    step = phase.steps(0)[0]
    epochs = [phase.collate(phase.train, step, step, epoch) for epoch in (2, 2, 3)]
    orders = [[hidden(batch, row) for row in range(len(step))] for batch in epochs]
    alone = [phase.collate(phase.train, step[row : row + 1], step, 2) for row in range(len(step))]
    assert orders[0] == orders[1] == [hidden(batch, 0) for batch in alone]
    assert orders[0] != orders[2]


def test_half_precision_stays_finite(tmp_path: Path) -> None:
    phase, model, _ = built(tmp_path, "bert")
    batch = some_batch(phase)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = phase.loss(model, batch)
    half.backward()
    assert half.item() == pytest.approx(phase.loss(model, batch).item(), rel=0.05)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("family", [family for family in tiny_models.FAMILIES if family not in ABLE])
def test_other_families_are_refused_from_their_config_alone(family: str) -> None:
    facts = AutoConfig.for_model(family)
    pretrained.check_masked_lm(facts)
    with pytest.raises(ConfigError, match=f"dae.objective: permutation needs an encoder .*\n  {family} does not: use mlm"):
        pretrained.check_masked_lm(facts, "permutation")


def test_what_has_no_masked_language_model_is_refused_for_both(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "canine"}))
    for objective in ("mlm", "permutation"):
        with pytest.raises(ConfigError, match="no masked-language-model class"):
            pretrained.check_masked_lm(AutoConfig.from_pretrained(tmp_path), objective)


def test_its_cost_grows_with_what_is_hidden(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    data = tiny_models.prepared(tmp_path, encoder)
    costs = {
        objective: phases.build("dae", tiny_models.configured(encoder, dae={"objective": objective, "noise_ratio": 0.2}), data).passes
        for objective in ("denoising", "mlm", "permutation")
    }
    assert costs == {"denoising": 2.0, "mlm": 1.5, "permutation": pytest.approx(1.8)}
    assert DAE().objective == "denoising"
