"""Which rows a step reads: length-grouped batches, class-balanced batches, unique balanced pairs.

Every sampler is a pure function of its arguments, seeded by (seed, epoch), and the same on every worker, so a resume at any
step is exact. A visit is a pair (row, copy); a step is an array of visits [b, 2].
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from threephase_ray.imbalance import corrected_sizes, oversample

Ints = NDArray[np.int64]
PADDING = np.array([[-1, 0]])  # a visit that fills up a worker's share and counts nowhere


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on all of `key`."""
    return np.random.default_rng([int(part) for part in key])


def first_visits(rows: Ints) -> Ints:
    """Rows as visits of the texts themselves."""
    return np.column_stack([rows, np.zeros_like(rows)])


def in_order(rows: int | Ints, batch: int) -> list[Ints]:
    """`rows`, or 0 ... `rows` - 1, in order, at most `batch` a step: for validation and test."""
    visits = first_visits(np.arange(rows) if isinstance(rows, int) else rows)
    return [visits[start : start + batch] for start in range(0, len(visits), batch)]


def by_length(lengths: Ints, batch: int) -> list[Ints]:
    """All rows from the shortest to the longest, at most `batch` a step: for validation, where the order says nothing."""
    return in_order(np.argsort(lengths, kind="stable"), batch)


def length_grouped(lengths: Ints, batch: int, seed: int, epoch: int, window: int = 32) -> list[Ints]:
    """Shuffle, sort by length inside windows of `window` batches, shuffle the batches: little padding, random order.

    Steps hold nearly equally many rows and never more than `batch`, so that none is a small remainder.
    """
    rng = generator(seed, epoch)
    order = rng.permutation(len(lengths))
    steps: list[Ints] = []
    for part in np.array_split(order, max(1, round(len(order) / (batch * window)))):
        part = part[np.argsort(lengths[part], kind="stable")]
        steps += np.array_split(first_visits(part), -(-len(part) // batch))
    return [steps[i] for i in rng.permutation(len(steps))]


def corrected_visits(labels: Ints, min_ratio: float, max_ratio: float, rng: np.random.Generator) -> list[Ints]:
    """The visits of each class in an epoch after the imbalance correction, shuffled, classes without rows left out."""
    sizes = np.bincount(labels)
    targets = corrected_sizes(sizes, min_ratio, max_ratio)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    return [oversample(rows, int(size), rng) for rows, size in zip(by_class, targets, strict=True) if len(rows)]


def class_balanced(classes: list[Ints], batch: int, group: int, uniform: bool, rng: np.random.Generator) -> list[Ints]:
    """Steps made of groups of `group` visits of one class each, so that every text meets others of its class.

    `uniform`: classes follow each other in random rounds and so are drawn alike; else each class appears as often as its size
    says and every visit is read once. A class that runs out starts again, its visits then counting as further copies.
    """
    slots = max(1, batch // group)
    total = sum(len(visits) for visits in classes)
    steps = max(1, round(total / (slots * group)))
    if uniform:
        rounds = [rng.permutation(len(classes)) for _ in range(-(-steps * slots // len(classes)))]
        order = np.concatenate(rounds)[: steps * slots]
    else:
        order = rng.permutation(np.repeat(np.arange(len(classes)), [-(-len(visits) // group) for visits in classes]))
    groups = np.empty((len(order), group, 2), dtype=np.int64)
    wanted = np.bincount(order, minlength=len(classes))
    for visits, places in zip(classes, np.split(np.argsort(order, kind="stable"), np.cumsum(wanted)[:-1]), strict=True):
        groups[places] = _repeated(visits, len(places) * group).reshape(-1, group, 2)
    return [part.reshape(-1, 2) for part in np.array_split(groups, max(1, -(-len(groups) // slots)))]


def _repeated(visits: Ints, count: int) -> Ints:
    """The first `count` of the visits again and again; each further round raises the copy number above all before it."""
    lap, place = np.divmod(np.arange(count), len(visits))
    repeated: Ints = visits[place] + np.column_stack([np.zeros_like(lap), lap * (visits[:, 1].max() + 1)])
    return repeated


def balanced_pairs(classes: list[Ints], count: int, rng: np.random.Generator) -> Ints:
    """About `count` unique pairs of visits [p, 2, 2], half of one class and half of two, shuffled; no text meets itself.

    Fewer where so many unique pairs do not exist; positives and negatives stay equal in number.
    """
    visits = np.concatenate(classes)
    owner = np.repeat(np.arange(len(classes)), [len(members) for members in classes])
    start = np.cumsum([0, *(len(members) for members in classes)])
    positive = _unique_pairs(visits, rng, count // 2, lambda a: rng.integers(start[owner[a]], start[owner[a] + 1]))
    negative = _unique_pairs(visits, rng, count // 2, lambda a: _elsewhere(a, owner, start, rng))
    half = min(len(positive), len(negative))
    return rng.permutation(visits[np.concatenate([positive[:half], negative[:half]])])


def _unique_pairs(visits: Ints, rng: np.random.Generator, count: int, partner: Callable[[Ints], Ints]) -> Ints:
    """Draw anchors and their partners until `count` different pairs of different texts are found, or 16 rounds went by."""
    found = np.empty((0, 2), dtype=np.int64)
    for _ in range(16):
        anchors = rng.integers(len(visits), size=2 * count)
        pairs = np.sort(np.column_stack([anchors, partner(anchors)]), axis=1)
        pairs = pairs[visits[pairs[:, 0], 0] != visits[pairs[:, 1], 0]]
        found = np.unique(np.concatenate([found, pairs]), axis=0)
        if len(found) >= count:
            break
    return rng.permutation(found)[:count]


def _elsewhere(anchors: Ints, owner: Ints, start: Ints, rng: np.random.Generator) -> Ints:
    """A partner outside each anchor's class, uniformly: skip over the class's own block."""
    own_start, own_size = start[owner[anchors]], start[owner[anchors] + 1] - start[owner[anchors]]
    draw = rng.integers(0, len(owner) - own_size)
    return np.where(draw >= own_start, draw + own_size, draw)


def share(step: Ints, rank: int, world: int, micro: int, unit: int = 1) -> list[Ints]:
    """This worker's part of a step, in micro-batches of at most `micro` visits; all workers get equally many and equally large ones.

    Visits are dealt in blocks of `unit` (2 keeps pairs together) and filled up with padding visits (row -1).
    """
    blocks = -(-len(step) // (unit * world))
    missing = blocks * unit * world - len(step)
    own = np.concatenate([step, np.repeat(PADDING, missing, axis=0)])[rank * blocks * unit : (rank + 1) * blocks * unit]
    size = max(unit, micro // unit * unit)
    return [own[start : start + size] for start in range(0, len(own), size)]
