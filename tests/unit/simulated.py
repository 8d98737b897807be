"""Studies whose truth is known: which rows each seed of an arm gets right."""

from collections.abc import Iterator

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

HIT, CLASSES = 0, 2  # every row is of class 0, so that a hit is a 0


def arms(
    rng: np.random.Generator, seeds: int, rows: int, accuracy: float, spread: float, gain: float = 0.0, alike: float = 0.6
) -> list[np.ndarray]:
    """Predictions [seeds, rows] of two arms, of which the second is right with chance accuracy + gain, the first with accuracy.

    Both share each row's difficulty (the part `alike` of the latent variance), half of the seed's effect, whose standard
    deviation is about `spread` in accuracy, and a little of what a seed does to a row; 15 % are a row's difficulty for an arm.
    """
    effect = spread / norm.pdf(ndtri(accuracy))
    common = np.sqrt(alike) * normal(rng, 1, rows) + np.sqrt(0.05) * normal(rng, seeds, rows)
    subset, drawn = normal(rng, seeds, 1), []
    for chance in (accuracy, accuracy + gain):
        own = np.sqrt(0.15) * normal(rng, 1, rows) + np.sqrt(0.8 - alike) * normal(rng, seeds, rows)
        seed = effect * np.sqrt(0.5) * (subset + normal(rng, seeds, 1))
        drawn.append(1 - (common + own + seed < ndtri(chance) * np.sqrt(1 + effect**2)).astype(np.int64))
    return drawn


def runs(rng: np.random.Generator, seeds: int, rows: int, accuracy: float, spread: float, alike: float = 0.6) -> np.ndarray:
    """Predictions [seeds, rows] of one arm; a seed's accuracy is drawn from the beta distribution with this mean and deviation."""
    return 1 - hits(rng, chances(rng, accuracy, spread, seeds), rows, alike).astype(np.int64)


def chances(rng: np.random.Generator, accuracy: float, spread: float, size: int) -> np.ndarray:
    """The accuracies [size] of seeds on endless test rows."""
    if not spread:
        return np.full(size, accuracy)
    worth = accuracy * (1 - accuracy) / spread**2 - 1
    return rng.beta(accuracy * worth, (1 - accuracy) * worth, size)


def hits(rng: np.random.Generator, chance: np.ndarray, rows: int, alike: float = 0.6) -> np.ndarray:
    """Which rows seeds of these accuracies [n] get right, [n, rows]; `alike`: the row's part of the latent variance."""
    difficulty = np.sqrt(alike) * normal(rng, 1, rows) + np.sqrt(1 - alike) * normal(rng, len(chance), rows)
    return difficulty < ndtri(chance)[:, None]


def texts(
    rng: np.random.Generator, shares: np.ndarray, seeds: int, rows: int, accuracy: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [rows] drawn by the classes' shares [k], and predictions [seeds, rows]; what is wrong goes to the row's other class."""
    labels = rng.choice(len(shares), size=rows, p=shares)
    others = np.argmax(np.log(shares) + rng.gumbel(size=(rows, len(shares))) - 1e9 * np.eye(len(shares))[labels], axis=1)
    return labels, np.where(hits(rng, chances(rng, accuracy, spread, seeds), rows), labels, others)


def expected_confusion(shares: np.ndarray, accuracy: float) -> np.ndarray:
    """The confusion [k, k] that `texts` has with endless rows at this accuracy of a seed."""
    wrong = np.outer(shares / (1 - shares), shares) * (1 - accuracy)
    np.fill_diagonal(wrong, shares * accuracy)
    return wrong


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal numbers of this shape."""
    return rng.standard_normal(shape, dtype=np.float32)


def streams(seed: int, count: int) -> Iterator[np.random.Generator]:
    """Independent sources of chance."""
    return map(np.random.default_rng, np.random.SeedSequence(seed).spawn(count))
