import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from threephase_ray import sampling
from threephase_ray.imbalance import corrected_sizes

Ints = NDArray[np.int64]


def skewed(seed: int, rows: int = 300, classes: int = 6) -> Ints:
    """Labels of classes of very different sizes, each with a row at least."""
    rng = np.random.default_rng(seed)
    return rng.permutation(
        np.concatenate([np.arange(classes), rng.choice(classes, rows - classes, p=rng.dirichlet(np.full(classes, 0.5)))])
    )


def same(one: list[Ints], other: list[Ints]) -> bool:
    """Whether two epochs are equal."""
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("rows", "batch"), [(1, 8), (7, 8), (8, 8), (9, 8), (1000, 16), (3333, 7), (3073, 64), (500, 1)])
def test_length_grouped_reads_every_row_once_in_even_steps(rows: int, batch: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, rows)
    for epoch in range(3):
        steps = sampling.length_grouped(lengths, batch, 5, epoch)
        visits = np.concatenate(steps)
        assert sorted(visits[:, 0]) == list(range(rows))
        assert not visits[:, 1].any()
        sizes = [len(step) for step in steps]
        assert max(sizes) <= batch
        assert min(sizes) >= 0.9 * max(sizes) - 1
        assert len(steps) <= 1.1 * rows / batch + 1


def test_length_grouped_saves_padding_and_is_a_pure_function() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 2000)
    steps = sampling.length_grouped(lengths, 20, 1, 4)
    assert same(steps, sampling.length_grouped(lengths, 20, 1, 4))
    assert not same(steps, sampling.length_grouped(lengths, 20, 1, 5))
    assert not same(steps, sampling.length_grouped(lengths, 20, 2, 4))
    real = sum(lengths[step[:, 0]].sum() for step in steps) / sum(lengths[step[:, 0]].max() * len(step) for step in steps)
    assert real > 0.9
    means = [lengths[step[:, 0]].mean() for step in steps]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.35  # short and long batches are mixed


def test_in_order_reads_all_rows_in_order() -> None:
    steps = sampling.in_order(10, 4)
    assert [step[:, 0].tolist() for step in steps] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert sampling.in_order(0, 4) == []


def test_corrected_visits_have_the_corrected_sizes() -> None:
    labels = skewed(0)
    classes = sampling.corrected_visits(labels, 1.5, 4.0, sampling.generator(0, 0))
    assert [len(visits) for visits in classes] == corrected_sizes(np.bincount(labels), 1.5, 4.0).tolist()
    for number, visits in enumerate(classes):
        assert set(labels[visits[:, 0]]) == {number}
        assert set(visits[visits[:, 1] == 0][:, 0]) == set(np.flatnonzero(labels == number))
        assert len(np.unique(visits, axis=0)) == len(visits)
    gaps = sampling.corrected_visits(np.array([0, 0, 5]), 1.0, 1.0, sampling.generator(0))
    assert [len(visits) for visits in gaps] == [2, 1]


def balanced(labels: Ints, batch: int, group: int, uniform: bool, epoch: int) -> tuple[list[Ints], list[Ints]]:
    """The classes' visits and the steps of an epoch."""
    rng = sampling.generator(9, epoch)
    classes = sampling.corrected_visits(labels, 1.5, 4.0, rng)
    return classes, sampling.class_balanced(classes, batch, group, uniform, rng)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(("batch", "group"), [(48, 4), (12, 2), (8, 4), (10, 3)])
def test_groups_are_of_one_class_and_steps_are_even(batch: int, group: int, uniform: bool) -> None:
    for seed in range(5):
        labels = skewed(seed)
        classes, steps = balanced(labels, batch, group, uniform, epoch=seed)
        for step in steps:
            assert len(step) <= batch
            assert len(step) % group == 0
            groups = labels[step[:, 0]].reshape(-1, group)
            assert (groups == groups[:, :1]).all()
        sizes = [len(step) for step in steps]
        assert max(sizes) - min(sizes) <= group
        visits = np.concatenate(steps)
        assert len(np.unique(visits, axis=0)) == len(visits)  # a text comes again only as another copy
        assert len(visits) == pytest.approx(sum(len(members) for members in classes), abs=max(batch, group * len(classes)))


def test_uniform_sampling_draws_classes_alike() -> None:
    labels = skewed(1)
    _, steps = balanced(labels, 24, 4, True, epoch=0)
    drawn = Counter(labels[np.concatenate(steps)[:, 0]])
    assert len(drawn) == 6
    assert max(drawn.values()) - min(drawn.values()) <= 4


def test_corrected_sampling_reads_every_visit_and_few_twice() -> None:
    for seed in range(5):
        labels = skewed(seed)
        classes, steps = balanced(labels, 24, 4, False, epoch=seed)
        read = {tuple(visit) for visit in np.concatenate(steps)}
        due = {tuple(visit) for members in classes for visit in members}
        assert due <= read
        assert len(read) - len(due) < 4 * len(classes)  # what fills up the last group of a class


def test_class_balanced_is_a_pure_function_of_seed_and_epoch() -> None:
    labels = skewed(2)
    for uniform in (True, False):
        assert same(balanced(labels, 24, 4, uniform, 3)[1], balanced(labels, 24, 4, uniform, 3)[1])
        assert not same(balanced(labels, 24, 4, uniform, 3)[1], balanced(labels, 24, 4, uniform, 4)[1])


@pytest.mark.parametrize("uniform", [True, False])
def test_a_class_that_runs_out_starts_again_with_further_copies(uniform: bool) -> None:
    """The groups of a class are its visits in order, and again with higher copy numbers, as a loop over them says."""
    for seed in range(5):
        labels = skewed(seed)
        classes, steps = balanced(labels, 24, 4, uniform, epoch=seed)
        read = np.concatenate(steps)
        for visits in classes:
            own = read[labels[read[:, 0]] == labels[visits[0, 0]]]
            copies = visits[:, 1].max() + 1
            looped = itertools.islice(itertools.cycle(visits), len(own))
            assert own.tolist() == [[row, copy + i // len(visits) * copies] for i, (row, copy) in enumerate(looped)]


def test_one_class_alone_can_be_sampled() -> None:
    _, steps = balanced(np.zeros(10, dtype=np.int64), 8, 4, True, 0)
    assert all(len(step) for step in steps)


def test_pairs_are_unique_balanced_and_of_different_texts() -> None:
    for seed in range(10):
        labels, rng = skewed(seed, rows=120), sampling.generator(seed, 0)
        classes = sampling.corrected_visits(labels, 1.5, 4.0, rng)
        count = sum(len(visits) for visits in classes)
        pairs = sampling.balanced_pairs(classes, count, rng)
        assert pairs.shape[1:] == (2, 2)
        assert (pairs[:, 0, 0] != pairs[:, 1, 0]).all()
        keys = {frozenset((tuple(a), tuple(b))) for a, b in pairs.tolist()}
        assert len(keys) == len(pairs)
        alike = labels[pairs[:, 0, 0]] == labels[pairs[:, 1, 0]]
        assert alike.sum() == len(pairs) // 2 == count // 2
        assert {tuple(visit) for pair in pairs.tolist() for visit in pair} <= {tuple(v) for c in classes for v in c.tolist()}


def test_pairs_run_out_where_there_are_few_texts() -> None:
    """Classes of 3, 2 and 1 texts have 3 + 1 positive pairs at most."""
    classes = [sampling.first_visits(np.array(rows)) for rows in ([0, 1, 2], [3, 4], [5])]
    pairs = sampling.balanced_pairs(classes, 100, sampling.generator(0))
    assert len(pairs) == 8
    owner = np.array([0, 0, 0, 1, 1, 2])
    assert (owner[pairs[:, 0, 0]] == owner[pairs[:, 1, 0]]).sum() == 4


def test_anchors_are_drawn_from_all_visits_alike() -> None:
    classes = [sampling.first_visits(np.arange(0, 400)), sampling.first_visits(np.arange(400, 500))]
    pairs = sampling.balanced_pairs(classes, 2000, sampling.generator(1))
    positive = (pairs[:, 0, 0] < 400) == (pairs[:, 1, 0] < 400)
    assert (pairs[positive][:, 0, 0] < 400).mean() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("micro", [1, 2, 5, 64])
@pytest.mark.parametrize("unit", [1, 2])
def test_shares_cover_a_step_once_and_are_equal_on_all_ranks(world: int, micro: int, unit: int) -> None:
    for size in range(unit, 24, unit):
        step = np.column_stack([np.arange(100, 100 + size), np.zeros(size, dtype=np.int64)])
        shares = [sampling.share(step, rank, world, micro, unit) for rank in range(world)]
        assert len({tuple(len(part) for part in parts) for parts in shares}) == 1
        assert all(0 < len(part) <= max(micro, unit) and len(part) % unit == 0 for parts in shares for part in parts)
        visits = np.concatenate([part for parts in shares for part in parts])
        real = visits[visits[:, 0] >= 0]
        assert real[:, 0].tolist() == step[:, 0].tolist()  # each once, in order, neighbours of a pair together
        assert len(visits) - len(real) < unit * world
        assert (visits[visits[:, 0] < 0] == sampling.PADDING).all()
        if unit == 2:
            for parts in shares:
                for part in parts:
                    assert all((a < 0) == (b < 0) and (a < 0 or (a % 2 == 0 and b == a + 1)) for a, b in part[:, 0].reshape(-1, 2))


def test_pairs_need_a_class_with_two_texts() -> None:
    alone = [sampling.first_visits(np.array([row])) for row in range(4)]
    assert sampling.balanced_pairs(alone, 10, sampling.generator(0)).shape == (0, 2, 2)
