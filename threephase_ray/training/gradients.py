"""A step's gradients: summed over the workers, found finite or not, their norm held below a limit."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

_LARGE = 2**18  # numbers from which on a tensor is sent by itself: a copy would cost more than one more message


def add_up(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients over the workers in place; a parameter that a step did not use has a gradient of zeros from then on."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    small = [gradient for gradient in gradients if gradient.numel() < _LARGE]
    together = torch.cat([gradient.flatten() for gradient in small]) if small else None
    for gradient in gradients:
        if gradient.numel() >= _LARGE:
            dist.all_reduce(gradient)
    if together is not None:
        dist.all_reduce(together)
        for gradient, total in zip(small, together.split([gradient.numel() for gradient in small]), strict=True):
            gradient.copy_(total.view_as(gradient))


class Clipping:
    """Clips gradients by their norm, which is computed once for both questions: is it finite, is it too large."""

    def __init__(self, largest: float) -> None:
        """`largest`: the norm that gradients may have."""
        self._largest = largest
        self._norm: Tensor | None = None  # of this step's gradients, once known

    def finite(self, gradients: Iterable[Tensor | None]) -> bool:
        """Whether no number is infinite or NaN. The norm tells; where it overflows, the largest magnitude does."""
        present = [gradient for gradient in gradients if gradient is not None]
        self._norm = nn.utils.get_total_norm(present)
        return bool(torch.isfinite(self._norm)) or bool(torch.isfinite(nn.utils.get_total_norm(present, math.inf)))

    def clip(self, parameters: list[nn.Parameter]) -> None:
        """Scale the gradients down as `torch.nn.utils.clip_grad_norm_` does, but leave alone those that are small enough."""
        norm = self._norm
        if norm is None:
            norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self._largest < norm + 1e-6:
            nn.utils.clip_grads_with_norm_(parameters, self._largest, norm)
        self.forget()

    def forget(self) -> None:
        """The gradients are no longer those whose norm is known."""
        self._norm = None
