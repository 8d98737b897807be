"""Phase 2: supervised contrastive learning with the imbalance correction draws each class together."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor, nn
from torch.nn import functional as F

from threephase_ray import losses, noise, pretrained, sampling
from threephase_ray.config import Config, Contrastive, CosineRegression, SupervisedContrastive
from threephase_ray.errors import DataError
from threephase_ray.loader import DataSet, Split
from threephase_ray.models import Embedder
from threephase_ray.phases.spec import Batch, Ints, Phase, WholeStep, parameter_groups, tensors

CHECKED_TOGETHER = 256  # validation texts that are compared with each other


def phase(config: Config, data: DataSet) -> Phase:
    """The phase as `config.contrastive` describes it, over the training split."""
    knobs, train, validation = config.contrastive, data.split("train"), data.split("validation")
    pairs = samples_pairs(knobs)

    def model(previous: Path | None) -> nn.Module:
        return pretrained.start(config.encoder, previous).add("bottleneck").add("projection")

    return Phase(
        name="contrastive",
        version=1,
        training=knobs,
        passes=1.0,
        train=train,
        validation=validation,
        model=model,
        groups=lambda model: parameter_groups(model, model.encoder, knobs),
        steps=lambda epoch: steps(knobs, train, config.seed, epoch),
        checks=lambda: shuffled_checks(validation, config.seed, CHECKED_TOGETHER),
        collate=lambda split, visits, step, epoch: collate(config, data, split, visits, step, epoch),
        loss=lambda model, batch: loss(knobs, model, batch),
        statistics=lambda model, batch: statistics(knobs, model, batch),
        score=score,
        rank=lambda scores: (-scores["loss"],),
        hand_over=lambda model: model,
        unit=2 if pairs else 1,
        gathers=True,
        embed=lambda model, batch: model(batch["ids"], batch["mask"]),
        whole_step=None if pairs else whole_step(knobs),
    )


def samples_pairs(knobs: Contrastive) -> bool:
    """Whether steps hold sampled pairs, as in the paper, rather than texts of which every pair counts."""
    return isinstance(knobs.loss, CosineRegression) and knobs.loss.pairs == "sampled"


def steps(knobs: Contrastive, train: Split, seed: int, epoch: int) -> list[Ints]:
    """The steps of an epoch, after the imbalance correction: class-balanced texts, or pairs as neighbours [2 p, 2].

    Raises:
        DataError: there is no pair to sample.
    """
    assert knobs.batch is not None
    rng = sampling.generator(seed, epoch)
    labels, imbalance = train.labels[:, -1], knobs.imbalance
    classes = sampling.corrected_visits(labels, imbalance.min_ratio, imbalance.max_ratio, rng)
    if not samples_pairs(knobs):
        return sampling.class_balanced(classes, knobs.batch, knobs.texts_per_class, knobs.sampling == "uniform", rng)
    pairs = sampling.balanced_pairs(classes, sum(len(visits) for visits in classes), rng)
    if not len(pairs):
        raise DataError("contrastive.loss.pairs: no class of the training split has two texts, so there is no pair of one class to sample")
    return [part.reshape(-1, 2) for part in np.array_split(pairs, -(-len(pairs) // knobs.batch))]


def shuffled_checks(validation: Split, seed: int, together: int) -> list[Ints]:
    """The validation split in a fixed random order, about `together` texts a step: each is compared within itself, on one worker."""
    order = sampling.generator(seed).permutation(len(validation))
    visits = sampling.first_visits(order)
    return [np.asarray(part) for part in np.array_split(visits, -(-len(visits) // together))]


def collate(config: Config, data: DataSet, split: Split, visits: Ints, step: Ints, epoch: int) -> Batch:
    """Clean texts; copies, which the imbalance correction makes, lose some of their stop-words. `total`: texts in the step."""
    copies = (visits[:, 1] > 0) & (visits[:, 0] >= 0)
    batch = tensors(split, visits)
    share = config.contrastive.imbalance.stop_word_deletion
    if share and copies.any():
        padded = split.padded(visits[:, 0])
        draws = noise.uniform((config.seed, epoch), visits, padded.tokens.shape[1])
        hit = stop_words(data, padded.tokens, padded.words) & noise.chosen(padded.words, draws, share, whole_words=True)
        ids, present = noise.delete(padded.tokens, padded.present, hit & copies[:, None], data.pad_id)
        batch |= {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(present)}
    return batch | {"total": len(step)}


def stop_words(data: DataSet, tokens: Ints, words: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which tokens [n, t] are stop-words: words of one token that is in scikit-learn's English list."""
    single = np.ones_like(words, dtype=bool)
    single[:, :-1] = words[:, 1:] != noise.CONTINUES
    found: NDArray[np.bool_] = (words == noise.STARTS) & single & _stop_table(data)[tokens]
    return found


@cache
def _stop_table(data: DataSet) -> NDArray[np.bool_]:
    """For each token id whether it spells a stop-word, alone or after a space."""
    table = np.zeros(len(data.tokenizer), dtype=bool)
    for word in ENGLISH_STOP_WORDS:
        for spelling in (word, " " + word, word.capitalize(), " " + word.capitalize()):
            ids = data.tokenizer(spelling, add_special_tokens=False)["input_ids"]
            if len(ids) == 1:
                table[ids[0]] = True
    return table


def loss(knobs: Contrastive, model: Embedder, batch: Batch) -> Tensor:
    """This worker's part of the step's loss."""
    repeat_dropout(batch)
    embeddings = model(batch["ids"], batch["mask"])
    return pairs_loss(embeddings, batch) if samples_pairs(knobs) else texts_loss(knobs, embeddings, batch)


def texts_loss(knobs: Contrastive, embeddings: Tensor, batch: Batch) -> Tensor:
    """The same for steps of texts, given the batch's embeddings [b, h]."""
    if "gradient" in batch:  # the step is accumulated: see `whole_step`
        product: Tensor = (embeddings.float() * batch["gradient"]).sum()
        value: Tensor = batch["value"]
        return product - product.detach() + value
    return among_all(knobs, embeddings, batch["labels"], batch["weight"])


def pairs_loss(embeddings: Tensor, batch: Batch) -> Tensor:
    """Mean squared error of the sampled pairs' cosines (Eq. 3); neighbours (0, 1), (2, 3) ... are the pairs."""
    alike = (batch["labels"][0::2] == batch["labels"][1::2]).float().mean(dim=-1)
    cosines = F.cosine_similarity(embeddings[0::2].float(), embeddings[1::2].float(), dim=-1)
    error: Tensor = (batch["weight"][0::2] * (alike - cosines) ** 2).sum()
    pairs: float = batch["total"] / 2
    return error / pairs


def among_all(knobs: Contrastive, embeddings: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """This worker's texts against all texts of the step, over all workers, with gradient: its part of the step's loss."""
    others, other_labels, other_weight = (losses.gather(tensor) for tensor in (embeddings, labels, weight))
    rank = dist.get_rank() if dist.is_initialized() else 0
    own = slice(rank * len(embeddings), (rank + 1) * len(embeddings))
    alike = losses.pair_labels(other_labels, other_labels)
    allowed = (other_weight[:, None] * other_weight[None, :]).bool() & ~torch.eye(len(others), dtype=torch.bool, device=others.device)
    if isinstance(knobs.loss, SupervisedContrastive):
        each = losses.supervised_contrastive(embeddings, others, alike[own], allowed[own], knobs.loss.temperature)
        return each.sum() / losses.positives(alike, allowed).sum().clamp_min(1)
    errors = losses.squared_cosine_errors(embeddings, others, alike[own])
    return (errors * losses.balance(alike, allowed)[own]).sum()


def whole_step(knobs: Contrastive) -> WholeStep:
    """For steps that are accumulated: the loss compares all texts of the step, though only some fit into one pass.

    All texts are embedded once without keeping activations; the loss and its gradient for each embedding follow; then each
    micro-batch is passed again and receives its part of that gradient (gradient caching, Gao et al. 2021), under the same dropout.
    """

    def prepare(embed: Callable[[Batch], Tensor], batches: list[Batch]) -> list[Batch]:
        states, parts = [], []
        with torch.no_grad():
            for batch in batches:
                states.append(_random_state(batch["ids"].device))
                parts.append(embed(batch).float())
        embeddings = torch.cat(parts).requires_grad_()
        labels, weight = (torch.cat([batch[key] for batch in batches]) for key in ("labels", "weight"))
        value = among_all(knobs, embeddings, labels, weight)
        (gradient,) = torch.autograd.grad(value, embeddings)
        gradients = gradient.split([len(part) for part in parts])
        share = value.detach() / len(batches)
        return [
            batch | {"gradient": part, "value": share, "random_state": state}
            for batch, part, state in zip(batches, gradients, states, strict=True)
        ]

    return prepare


def repeat_dropout(batch: Batch) -> None:
    """Before an accumulated step embeds a batch again: have dropout drop what it dropped in `whole_step`."""
    if "random_state" in batch:
        _set_random_state(batch["ids"].device, batch["random_state"])


def _random_state(device: torch.device) -> Tensor:
    """State of the generator that dropout draws from on `device`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    """Put the generator back, so that a second pass drops the same units as the first."""
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)


def statistics(knobs: Contrastive, model: Embedder, batch: Batch) -> Tensor:
    """Sum of the losses, their number, texts whose nearest neighbour in the step is of their class, texts that have a chance of it."""
    embeddings, weight = F.normalize(model(batch["ids"], batch["mask"]).float(), dim=-1), batch["weight"].bool()
    alike = losses.pair_labels(batch["labels"], batch["labels"])
    allowed = (weight[:, None] & weight[None, :]) & ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
    if isinstance(knobs.loss, SupervisedContrastive):
        total = losses.supervised_contrastive(embeddings, embeddings, alike, allowed, knobs.loss.temperature).sum()
        count = losses.positives(alike, allowed).sum()
    else:
        errors = losses.squared_cosine_errors(embeddings, embeddings, alike)
        total, count = (errors * losses.balance(alike, allowed)).sum() * weight.sum(), weight.sum()
    nearest = (embeddings @ embeddings.T).masked_fill(~allowed, -2.0).argmax(dim=1)
    chance = ((alike == 1) & allowed).any(dim=1)
    hits = chance & (alike[torch.arange(len(weight)), nearest] == 1)
    return torch.stack([part.double() for part in (total, count, hits.sum(), chance.sum())])


def score(counts: NDArray[np.float64]) -> dict[str, float]:
    """Mean loss, and the share of texts whose nearest neighbour is of their class."""
    total, count, hits, chances = (float(part) for part in counts)
    return {"loss": total / max(1.0, count), "neighbour_accuracy": hits / max(1.0, chances)}
