import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from threephase_ray.evidence.verdicts import holm, verdict


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_holm_equals_its_definition_and_statsmodels(count: int) -> None:
    """The i-th smallest of k p values times (k - i + 1), at least as large as the one before, at most 1."""
    ps = np.random.default_rng(count).random(count) ** 3
    expected, largest = np.empty(count), 0.0
    for i, place in enumerate(np.argsort(ps)):
        largest = max(largest, min(1.0, ps[place] * (count - i)))
        expected[place] = largest
    assert holm(list(ps)) == pytest.approx(expected)
    assert holm(list(ps)) == pytest.approx(multipletests(ps, method="holm")[1])


def test_holm_of_nothing_and_of_what_is_no_p_value() -> None:
    assert holm([]) == []
    for wrong in (float("nan"), -0.1, 1.1):
        with pytest.raises(ValueError, match="from 0 to 1"):
            holm([0.5, wrong])


@pytest.mark.parametrize(
    ("difference", "corrected", "outcome"),
    [(0.1, 0.049, "win"), (-0.1, 0.049, "loss"), (0.1, 0.05, "tie"), (-0.1, 0.5, "tie"), (0.0, 1.0, "tie")],
)
def test_a_verdict_needs_a_small_p_and_a_sign(difference: float, corrected: float, outcome: str) -> None:
    assert verdict(difference, corrected) == outcome
