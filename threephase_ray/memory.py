"""Bytes that a worker needs by ZeRO stage, and the lowest stage that fits."""

from dataclasses import dataclass

STAGES = (0, 1, 2, 3)
USABLE = 0.9  # share of a worker's memory that is planned with: libraries and gaps between tensors take the rest
LOGITS = 2**26  # that a language model's loss holds at a time, of as many tokens as they suffice for


@dataclass(frozen=True)
class Size:
    """What decides a phase's memory: parameters, and the shape of one forward pass."""

    parameters: int
    layers: int
    hidden: int
    heads: int
    tokens: int  # of one micro-batch
    length: int  # of its longest text
    vocabulary: int  # tokens that logits are computed over, 0 where there is no language model


def state_bytes(stage: int, parameters: int, workers: int) -> int:
    """Float32 parameters, gradients and AdamW's two moments of one worker (Rajbhandari et al. 2020, ZeRO)."""
    shares = [4 / (workers if stage >= 3 else 1), 4 / (workers if stage >= 2 else 1), 8 / (workers if stage >= 1 else 1)]
    return round(parameters * sum(shares))


def activation_bytes(size: Size) -> int:
    """Float32 activations of one forward pass, roughly (Korthikanti et al. 2022, without recomputation), and thrice the logits held."""
    layer = size.tokens * (68 * size.hidden + 10 * size.heads * size.length)
    at_once = min(size.tokens, tokens_at_once(size.vocabulary)) if size.vocabulary else 0
    return size.layers * layer + 12 * at_once * size.vocabulary


def tokens_at_once(vocabulary: int) -> int:
    """Tokens whose logits over a vocabulary are held at a time."""
    return max(1, LOGITS // vocabulary)


def needed(stage: int, size: Size, workers: int) -> int:
    """Bytes of one worker in all, roughly."""
    return state_bytes(stage, size.parameters, workers) + activation_bytes(size)


def lowest_stage(size: Size, workers: int, available: int) -> tuple[int, str]:
    """The lowest stage that fits into the usable part of `available` bytes, and why: each one higher costs more time."""
    stages, reason = (STAGES[:1], "one worker has nobody to share with") if workers == 1 else (STAGES, "the lowest that fits")
    for stage in stages:
        if needed(stage, size, workers) <= USABLE * available:
            return stage, f"{reason}: {gigabytes(needed(stage, size, workers))} of {gigabytes(available)}"
    last = stages[-1]
    return last, f"even stage {last} needs {gigabytes(needed(last, size, workers))} of {gigabytes(available)}: it may not fit"


def gigabytes(count: float) -> str:
    """Bytes as gigabytes for people."""
    return f"{count / 1e9:.2f} GB"
