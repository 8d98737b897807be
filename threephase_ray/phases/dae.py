"""Phase 1: denoising autoencoder (TSDAE), masked or permuted language modelling adapt the encoder to the texts, without labels."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray import noise, packing, pretrained
from threephase_ray.config import Config
from threephase_ray.loader import DataSet, Split
from threephase_ray.models import Embedder, TiedDecoder
from threephase_ray.phases.spec import Batch, Ints, Phase, parameter_groups
from threephase_ray.sampling import by_length, length_grouped
from threephase_ray.vocabulary import Guess, Unembedding


class Autoencoder(nn.Module):
    """Embedder with bottleneck, and the decoder that rebuilds a text from the embedding of its noisy version."""

    def __init__(self, embedder: Embedder, decoder: TiedDecoder) -> None:
        """The two share weights."""
        super().__init__()
        self.embedder, self.decoder = embedder, decoder
        decoder.unembedding.join(self)

    def forward(self, batch: Batch) -> Guess:
        """Of the tokens after each of `decoder_ids` [b, s] in `decoder_mask`."""
        with self.decoder.unembedding.shared():
            memory = self.embedder(batch["ids"], batch["mask"])
            guess: Guess = self.decoder(memory, batch["decoder_ids"], batch["decoder_mask"], batch["targets"])
        return guess


class MaskedLM(nn.Module):
    """Embedder, and the checkpoint's masked-language-model class around the same encoder."""

    def __init__(self, embedder: Embedder, language_model: nn.Module) -> None:
        """The two share the encoder."""
        super().__init__()
        self.embedder, self.language_model = embedder, language_model
        self.unembedding = Unembedding(language_model)
        self.unembedding.join(self)

    def forward(self, batch: Batch) -> Guess:
        """Of the tokens that are asked for."""
        with self.unembedding.shared():
            guess: Guess = self.unembedding(self.states(batch), batch["targets"])
        return guess

    def states(self, batch: Batch) -> Tensor:
        """What the logits of the tokens at each of `ids` [b, t] are made of, [b, t, h]."""
        states: Tensor = self.language_model(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits
        return states


class PermutedLM(MaskedLM):
    """The same two, reading a text in a random order (XLNet, Yang et al. 2019; MPNet, Song et al. 2020)."""

    def __init__(self, embedder: Embedder, language_model: nn.Module, first_position: int) -> None:
        """`first_position` is the position id of a text's first token."""
        super().__init__(embedder, language_model)
        self.first_position = first_position

    def states(self, batch: Batch) -> Tensor:
        """The same [b, q, h] of those that the last q of `ids` [b, t + q] ask for, at `positions` [b, t + q], as `sight` allows."""
        positions, asked = batch["positions"], batch["targets"].shape[1]
        states: Tensor = self.language_model(
            input_ids=batch["ids"], position_ids=positions + self.first_position, attention_mask=self._masks(batch["sight"], positions)
        ).logits
        return states[:, -asked:]

    def _masks(self, sight: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
        """What attention adds to its scores, [b, 1, t + q, t + q]; where some layers look no further than a window, one for each kind."""
        facts = self.embedder.encoder.config
        if facts.model_type != "modernbert":
            return _bias(sight)
        near = (positions[:, :, None] - positions[:, None, :]).abs() <= facts.sliding_window
        return {"full_attention": _bias(sight), "sliding_attention": _bias(sight & near)}


def _bias(sight: Tensor) -> Tensor:
    """0 where a position sees another, else the lowest number."""
    return torch.zeros(sight.shape, device=sight.device).masked_fill(~sight, torch.finfo(torch.float32).min)[:, None]


def phase(config: Config, data: DataSet) -> Phase:
    """The phase as `config.dae` describes it, over all texts that are not for validation or test."""
    knobs, train = config.dae, data.split("train", "unlabelled")
    assert knobs.batch is not None
    batch = knobs.batch

    def model(previous: Path | None) -> nn.Module:
        embedder = pretrained.start(config.encoder, previous)
        return network(config, embedder.add("bottleneck") if knobs.objective == "denoising" else embedder)  # else nothing would train it

    def collate(split: Split, visits: Ints, step: Ints, epoch: int) -> Batch:
        return corrupted(config, data, split, visits, epoch) | {"total": target_count(config, data, split, step, epoch)}

    return Phase(
        name="dae",
        version=2,
        training=knobs,
        passes={"denoising": 2.0, "mlm": 1.5, "permutation": 1.5 * (1 + knobs.noise_ratio)}[knobs.objective],
        train=train,
        validation=data.split("validation"),
        model=model,
        groups=lambda model: parameter_groups(model, model.embedder.encoder, knobs),
        steps=lambda epoch: length_grouped(train.lengths, batch, config.seed, epoch),
        checks=lambda: by_length(data.split("validation").lengths, batch),
        collate=collate,
        loss=lambda model, batch: token_loss(model, batch) / batch["total"],
        statistics=statistics,
        score=score,
        rank=lambda scores: (-scores["loss"],),
        hand_over=lambda model: model.embedder,
    )


Network = Autoencoder | MaskedLM


def network(config: Config, embedder: Embedder) -> Network:
    """The network of the objective around `embedder`."""
    if config.dae.objective == "denoising":
        return Autoencoder(embedder, pretrained.decoder(config.encoder, embedder, config.dae.decoder, config.dae.decoder_layers))
    language_model = pretrained.masked_lm(config.encoder, embedder)
    if config.dae.objective == "mlm":
        return MaskedLM(embedder, language_model)
    facts = embedder.encoder.config
    return PermutedLM(embedder, language_model, packing.first_position(facts, facts.pad_token_id))


def corrupted(config: Config, data: DataSet, split: Split, visits: Ints, epoch: int) -> Batch:
    """Noisy texts and what is to be rebuilt: `ids`, `mask` [b, t] noisy; `targets` [b, s], -100 where nothing is.

    Denoising also gives `decoder_ids` [b, s], the clean tokens before the targets, and `decoder_mask`, where they are.
    Permutation: see `permuted`.
    """
    clean = split.padded(visits[:, 0])
    draws = noise.uniform((config.seed, epoch), visits, clean.tokens.shape[1])
    whole_words = config.dae.noise == "word_deletion"
    hit = noise.chosen(clean.words, draws, config.dae.noise_ratio, whole_words)
    wanted = clean.present & (visits[:, :1] >= 0)
    if config.dae.objective == "permutation":
        return permuted(clean.tokens, clean.present, noise.ranks(clean.words, draws, hit & wanted, whole_words), data.mask_id)
    if config.dae.objective == "mlm":
        choice = noise.uniform((config.seed, epoch, 1), visits, clean.tokens.shape[1])
        ids, targets = noise.masked_lm(clean.tokens, hit & wanted, choice, data.mask_id, len(data.tokenizer))
        return _as_tensors(ids=ids, mask=clean.present, targets=targets)
    if config.dae.noise == "masking":
        ids, present = noise.mask(clean.tokens, hit, data.mask_id), clean.present
    else:
        ids, present = noise.delete(clean.tokens, clean.present, hit, data.pad_id)
    targets = np.where(wanted, clean.tokens, noise.IGNORED)[:, 1:]
    return _as_tensors(ids=ids, mask=present, decoder_ids=clean.tokens[:, :-1], decoder_mask=clean.present[:, 1:], targets=targets)


def permuted(tokens: Ints, present: NDArray[np.bool_], ranks: Ints, mask_id: int) -> Batch:
    """Clean texts [b, t] followed by a mask token for each of the tokens that `ranks` hides, at most q in a text.

    `ids`, `positions` [b, t + q] and `sight` [b, t + q, t + q] of both; `targets` [b, q], -100 where a text hides fewer.
    """
    asked = noise.queries(ranks)
    places = np.maximum(asked, 0)
    targets = np.where(asked >= 0, np.take_along_axis(tokens, places, axis=1), noise.IGNORED)
    ids = np.concatenate([tokens, np.full_like(asked, mask_id)], axis=1)
    positions = np.concatenate([np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape), places], axis=1)
    return _as_tensors(ids=ids, positions=positions, sight=noise.sight(ranks, present, asked), targets=targets)


def target_count(config: Config, data: DataSet, split: Split, step: Ints, epoch: int) -> int:
    """How many tokens the whole step rebuilds: what its loss is divided by."""
    if config.dae.objective == "denoising":
        return int((split.lengths[step[:, 0]] - 1).sum())
    return max(1, int((corrupted(config, data, split, step, epoch)["targets"] != noise.IGNORED).sum()))


def token_loss(model: Network, batch: Batch) -> Tensor:
    """Sum of the tokens' cross-entropies."""
    guess: Guess = model(batch)
    return guess[0]


def statistics(model: Network, batch: Batch) -> Tensor:
    """Sum of cross-entropies, tokens rebuilt rightly, tokens."""
    loss, hits = model(batch)
    return torch.stack([loss.double(), hits.double(), (batch["targets"] != noise.IGNORED).sum().double()])


def score(counts: NDArray[np.float64]) -> dict[str, float]:
    """Loss per token and the share of tokens rebuilt rightly."""
    total, hits, tokens = (float(count) for count in counts)
    return {"loss": total / max(1.0, tokens), "token_accuracy": hits / max(1.0, tokens)}


def _as_tensors(**arrays: NDArray[np.generic]) -> Batch:
    """Arrays as tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
