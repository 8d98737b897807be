"""Corrupt token sequences: delete words or tokens, mask tokens, or hide them in a random order.

All noise is a pure function of (seed, epoch, visit, position): fresh at every visit, yet the same after a resume and with
any number of workers. Arrays are numpy, `n` sequences of at most `t` tokens; `words` holds 0 where a token continues a
word, 1 where it starts one and 2 where it is special (or padding) and never touched.
"""

from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_GOLDEN, _MIX1, _MIX2 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
CONTINUES, STARTS, SPECIAL = 0, 1, 2
IGNORED = -100  # a target that counts in no loss


def uniform(key: tuple[int, ...], visits: Ints, length: int) -> Floats:
    """Uniform numbers in [0, 1), shape [n, length], for visits [n, columns]: a counter-based generator (SplitMix64)."""
    state = _keyed(key)
    for column in visits.T:
        state = _mixed(state, column)
    bits = _mix(state + _GOLDEN * np.arange(1, length + 1, dtype=np.uint64))
    return (bits >> np.uint64(11)) / 2.0**53


@lru_cache
def _keyed(key: tuple[int, ...]) -> NDArray[np.uint64]:
    """The generator's state [1, 1] after a key."""
    return reduce(_mixed, key, np.zeros((1, 1), dtype=np.uint64))


def _mixed(state: NDArray[np.uint64], part: Ints | int) -> NDArray[np.uint64]:
    """The state [n, 1] after a further part of the key, one number or one for each row."""
    return _mix(state ^ np.asarray(part, dtype=np.int64).astype(np.uint64).reshape(-1, 1))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014)."""
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


def word_starts(words: NDArray[np.uint8]) -> Ints:
    """For each token the position where its word starts, shape [n, t]; a special token is a word of its own."""
    positions = np.arange(words.shape[1], dtype=np.int64)
    return np.maximum.accumulate(np.where(words == CONTINUES, 0, positions), axis=1)


def chosen(words: NDArray[np.uint8], draws: Floats, ratio: float, whole_words: bool) -> Bools:
    """Tokens that the noise hits, [n, t]: each word (or token) with probability `ratio`, but never all of a text."""
    if whole_words:
        draws = np.take_along_axis(draws, word_starts(words), axis=1)
    ordinary = words != SPECIAL
    hit = ordinary & (draws < ratio)
    spared = np.where(ordinary, draws, -1.0).max(axis=1, keepdims=True)
    all_hit = (hit == ordinary).all(axis=1, keepdims=True)
    chosen_tokens: Bools = hit & ~(all_hit & (draws == spared))
    return chosen_tokens


def delete(tokens: Ints, present: Bools, hit: Bools, pad: int) -> tuple[Ints, Bools]:
    """Remove the tokens that were hit and close the gaps: tokens [n, s] and presence [n, s], s the longest that is left."""
    kept = present & ~hit
    counts = kept.sum(axis=1)
    left = np.arange(counts.max()) < counts[:, None]
    closed = np.full(left.shape, pad, dtype=tokens.dtype)
    closed[left] = tokens[kept]
    return closed, left


def mask(tokens: Ints, hit: Bools, mask_id: int) -> Ints:
    """Replace the tokens that were hit by the mask token."""
    return np.where(hit, mask_id, tokens)


def masked_lm(tokens: Ints, hit: Bools, draws: Floats, mask_id: int, vocabulary: int) -> tuple[Ints, Ints]:
    """BERT's corruption (Devlin et al. 2019): of the hit tokens 80 % masked, 10 % random, 10 % kept; inputs and targets."""
    random_ids = (draws * 1e6 % 1.0 * vocabulary).astype(np.int64)
    inputs = np.where(hit & (draws < 0.8), mask_id, np.where(hit & (draws < 0.9), random_ids, tokens))
    return inputs, np.where(hit, tokens, IGNORED)


def ranks(words: NDArray[np.uint8], draws: Floats, hit: Bools, whole_words: bool) -> Ints:
    """Places of the hit tokens in a random order, [n, t]: 1, 2, ... by falling draw, a whole word's tokens from left to right; else 0.

    `hit` holds the tokens with the lowest draws (see `chosen`), so in the order of all tokens they come last.
    """
    if whole_words:
        draws = np.take_along_axis(draws, word_starts(words), axis=1)
    order = np.argsort(np.where(hit, -draws, 1.0), axis=1, kind="stable")
    return np.where(hit, np.argsort(order, axis=1) + 1, 0)


def queries(places: Ints) -> Ints:
    """Positions of the tokens with place 1, 2, ... of `ranks`, [n, q], q the most that a text has, at least 1; -1 where there are fewer."""
    most = max(1, int(places.max()))
    order = np.argsort(np.where(places > 0, places, places.shape[1] + 1), axis=1, kind="stable")[:, :most]
    return np.where(np.take_along_axis(places, order, axis=1) > 0, order, -1)


def sight(places: Ints, present: Bools, asked: Ints) -> Bools:
    """Which position (second axis) sees which (third), [n, t + q, t + q], of the tokens [n, t] followed by the queries [n, q].

    A token sees those of no later place, a query those of an earlier place than its own, and every position itself. So nothing
    that a query hears of, over however many layers, knows the token that it asks for, or one after it (XLNet's two streams, Yang
    et al. 2019, in one pass).
    """
    own = np.where(asked >= 0, np.take_along_axis(places, np.maximum(asked, 0), axis=1), 0)
    seen = np.concatenate([places[:, None, :] <= places[:, :, None], places[:, None, :] < own[:, :, None]], axis=1) & present[:, None, :]
    whole: Bools = np.concatenate([seen, np.zeros((*seen.shape[:2], own.shape[1]), dtype=np.bool_)], axis=2)
    return whole | np.eye(whole.shape[1], dtype=np.bool_)
