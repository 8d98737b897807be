import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from threephase_ray.training.engine import Apply, PlainEngine, Settings

CPU = torch.device("cpu")
SETTINGS = Settings(stage=0, precision="fp32", clip=0.5, epsilon=1e-6, micros=1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weights with weight decay, biases without it and with another learning rate."""
    weights, biases = ([p for p in model.parameters() if p.ndim == dims] for dims in (2, 1))
    return [{"params": weights, "lr": 0.1, "weight_decay": 0.3}, {"params": biases, "lr": 0.02, "weight_decay": 0.0}]


def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    return ((model(batch["x"]) - batch["y"]) ** 2).sum()


def batch(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(5, 3, generator=generator), "y": 3 * torch.randn(5, 2, generator=generator)}


def by_hand(model: nn.Module, factors: list[float]) -> None:
    """AdamW (Loshchilov & Hutter 2019) after clipping the norm of all gradients together."""
    rates = [(p, group["lr"], group["weight_decay"]) for group in groups(model) for p in group["params"]]
    moments = {id(p): [torch.zeros_like(p), torch.zeros_like(p)] for p, *_ in rates}
    for step, factor in enumerate(factors, start=1):
        gradients = dict(
            zip(map(id, model.parameters()), torch.autograd.grad(loss(model, batch(step)), list(model.parameters())), strict=True)
        )
        norm = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
        assert norm > SETTINGS.clip
        for p, rate, decay in rates:
            first, second = moments[id(p)]
            gradient = gradients[id(p)] * SETTINGS.clip / norm
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            update = first / (1 - 0.9**step) / (torch.sqrt(second / (1 - 0.999**step)) + SETTINGS.epsilon)
            p.data.mul_(1 - rate * factor * decay).sub_(rate * factor * update)


def test_steps_equal_adamw_by_hand() -> None:
    ours, hand, factors = network(), network(), [0.5, 1.0, 0.25]
    engine = PlainEngine(ours, groups(ours), CPU, SETTINGS)
    for step, factor in enumerate(factors, start=1):
        engine.backward(engine.apply(loss, batch(step)))
        engine.step(factor)
    by_hand(hand, factors)
    for mine, other in zip(ours.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_micro_batches_add_up() -> None:
    whole, parts = network(), network()
    first, second = (PlainEngine(model, groups(model), CPU, SETTINGS) for model in (whole, parts))
    first.backward(first.apply(loss, batch(1)))
    for rows in (slice(0, 2), slice(2, 5)):
        second.backward(second.apply(loss, {name: tensor[rows] for name, tensor in batch(1).items()}))
    first.step(1.0)
    second.step(1.0)
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_only_what_the_groups_name_is_trained() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    engine = PlainEngine(model, [{"params": list(model[2].parameters()), "lr": 0.1, "weight_decay": 0.0}], CPU, SETTINGS)
    engine.backward(engine.apply(loss, batch(1)))
    engine.step(1.0)
    assert {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])} == {"2.weight", "2.bias"}


def test_a_parameter_without_a_gradient_only_decays() -> None:
    model = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)])
    nn.init.ones_(model[1].weight)
    engine = PlainEngine(model, [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.5}], CPU, SETTINGS)
    engine.backward(engine.apply(lambda model, batch: model[0].weight.sum(), {}))
    engine.step(1.0)
    assert model[1].weight.item() == pytest.approx(1 - 0.1 * 0.5)


def test_bytes_of_a_network_of_two_layers() -> None:
    model, numbers = network(), 3 * 4 + 4 + 4 * 2 + 2
    engine = PlainEngine(model, groups(model), CPU, SETTINGS)
    assert engine.memory() == {"parameters": 4 * numbers, "gradients": 0, "optimizer": 0}
    engine.backward(engine.apply(loss, batch(1)))
    engine.step(1.0)
    counters = 4 * 4  # a float32 step count for each of the four tensors
    assert engine.memory() == {"parameters": 4 * numbers, "gradients": 4 * numbers, "optimizer": 8 * numbers + counters}


def test_shared_weights_are_counted_once() -> None:
    model = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    model[1].weight = model[0].weight
    assert PlainEngine(model, [], CPU, SETTINGS).memory() == {"parameters": 36, "gradients": 0, "optimizer": 0}


def test_bf16_is_close_and_leaves_the_weights_alone() -> None:
    model, rows = nn.Linear(64, 8), torch.randn(16, 64)
    outputs = {kind: Apply(model, CPU, kind)(lambda model, batch: model(batch["x"]), {"x": rows}) for kind in ("fp32", "bf16")}
    assert outputs["fp32"].dtype == torch.float32
    assert torch.equal(outputs["fp32"], model(rows))
    assert outputs["bf16"].dtype == torch.bfloat16
    assert not torch.equal(outputs["bf16"].float(), outputs["fp32"])
    torch.testing.assert_close(outputs["bf16"].float(), outputs["fp32"], atol=0.03, rtol=0.03)
    outputs["bf16"].float().sum().backward()
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32


def test_weights_are_copies_of_a_part() -> None:
    model = network()
    engine = PlainEngine(model, groups(model), CPU, SETTINGS)
    kept = engine.weights(model[2])
    assert kept.keys() == {"weight", "bias"}
    assert torch.equal(kept["weight"], model[2].weight)
    before = kept["weight"].clone()
    engine.backward(engine.apply(loss, batch(1)))
    engine.step(1.0)
    assert torch.equal(kept["weight"], before)
    assert not torch.equal(model[2].weight, before)
    assert not kept["weight"].requires_grad


def test_dropout_acts_in_training_alone() -> None:
    model = nn.Dropout(0.5)
    engine, ones = PlainEngine(model, [], CPU, SETTINGS), {"x": torch.ones(100)}
    engine.train(True)
    assert (engine.apply(lambda model, batch: model(batch["x"]), ones) == 0).any()
    engine.train(False)
    assert torch.equal(engine.apply(lambda model, batch: model(batch["x"]), ones), ones["x"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 5, 11])
def test_one_bad_number_in_a_gradient_is_found(bad: float, position: int) -> None:
    model = network()
    engine = PlainEngine(model, groups(model), CPU, SETTINGS)
    assert engine.finite()
    engine.backward(engine.apply(loss, batch(1)))
    assert engine.finite()
    model[0].weight.grad.view(-1)[position] = bad
    assert not engine.finite()


def test_large_gradients_are_finite() -> None:
    model = network()
    engine = PlainEngine(model, groups(model), CPU, SETTINGS)
    model[0].weight.grad = torch.full((4, 3), 3e38)  # the sum of the squares is not
    assert engine.finite()


@pytest.mark.parametrize("factor", [1.0, math.nan])
def test_a_discarded_step_leaves_no_trace(factor: float) -> None:
    ours, other = network(), network()
    discarding, unaware = (PlainEngine(model, groups(model), CPU, SETTINGS) for model in (ours, other))
    for step in (1, 2, 3):
        discarding.backward(discarding.apply(loss, batch(step)))
        discarding.step(1.0)
        discarding.backward(discarding.apply(loss, batch(100 + step)) * factor)
        assert discarding.finite() == math.isfinite(factor)
        discarding.discard()
        unaware.backward(unaware.apply(loss, batch(step)))
        unaware.step(1.0)
    for mine, theirs in zip(discarding.fragments(), unaware.fragments(), strict=True):
        assert mine.tensors.keys() == {"weight", "exp_avg", "exp_avg_sq"}
        for kind, tensor in mine.tensors.items():
            assert torch.equal(tensor, theirs.tensors[kind]), (mine.name, kind)


def test_an_engine_without_anything_to_train_has_no_fragments() -> None:
    engine = PlainEngine(network(), [], CPU, SETTINGS)
    engine.load(lambda name, kind, start, stop: torch.full((stop - start,), math.nan), 3)
    assert engine.fragments() == []
    assert engine.finite()


def test_shared_weights_are_one_fragment_and_frozen_ones_none() -> None:
    model = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    (fragment,) = PlainEngine(model, [{"params": trained, "lr": 0.1}], CPU, SETTINGS).fragments()
    assert (fragment.name, fragment.start, list(fragment.tensors)) == ("0.weight", 0, ["weight"])
    assert fragment.tensors["weight"].data_ptr() == model[0].weight.data_ptr()
