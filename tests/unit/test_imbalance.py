import math

import numpy as np
import pytest

from threephase_ray.imbalance import corrected_sizes, oversample, ratios


def test_worked_values() -> None:
    """By hand, with n_max = 1000 and max_ratio = 4: f(n) = 4 * log(1000 / n) / log(1000) = 4 * (3 - log10(n)) / 3."""
    sizes = np.array([1000, 400, 300, 100, 10, 1])
    # f: 0, 0.5306, 0.6972, 1.3333 (below 1.5: stays 1), 2.6667, 4
    assert corrected_sizes(sizes, 1.5, 4.0).tolist() == [1000, 400, 300, 100, 27, 4]
    np.testing.assert_allclose(ratios(sizes, 1.5, 4.0), [1, 1, 1, 1, 8 / 3, 4])
    np.testing.assert_allclose(ratios(sizes, 1.0, 4.0), [1, 1, 1, 4 / 3, 8 / 3, 4])
    assert corrected_sizes(sizes, 1.0, 4.0).tolist() == [1000, 400, 300, 133, 27, 4]


def test_extra_correction() -> None:
    """max_ratio 20: f(400) = 20 * (3 - 2.60206) / 3 = 2.65294, f(100) = 6.66667, f(10) = 13.33333, f(1) = 20."""
    assert corrected_sizes(np.array([1000, 400, 100, 10, 1]), 1.5, 20.0).tolist() == [1000, 1061, 667, 133, 20]


def test_no_correction() -> None:
    sizes = np.array([1000, 400, 3, 1])
    # f(1) = max_ratio = 1, so no class grows
    assert corrected_sizes(sizes, 1.0, 1.0).tolist() == sizes.tolist()
    assert ratios(sizes, 1.0, 1.0).tolist() == [1, 1, 1, 1]


def test_classes_of_one_row_each_stay() -> None:
    assert ratios(np.array([1, 1, 1]), 1.5, 4.0).tolist() == [1, 1, 1]
    assert ratios(np.array([1, 0]), 1.0, 20.0).tolist() == [1, 1]


def test_an_empty_class_stays_empty() -> None:
    sizes = np.array([100, 0, 10])
    # f(10) = log(10) * 4 / log(100) = 2
    assert corrected_sizes(sizes, 1.5, 4.0).tolist() == [100, 0, 20]


@pytest.mark.parametrize("max_ratio", [2.0, 4.0, 20.0])
@pytest.mark.parametrize("largest", [50, 1000, 13_084])
def test_the_ratio_is_one_where_it_should_be(largest: int, max_ratio: float) -> None:
    """f(1) = max_ratio, f(n_max) = 0, and f = 1 at n_max ** ((max_ratio - 1) / max_ratio)."""
    even = largest ** ((max_ratio - 1) / max_ratio)
    below, above = ratios(np.array([largest, math.floor(even), math.ceil(even)]), 0.0, max_ratio)[1:]
    assert below >= 1 >= above
    assert ratios(np.array([largest, 1]), 0.0, max_ratio).tolist() == [0, pytest.approx(max_ratio)]


def test_no_class_shrinks_and_smaller_classes_grow_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = np.sort(rng.integers(1, 5000, size=8))[::-1]
        grown = ratios(sizes, 1.5, 4.0)
        assert (corrected_sizes(sizes, 1.5, 4.0) >= sizes).all()
        assert (np.diff(grown) >= 0).all()
        assert set(grown[grown < 1.5]) <= {1.0}


@pytest.mark.parametrize(("rows", "size"), [(5, 5), (5, 12), (1, 4), (7, 20), (3, 9)])
def test_copies_are_spread_evenly(rows: int, size: int) -> None:
    numbers = np.arange(100, 100 + rows)
    visits = oversample(numbers, size, np.random.default_rng(3))
    assert visits.shape == (size, 2)
    assert len(np.unique(visits, axis=0)) == size
    counts = np.array([(visits[:, 0] == row).sum() for row in numbers])
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1
    for row in numbers:
        copies = sorted(visits[visits[:, 0] == row][:, 1])
        assert copies == list(range(len(copies)))  # the text itself is there before any copy
