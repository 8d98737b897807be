"""Floating-point operations that the real tokens of a training step need, of an encoder such as BERT or RoBERTa."""

from typing import Any

from threephase_ray.phases.spec import Batch


def work(config: Any, batch: Batch) -> tuple[float, int]:
    """Floating-point operations of a training step that its real tokens need, three times those of forward, and these tokens.

    Two for each weight of a linear map that a token passes, four for each pair of tokens and channel in attention, half of that where
    tokens see only those before. Embeddings, norms and activations are not counted; nor is what padding costs, or anything repeated.
    """
    h, layers = int(config.hidden_size), int(config.num_hidden_layers)
    noisy = batch.get("noisy", batch)
    lengths = noisy["mask"].sum(dim=1).double()
    tokens = float(lengths.sum())
    forward = layers * (2 * 12 * h * h * tokens + 4 * h * float(lengths.square().sum()))
    if "decoder_mask" in noisy:
        clean = noisy["decoder_mask"].sum(dim=1).double()
        more = float(clean.sum())
        forward += layers * (2 * 13 * h * h * more + 2 * h * float(clean.square().sum()) + 2 * h * h * len(clean))
        forward += 2 * more * (h * h + h * int(config.vocab_size))
        tokens += more
    return 3 * forward, int(tokens)
