import json
from dataclasses import asdict

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from threephase_ray.evidence.intervals import Comparison, Estimate
from threephase_ray.evidence.verdicts import holm, judge, tally, verdict


def comparison(difference: float, p: float) -> Comparison:
    """A comparison of which only these two figures matter."""
    return Comparison(Estimate(difference, difference - 0.1, difference + 0.1, 0.05, 5, 300, "seeds and rows"), p)


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


def test_a_family_is_judged_together() -> None:
    verdicts = judge(
        [comparison(0.02, 0.01), comparison(-0.05, 0.0001), comparison(0.01, 0.03), comparison(0.0, 1.0), comparison(0.04, 0.012)]
    )
    assert [judged.outcome for judged in verdicts] == ["win", "loss", "tie", "tie", "win"]
    assert [judged.corrected for judged in verdicts] == pytest.approx([0.04, 0.0005, 0.06, 1, 0.04])
    assert tally(verdicts) == {"win": 2, "tie": 2, "loss": 1}
    assert json.loads(json.dumps([asdict(judged) for judged in verdicts]))[0]["p"] == 0.01


def test_nothing_is_judged_as_nothing() -> None:
    assert tally(judge([])) == {"win": 0, "tie": 0, "loss": 0}
