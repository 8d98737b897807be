"""`Phase`: all that the training loop needs to know about a phase."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray.config import Training
from threephase_ray.loader import Split

Ints = NDArray[np.int64]
Batch = dict[str, Any]
WholeStep = Callable[[Callable[[Batch], Tensor], list[Batch]], list[Batch]]


@dataclass(frozen=True)
class Phase:
    """A phase as a record of functions. A step is an array of visits [b, 2] or pairs of visits [p, 2, 2], see `sampling`.

    Contracts:
        The losses of all micro-batches of all workers add up to the loss of the step: each is normalised by the whole step, which
        `collate` sees. Statistics are counts that add up likewise. `collate` draws all noise from (seed, epoch, visit).
    """

    name: str
    version: int  # raise it when the phase's arithmetic changes: finished results are then computed anew
    training: Training
    passes: float  # what a text costs in passes of phase 3, about: a noisy text is short, a decoder costs more than an encoder
    train: Split
    validation: Split
    model: Callable[[Path | None], nn.Module]  # from the folder of the phase before, or from the pretrained checkpoint
    groups: Callable[[Any], list[dict[str, Any]]]  # parameter groups with `params`, `lr`, `weight_decay`
    steps: Callable[[int], list[Ints]]  # epoch -> training steps
    checks: Callable[[], list[Ints]]  # validation steps
    collate: Callable[[Split, Ints, Ints, int], Batch]  # split, micro-batch, whole step, epoch (-1: no training)
    loss: Callable[[Any, Batch], Tensor]
    statistics: Callable[[Any, Batch], Tensor]  # counts, float64 [c]
    score: Callable[[NDArray[np.float64]], dict[str, float]]  # counts -> figures to show; the first is the phase's own
    rank: Callable[[dict[str, float]], tuple[float, ...]]  # figures -> order of checkpoints, larger is better
    hand_over: Callable[[Any], nn.Module]  # the part that the next phase starts from
    unit: int = 1  # visits that must stay on one worker: 2 for pairs
    gathers: bool = False  # validation steps are whole on one worker, so that `statistics` may compare their texts
    embed: Callable[[Any, Batch], Tensor] | None = None  # embeddings [b, h]
    whole_step: WholeStep | None = None  # for losses that compare all texts of a step, when it is accumulated
    fit: Callable[..., None] | None = None  # sets the head by the embeddings of both splits, before the first step
    trains: bool = True  # whether steps follow


def parameter_groups(model: nn.Module, encoder: nn.Module, training: Training) -> list[dict[str, Any]]:
    """AdamW's groups: encoder, by layers if they differ, and new layers with their learning rates, each with and without weight decay."""
    of_encoder = encoder_rates(encoder, training.learning_rate, training.layer_decay)
    head_rate = training.learning_rate if training.head_learning_rate is None else training.head_learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = of_encoder.get(id(parameter), head_rate)
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def encoder_rates(encoder: nn.Module, rate: float, decay: float) -> dict[int, float]:
    """Learning rate of each parameter of the encoder, by its id: `rate` in the top layer, in each other one that of the layer above
    times `decay`, last the embeddings and all else below or beside the layers. What follows on the layers learns as the top one.
    """
    layers = max((module for module in encoder.modules() if isinstance(module, nn.ModuleList)), key=len, default=nn.ModuleList())
    rates = {id(parameter): rate * decay ** len(layers) for parameter in encoder.parameters()}
    for depth, layer in enumerate(reversed(layers)):
        rates |= {id(parameter): rate * decay**depth for parameter in layer.parameters()}
    children = list(encoder.children())
    holder = next((i for i, child in enumerate(children) if any(module is layers for module in child.modules())), len(children))
    return rates | {id(parameter): rate for child in children[holder + 1 :] for parameter in child.parameters()}


def tensors(split: Split, visits: Ints) -> Batch:
    """Clean texts as tensors: ids and mask [b, t], labels [b, levels], weight [b] (0 for padding visits)."""
    padded = split.padded(visits[:, 0])
    weight = visits[:, 0] >= 0
    return {
        "ids": torch.from_numpy(padded.tokens),
        "mask": torch.from_numpy(padded.present),
        "labels": torch.from_numpy(split.labels[np.maximum(visits[:, 0], 0)]),
        "weight": torch.from_numpy(weight.astype(np.float32)),
    }
