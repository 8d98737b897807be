"""A step's gradients: whether they are finite, and their norm held below a limit."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


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
