"""Phase 1: a denoising autoencoder (TSDAE) or masked language modelling adapts the encoder to the texts, without labels."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray import losses, noise, pretrained
from threephase_ray.config import Config
from threephase_ray.loader import DataSet, Split
from threephase_ray.models import Embedder
from threephase_ray.phases.spec import Batch, Ints, Phase, parameter_groups
from threephase_ray.sampling import in_order, length_grouped


class Autoencoder(nn.Module):
    """Embedder with bottleneck, and the decoder that rebuilds a text from the embedding of its noisy version."""

    def __init__(self, embedder: Embedder, decoder: nn.Module) -> None:
        """`decoder` takes (memory [b, h], ids [b, t]) and gives logits [b, t, v]."""
        super().__init__()
        self.embedder, self.decoder = embedder, decoder

    def forward(self, batch: Batch) -> Tensor:
        """Logits [b, t, v] of the tokens after each of `decoder_ids`."""
        logits: Tensor = self.decoder(self.embedder(batch["ids"], batch["mask"]), batch["decoder_ids"])
        return logits


class MaskedLM(nn.Module):
    """Embedder, and the checkpoint's masked-language-model class around the same encoder."""

    def __init__(self, embedder: Embedder, language_model: nn.Module) -> None:
        """The two share the encoder."""
        super().__init__()
        self.embedder, self.language_model = embedder, language_model

    def forward(self, batch: Batch) -> Tensor:
        """Logits [b, t, v] of the tokens at each of `ids`."""
        logits: Tensor = self.language_model(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits
        return logits


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
        version=1,
        training=knobs,
        passes=2.0 if knobs.objective == "denoising" else 1.5,
        train=train,
        validation=data.split("validation"),
        model=model,
        groups=lambda model: parameter_groups(model, model.embedder.encoder, knobs),
        steps=lambda epoch: length_grouped(train.lengths, batch, config.seed, epoch),
        checks=lambda: in_order(len(data.split("validation")), batch),
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
    if config.dae.objective == "mlm":
        return MaskedLM(embedder, pretrained.masked_lm(config.encoder, embedder))
    return Autoencoder(embedder, pretrained.decoder(config.encoder, embedder, config.dae.decoder, config.dae.decoder_layers))


def corrupted(config: Config, data: DataSet, split: Split, visits: Ints, epoch: int) -> Batch:
    """Noisy texts and what is to be rebuilt: `ids`, `mask` [b, t] noisy; `targets` [b, s], -100 where nothing is.

    Denoising also gives `decoder_ids` [b, s], the clean tokens before the targets.
    """
    clean = split.padded(visits[:, 0])
    draws = noise.uniform((config.seed, epoch), visits, clean.tokens.shape[1])
    hit = noise.chosen(clean.words, draws, config.dae.noise_ratio, whole_words=config.dae.noise == "word_deletion")
    wanted = clean.present & (visits[:, :1] >= 0)
    mask_id = int(data.tokenizer.mask_token_id)
    if config.dae.objective == "mlm":
        choice = noise.uniform((config.seed, epoch, 1), visits, clean.tokens.shape[1])
        ids, targets = noise.masked_lm(clean.tokens, hit & wanted, choice, mask_id, len(data.tokenizer))
        return _as_tensors(ids=ids, mask=clean.present, targets=targets)
    if config.dae.noise == "masking":
        ids, present = noise.mask(clean.tokens, hit, mask_id), clean.present
    else:
        ids, present = noise.delete(clean.tokens, clean.present, hit, int(data.tokenizer.pad_token_id))
    targets = np.where(wanted, clean.tokens, noise.IGNORED)[:, 1:]
    return _as_tensors(ids=ids, mask=present, decoder_ids=clean.tokens[:, :-1], targets=targets)


def target_count(config: Config, data: DataSet, split: Split, step: Ints, epoch: int) -> int:
    """How many tokens the whole step rebuilds: what its loss is divided by."""
    if config.dae.objective == "denoising":
        return int((split.lengths[step[:, 0]] - 1).sum())
    return max(1, int((corrupted(config, data, split, step, epoch)["targets"] != noise.IGNORED).sum()))


def token_loss(model: Network, batch: Batch) -> Tensor:
    """Sum of the tokens' cross-entropies."""
    return losses.reconstruction(model(batch), batch["targets"])


def statistics(model: Network, batch: Batch) -> Tensor:
    """Sum of cross-entropies, tokens rebuilt rightly, tokens."""
    logits, targets = model(batch), batch["targets"]
    hits = ((logits.argmax(dim=-1) == targets) & (targets != noise.IGNORED)).sum()
    count = (targets != noise.IGNORED).sum()
    return torch.stack([losses.reconstruction(logits, targets).double(), hits.double(), count.double()])


def score(counts: NDArray[np.float64]) -> dict[str, float]:
    """Loss per token and the share of tokens rebuilt rightly."""
    total, hits, tokens = (float(count) for count in counts)
    return {"loss": total / max(1.0, tokens), "token_accuracy": hits / max(1.0, tokens)}


def _as_tensors(**arrays: NDArray[np.generic]) -> Batch:
    """Arrays as tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
