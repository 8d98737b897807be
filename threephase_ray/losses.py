"""The losses of the phases, as sums or per-item values, so that any split of a batch over workers adds up to the same loss."""

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor
from torch.nn import functional as F

from threephase_ray.noise import IGNORED


def reconstruction(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of the tokens: logits [n, v], targets [n], those of -100 left out."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")


def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Sum of the softmax cross-entropies: logits [b, k], labels [b], rows with label -100 left out.

    Args:
        smoothing: share of each target that is spread evenly over all classes. weights: factors [b] of the rows' losses.
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

        l_i = -T * sum_j y_ij log(exp(s_ij / T) / sum_k exp(s_ik / T)) / sum_j y_ij,   s_ij the cosine of i and j

    The factor T keeps the size of the gradient from depending on the temperature. With several label levels y_ij is the pair
    label. An anchor without a positive has loss 0; `positives` says which.

    Args:
        embeddings: anchors [n, d]. others: texts that they meet [m, d]. alike: pair labels [n, m].
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
