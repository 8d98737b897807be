"""Imbalance correction by log-oversampling (Eq. 4-6): class sizes after it, and which rows are copied."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def ratios(sizes: Ints, min_ratio: float, max_ratio: float) -> NDArray[np.float64]:
    """How many times each class of `sizes` [k] grows (Eq. 4-5).

        f(n_k)  = log(n_max / n_k) * max_ratio / log(n_max)
        ratio_k = f(n_k) if f(n_k) >= min_ratio else 1

    The paper prints Eq. 5a as min(min_ratio, f), which would shrink every class; its text ("lower bound") and the authors'
    code do what stands here. No class is resized where n_max is 1, and an empty class stays empty.
    """
    result = np.ones(len(sizes))
    largest = int(sizes.max())
    if largest <= 1:
        return result
    filled = sizes > 0
    grown = np.log(largest / sizes[filled]) * max_ratio / np.log(largest)
    result[filled] = np.where(grown >= min_ratio, grown, 1.0)
    return result


def corrected_sizes(sizes: Ints, min_ratio: float, max_ratio: float) -> Ints:
    """Class sizes after the correction (Eq. 6): round(ratio_k * n_k), never below n_k."""
    grown = np.rint(ratios(sizes, min_ratio, max_ratio) * sizes).astype(np.int64)
    return np.maximum(grown, sizes)


def oversample(rows: Ints, size: int, rng: np.random.Generator) -> Ints:
    """The `size` visits of one class in an epoch, shuffled, as pairs (row, copy) [size, 2].

    Copy 0 is the text itself; copies are spread evenly over the class's rows, so each row has as many as any other, or one more.
    """
    laps = -(-size // len(rows))
    visits = np.concatenate([np.column_stack([rng.permutation(rows), np.full(len(rows), lap)]) for lap in range(laps)])
    return rng.permutation(visits[:size])
