"""What only a GPU can show: `make gpu`. Without one every test here is skipped."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit import test_packing, tiny_models
from threephase_ray import pretrained
from threephase_ray.models import Embedder
from threephase_ray.training import worker
from threephase_ray.training.plan import Plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
WIDE = {  # heads as wide as FlashAttention asks for: multiples of 8
    family: {"hidden_size": 64} if "hidden_size" in facts else {"dim": 64} for family, facts in tiny_models.FAMILIES.items()
}


def embedder(folder: Path, family: str) -> Embedder:
    return pretrained.start(tiny_models.checkpoint(folder, family, **WIDE[family]), None).eval().cuda()


def batch(family: str) -> tuple[Tensor, Tensor]:
    ids, mask = test_packing.batch(family)
    return ids.cuda(), mask.cuda()


def outcome(model: Embedder, ids: Tensor, mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Embeddings, and all gradients as one vector."""
    model.zero_grad()
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = model(ids, mask)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).cuda()
    (found.float() * weights).sum().backward()
    return found.detach().float(), gradients(model)


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([each.grad.float().flatten() for each in model.parameters() if each.grad is not None])


def error(found: Tensor, expected: Tensor) -> float:
    """Relative to the size of what is expected."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", test_packing.CAN)
def test_packed_equals_padded_in_float32(tmp_path: Path, family: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family), batch(family)
    packed = outcome(model, ids, mask, torch.float32)
    model.packs = False
    padded = outcome(model, ids, mask, torch.float32)
    assert error(packed[0], padded[0]) < 1e-6
    assert error(packed[1], padded[1]) < 5e-6


@pytest.mark.parametrize("family", test_packing.CAN)
def test_packed_is_as_near_to_float32_as_padded_in_bfloat16(tmp_path: Path, family: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family), batch(family)
    packed = outcome(model, ids, mask, torch.bfloat16)
    model.packs = False
    padded, exact = outcome(model, ids, mask, torch.bfloat16), outcome(model, ids, mask, torch.float32)
    for found, beside, expected in zip(packed, padded, exact, strict=True):
        assert error(found, expected) < 1.5 * error(beside, expected) + 1e-3


@pytest.mark.parametrize("family", test_packing.CAN)
def test_no_text_sees_another(tmp_path: Path, family: str) -> None:
    model, (ids, mask) = embedder(tmp_path, family), batch(family)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        test_packing.keeps_apart(model, ids, mask)


def test_a_decoder_sees_no_later_token(tmp_path: Path) -> None:
    model, (ids, mask) = embedder(tmp_path, "bert"), batch("bert")
    decoder = pretrained.decoder(tiny_models.checkpoint(tmp_path, "bert", **WIDE["bert"]), model, "auto", layers=2).eval().cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        memory = model(ids, mask).detach()
        before = decoder.states(memory, ids, mask)
        ids[1, 16] = 5 + (ids[1, 16] - 4) % 20
        after = decoder.states(memory, ids, mask)
    changed = (before != after).any(dim=1).nonzero().squeeze(1)
    assert changed.tolist() == [3 + 16]  # behind the first text's three tokens


def test_three_phases_lose_on_a_gpu_what_they_lose_on_a_cpu(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "encoder", "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    data = tiny_models.prepared(tmp_path, encoder)
    losses = {}
    for device in ("cpu", "cuda"):
        knobs = {"head_dropout": 0.0, "head_start": "logistic"}
        config = tiny_models.configured(encoder, store=str(tmp_path / "store"), finetune=knobs)
        names, previous, jobs = ("dae", "contrastive", "finetune"), None, []
        for name in names:
            result = f"phases/{name}-{device}"
            jobs.append({"name": name, "key": "0" * 16, "result": result, "previous": previous})
            previous = result
        seen: list[float] = []
        data_name = str(data.folder.parent.relative_to(tmp_path / "store"))
        plan = Plan(config.model_dump(mode="json"), data_name, f"runs/{device}", 0, "plain", jobs, [])
        worker.perform(plan, torch.device(device), lambda event, seen=seen: seen.append(event.get("loss", 0.0)), lambda: b"", lambda: False)
        losses[device] = seen
    assert len(losses["cpu"]) == len(losses["cuda"])
    assert sum(loss != 0 for loss in losses["cuda"]) >= 9
    assert torch.allclose(torch.tensor(losses["cuda"]), torch.tensor(losses["cpu"]), rtol=2e-3, atol=1e-4)
