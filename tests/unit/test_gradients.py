import math

import pytest
import torch
from torch import nn

from threephase_ray.training.gradients import Clipping


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    for parameter in model[:1].parameters():
        parameter.grad = torch.randn_like(parameter)
    return model  # the second layer had no part in the step


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("largest", [0.01, 1.0, 4.0, 1e6])
def test_gradients_are_clipped_as_torch_does(largest: float, asked: bool) -> None:
    ours, torchs = network(), network()
    clipping = Clipping(largest)
    if asked:
        assert clipping.finite(parameter.grad for parameter in ours.parameters())
    clipping.clip(list(ours.parameters()))
    nn.utils.clip_grad_norm_(torchs.parameters(), largest)
    for mine, theirs in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)


def test_a_norm_counts_for_one_step_and_not_for_gradients_that_were_dropped_or_summed_since() -> None:
    model, clipping = network(), Clipping(1.0)
    parameters = list(model.parameters())
    for forget in (lambda: clipping.clip(parameters), clipping.forget):
        parameters[0].grad = torch.full((4, 5), 100.0)
        assert clipping.finite(parameter.grad for parameter in parameters)
        forget()
        parameters[0].grad = torch.full((4, 5), 0.5)
        clipping.clip(parameters)
        assert float(nn.utils.get_total_norm([parameter.grad for parameter in parameters[:2]])) == pytest.approx(1.0, abs=1e-6)


def test_an_odd_gradient_is_found_and_a_huge_one_is_not_odd() -> None:
    clipping = Clipping(1.0)
    for value, finite in ((3e38, True), (math.inf, False), (math.nan, False), (0.0, True)):
        assert clipping.finite([torch.tensor([1.0, value]), None, torch.full((3,), value)]) == finite
