"""The losses of the phases, as sums or per-item values, so that any split of a batch over workers adds up to the same loss."""

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor
from torch.nn import functional as F

from threephase_ray.memory import tokens_at_once
from threephase_ray.noise import IGNORED


def reconstruction(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies of the tokens, and how many of them have the highest logit.

    The logits of all n tokens would be by far the largest tensor of a step. Only some tokens' are held at a time, and what backward
    needs of them is computed along with the loss.

    Args:
        states: of the tokens, [n, h].
        weight, bias: of the linear map to logits, [v, h] and [v].
        targets: the tokens [n].
    """
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    with torch.autocast(kind, enabled=False):
        guess: tuple[Tensor, Tensor] = _Reconstruction.apply(states, weight, bias, targets, dtype)  # type: ignore[no-untyped-call]
    return guess


class _Reconstruction(torch.autograd.Function):
    """`reconstruction` with matrix products in `dtype`."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Loss and hits; the loss's gradients, where they are asked for, are kept for backward."""
        loss, hits = (torch.zeros((), dtype=kind, device=states.device) for kind in (torch.float32, torch.long))
        low, low_bias, chunk = weight.to(dtype), bias.to(dtype), tokens_at_once(len(weight))
        of_states: list[Tensor] = []
        of_weight = of_bias = None
        for some, wanted in zip(states.to(dtype).split(chunk), targets.split(chunk), strict=True):
            scores = F.linear(some, low, low_bias).float().log_softmax(dim=1)
            reached = scores.gather(1, wanted[:, None])
            loss -= reached.sum()
            hits += (reached == scores.amax(dim=1, keepdim=True)).sum()  # several times as fast as argmax
            if any(ctx.needs_input_grad):
                error = scores.exp_().scatter_add_(1, wanted[:, None], -torch.ones_like(reached))  # softmax less what is wanted
                of_bias = _added(of_bias, error.sum(dim=0))
                error = error.to(dtype)
                of_states.append(error @ low)
                of_weight = _added(of_weight, (error.T @ some).to(weight.dtype))
        if of_states:
            ctx.save_for_backward(torch.cat(of_states).to(states.dtype), of_weight, of_bias)
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    def backward(ctx: Any, factor: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Those gradients times the loss's own."""
        return (*(gradient.mul_(factor) for gradient in ctx.saved_tensors), None, None)


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    """The sum, in the place of `total`, if there is one yet."""
    return more if total is None else total.add_(more)


def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Sum of the softmax cross-entropies: logits [b, k], labels [b], rows with label -100 left out.

    Args:
        smoothing: share of each target that is spread evenly over all classes.
        weights: factors [b] of the rows' losses.
    """
    reduction = "sum" if weights is None else "none"
    each = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction=reduction, label_smoothing=smoothing)
    return each if weights is None else (weights * each).sum()


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights [k] inverse to the sizes of the classes, n / (k' n_c), k' classes having rows: over the `labels` [n] their mean is 1.

    A class without rows has weight 0.
    """
    sizes = torch.bincount(labels, minlength=classes).double()
    weights = len(labels) / ((sizes > 0).sum() * sizes)
    return weights.masked_fill(sizes == 0, 0.0).float()


def pair_labels(labels: Tensor, others: Tensor) -> Tensor:
    """Share of the label levels that match (Eq. 2): labels [n, levels] and others [m, levels] give [n, m]."""
    return (labels[:, None, :] == others[None, :, :]).float().mean(dim=-1)


def supervised_contrastive(embeddings: Tensor, others: Tensor, alike: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss of each anchor, [n] (Khosla et al. 2020, L_out), times the temperature.

        l_i = -T * sum_j y_ij log(exp(s_ij / T) / sum_k exp(s_ik / T)) / sum_j y_ij

    Here s_ij is the cosine of i and j, and y_ij their pair label. The factor T, the temperature, keeps the size of the gradient
    from depending on it. An anchor without a positive has loss 0; `positives` says which.

    Args:
        embeddings: anchors [n, d].
        others: texts that they meet [m, d].
        alike: pair labels [n, m].
        allowed: [n, m], false where a text would meet itself or padding.
    """
    scores = F.normalize(embeddings.float(), dim=-1) @ F.normalize(others.float(), dim=-1).T / temperature
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = alike * allowed
    log_share = (scores - torch.logsumexp(scores, dim=1, keepdim=True)).masked_fill(~allowed, 0.0)
    return -temperature * (weights * log_share).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-12)


def positives(alike: Tensor, allowed: Tensor) -> Tensor:
    """Which anchors have a positive, [n]."""
    return ((alike > 0) & allowed).any(dim=1)


def squared_cosine_errors(embeddings: Tensor, others: Tensor, alike: Tensor) -> Tensor:
    """Squared errors between pair label and cosine (Eq. 3), for all pairs: [n, d], [m, d], [n, m] give [n, m]."""
    cosines = F.normalize(embeddings.float(), dim=-1) @ F.normalize(others.float(), dim=-1).T
    return (alike - cosines) ** 2


def balance(alike: Tensor, allowed: Tensor) -> Tensor:
    """Weights [n, m] with sum 1 in which positives and negatives count alike, as if equally many had been drawn."""
    sides = [side for side in ((alike > 0) & allowed, (alike == 0) & allowed) if bool(side.any())]
    return torch.stack([side / side.sum() for side in sides]).mean(dim=0) if sides else torch.zeros_like(alike)


def gather(tensor: Tensor) -> Tensor:
    """All workers' rows, [world * n, ...], in rank order, with gradient: each worker's gradients flow back to the row's owner.

    Workers must hold equally many rows. Without a process group the tensor itself.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    if tensor.requires_grad:
        return torch.cat(torch.distributed.nn.functional.all_gather(tensor.contiguous()))
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
