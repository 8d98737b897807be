"""Bytes that a worker needs by ZeRO stage, and the lowest stage that fits."""

from dataclasses import dataclass

STAGES = (0, 1, 2, 3)


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
    """Float32 activations of one forward pass, roughly (Korthikanti et al. 2022, without recomputation), and the logits thrice."""
    layer = size.tokens * (68 * size.hidden + 10 * size.heads * size.length)
    return size.layers * layer + 12 * size.tokens * size.vocabulary


def needed(stage: int, size: Size, workers: int) -> int:
    """Bytes of one worker in all, roughly."""
    return state_bytes(stage, size.parameters, workers) + activation_bytes(size)


def lowest_stage(size: Size, workers: int, available: int) -> tuple[int, str]:
    """The lowest stage that fits into `available` bytes, at least 1 with several workers, and why."""
    first = 0 if workers == 1 else 1
    for stage in STAGES[first:]:
        if needed(stage, size, workers) <= available:
            reason = "one worker has nobody to share with" if workers == 1 else f"the lowest from {first} that fits"
            return stage, f"{reason}: {gigabytes(needed(stage, size, workers))} of {gigabytes(available)}"
        if workers == 1:
            break
    last = first if workers == 1 else 3
    return last, f"even stage {last} needs {gigabytes(needed(last, size, workers))} of {gigabytes(available)}: it may not fit"


def gigabytes(count: float) -> str:
    """Bytes as gigabytes for people."""
    return f"{count / 1e9:.2f} GB"
