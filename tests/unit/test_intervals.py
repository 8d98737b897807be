import json
from dataclasses import asdict
from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from statsmodels.stats.weightstats import DescrStatsW

from tests.unit import simulated
from threephase_ray import metrics
from threephase_ray.evidence.intervals import compare, estimate
from threephase_ray.evidence.resampling import Metric, effective_rows, sample

METRICS: tuple[Metric, ...] = ("accuracy", "macro_precision", "macro_recall", "macro_f1")


def drawn(seed: int, seeds: int = 5, rows: int = 120, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels [m] and predictions [n, m], about three quarters right."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    return simulated.texts(rng, shares, seeds, rows, 0.75, 0.03)


def blocks(wrong: list[int], rows: int = 400) -> np.ndarray:
    """Predictions of seeds that err on so many rows each, never on the same."""
    predicted, start = np.zeros((len(wrong), rows), dtype=np.int64), 0
    for seed, count in enumerate(wrong):
        predicted[seed, start : start + count] = 1
        start += count
    return predicted


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_means_are_those_of_scikit_learn(metric: Metric, seed: int) -> None:
    labels, predicted = drawn(seed, rows=15, classes=7)  # classes are absent from the labels, or never predicted
    scores = []
    for said in predicted:
        macro = precision_recall_fscore_support(labels, said, average="macro", zero_division=0)[:3]
        scores.append(dict(zip(METRICS, [accuracy_score(labels, said), *macro], strict=True))[metric])
    assert estimate(metric, labels, predicted, 7).mean == pytest.approx(np.mean(scores))
    assert sample(metric, labels, predicted, 7).scores == pytest.approx(scores)


@pytest.mark.parametrize("wrong", [0, 1, 30, 299, 300])
def test_the_accuracy_of_one_seed_has_wilsons_interval(wrong: int) -> None:
    found = estimate("accuracy", np.zeros(300, dtype=np.int64), blocks([wrong], 300), 2)
    assert (found.low, found.high) == pytest.approx(metrics.interval(300 - wrong, 300), abs=1e-9)
    assert found.error == pytest.approx(sqrt(wrong / 300 * (1 - wrong / 300) / 300))
    assert (found.seeds, found.rows, found.covers) == (1, 300, "rows")


def test_without_shared_chance_the_error_is_that_of_a_mean_over_seeds() -> None:
    predicted = blocks([20, 40, 60, 80, 100])
    found, usual = estimate("accuracy", np.zeros(400, dtype=np.int64), predicted, 2), DescrStatsW(1 - predicted.mean(axis=1))
    assert (found.mean, found.error) == pytest.approx((usual.mean, usual.std_mean))
    low, high = usual.tconfint_mean()
    assert found.high - found.low == pytest.approx(high - low, rel=0.03)  # Wilson's interval is a little narrower, and asymmetric
    assert found.covers == "seeds and rows"


def test_without_shared_chance_the_paired_test_is_the_usual_one() -> None:
    labels, first, second = (
        np.zeros(4000, dtype=np.int64),
        blocks([200, 450, 600, 820, 1000], 4000),
        blocks([100, 250, 500, 600, 700], 4000),
    )
    second = second[:, ::-1]  # the arms err on other rows
    found = compare("accuracy", labels, first, second, 2)
    usual = ttest_rel((first == 0).mean(axis=1), (second == 0).mean(axis=1))
    low, high = usual.confidence_interval()
    assert found.p == pytest.approx(usual.pvalue, rel=1e-3)
    assert (found.difference.mean, found.difference.low, found.difference.high) == pytest.approx(((low + high) / 2, low, high), rel=1e-3)


def test_the_error_is_the_one_of_crossed_random_effects() -> None:
    """Mean squares of seeds, rows and rest: (MS_seeds + MS_rows - MS_rest) / (n m), as in the analysis of variance."""
    right = 1.0 - simulated.runs(np.random.default_rng(3), 5, 300, 0.8, 0.05)
    n, m = right.shape
    seeds, rows = right.mean(axis=1, keepdims=True), right.mean(axis=0, keepdims=True)
    rest = ((right - seeds - rows + right.mean()) ** 2).sum() / ((n - 1) * m)  # m for m - 1: draws of m rows from m
    variance = (m * seeds.var(ddof=1) + n * rows.var() - rest) / (n * m)
    assert seeds.var(ddof=1) > rest / m
    assert estimate("accuracy", np.zeros(m, dtype=np.int64), (1 - right).astype(np.int64), 2).error == pytest.approx(sqrt(variance))


def test_one_seed_compares_rows_as_the_adjusted_test_of_paired_shares() -> None:
    """z = (b - c) / sqrt(b + c + 2 - (b - c)^2 / m), with b and c rows that only one arm gets right."""
    labels = np.zeros(200, dtype=np.int64)
    for b, c in [(4, 0), (15, 4), (3, 3), (60, 20)]:
        first, second = blocks([c, b], 200)
        z = (b - c) / sqrt(b + c + 2 - (b - c) ** 2 / 200)
        assert compare("accuracy", labels, first[None], second[None], 2).p == pytest.approx(2 * norm.sf(abs(z)))
    assert compare("accuracy", labels, blocks([0], 200), blocks([4], 200), 2).p > 0.05  # four rows are no proof


def test_the_bootstrap_agrees_with_what_is_known_without_drawing() -> None:
    labels, predicted = drawn(5, seeds=3, rows=2000)
    recall = sample("macro_recall", labels, predicted, 4)
    right, sizes = predicted == labels, np.bincount(labels)
    shifts = np.stack([(right[:, labels == k] - right[:, labels == k].mean(axis=1, keepdims=True)) @ np.ones(sizes[k]) for k in range(4)])
    assert np.abs(shifts).max() < 1e-9
    known = sum(np.cov(right[:, labels == k], ddof=0) / sizes[k] for k in range(4)) / 16
    np.testing.assert_allclose(recall.deviations @ recall.deviations.T, known, rtol=0.15)


def test_the_bootstrap_of_macro_f1_agrees_with_its_linearisation() -> None:
    """A row with label l and prediction g moves F1_k = 2 h_k / D_k by (2 [k = l = g] - F1_k ([k = l] + [k = g])) / D_k."""
    labels, predicted = drawn(6, seeds=1, rows=1500)
    said = predicted[0]
    table = metrics.confusion(labels, said, 4)
    total = table.sum(axis=0) + table.sum(axis=1)
    f1 = 2 * np.diag(table) / total
    moves = (2 * (labels == said) / total[labels] - f1[labels] / total[labels] - f1[said] / total[said]) / 4
    assert estimate("macro_f1", labels, predicted, 4).error == pytest.approx(sqrt((moves**2).sum()), rel=0.06)


@pytest.mark.parametrize("metric", METRICS)
def test_identical_arms_do_not_differ(metric: Metric) -> None:
    labels, predicted = drawn(7)
    found = compare(metric, labels, predicted, predicted.copy(), 4)
    assert (found.difference.mean, found.p) == (0, 1)
    assert found.difference.low == -found.difference.high < 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_p_and_interval_agree_and_arms_may_change_places(metric: Metric, seeds: int) -> None:
    seen = set()
    for trial in range(6):
        labels, second = drawn(trial, seeds=seeds)
        first = np.where(np.random.default_rng(trial).random(second.shape) < trial * 0.08, labels, second)  # better and better
        found, reverse = compare(metric, labels, first, second, 4), compare(metric, labels, second, first, 4)
        assert (found.p < 0.05) == (not found.difference.low <= 0 <= found.difference.high)
        assert (reverse.p, -reverse.difference.mean, -reverse.difference.high) == pytest.approx(
            (found.p, found.difference.mean, found.difference.low)
        )
        seen.add(found.p < 0.05)
    assert seen == {True, False}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seeds", [1, 5])
def test_what_never_varies_still_has_an_interval(metric: Metric, seeds: int) -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    perfect = estimate(metric, labels, np.tile(labels, (seeds, 1)), 3)
    assert (perfect.mean, perfect.high) == pytest.approx((1, 1), abs=1e-12)
    assert 0.7 < perfect.low < 0.97
    never = estimate(metric, labels, np.tile((labels + 1) % 3, (seeds, 1)), 3)
    assert (never.mean, never.low) == pytest.approx((0, 0), abs=1e-12)
    assert 0.03 < never.high < 0.3
    constant = estimate(metric, labels, np.zeros((seeds, 100), dtype=np.int64), 3)
    assert 0 < constant.low < constant.mean < constant.high < 1


def test_rows_weigh_as_much_as_their_class() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    assert effective_rows("accuracy", labels, 4) == 100
    assert effective_rows("macro_f1", labels, 4) == pytest.approx(9 / (1 / 60 + 1 / 30 + 1 / 10))
    assert effective_rows("macro_f1", np.arange(100) % 4, 5) == pytest.approx(100)


@pytest.mark.parametrize("metric", METRICS)
def test_seeds_with_rows_of_their_own(metric: Metric) -> None:
    sets = [drawn(seed, seeds=1, rows=300 + seed) for seed in range(4)]
    labels, predicted = [truth for truth, _ in sets], [said[0] for _, said in sets]
    found = estimate(metric, labels, predicted, 4)
    scores = [estimate(metric, truth, said, 4).mean for truth, said in sets]
    assert (found.mean, found.rows, found.seeds) == (pytest.approx(np.mean(scores)), 1206, 4)
    least = np.mean([estimate(metric, truth, said, 4).error ** 2 for truth, said in sets])
    assert found.error == pytest.approx(sqrt(max(np.var(scores, ddof=1), least) / 4))
    worse = [np.where(np.arange(len(said)) % 4 == 0, (said + 1) % 4, said) for said in predicted]
    better = compare(metric, labels, predicted, worse, 4)
    assert better.p < 0.01
    assert better.difference.low > 0


def test_one_seed_is_the_same_as_a_list_of_one() -> None:
    labels, predicted = drawn(8, seeds=1)
    assert estimate("macro_f1", [labels], [predicted[0]], 4) == estimate("macro_f1", labels, predicted, 4)


def test_results_are_plain_numbers_and_come_out_the_same_again() -> None:
    labels, predicted = drawn(9)
    found = asdict(compare("macro_f1", labels, predicted, predicted[::-1], 4)), asdict(estimate("macro_f1", labels, predicted, 4))
    again = asdict(compare("macro_f1", labels, predicted, predicted[::-1], 4)), asdict(estimate("macro_f1", labels, predicted, 4))
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(again))


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        (np.zeros(3, int), np.zeros((2, 4), int), "are needed"),
        (np.zeros(0, int), np.zeros((2, 0), int), "are needed"),
        (np.zeros(3, int), np.zeros((0, 3), int), "are needed"),
        (np.zeros(3, int), np.full((2, 3), 2), "from 0 to 1"),
        (np.full(3, -1), np.zeros((2, 3), int), "from 0 to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate("accuracy", labels, predicted, 2)


def test_arms_of_other_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        compare("accuracy", np.zeros(9, int), np.zeros((2, 9), int), np.zeros((1, 9), int), 2)


@pytest.mark.parametrize("spread", [0.0, 0.03])
def test_intervals_cover_the_truth_and_false_alarms_are_few(spread: float) -> None:
    """Of 300 studies of 5 seeds; tests/integration/test_evidence.py has 1,000 for each of many settings."""
    labels, covered, alarms, found = np.zeros(300, dtype=np.int64), 0, 0, 0
    for rng in simulated.streams(1, 300):
        single = estimate("accuracy", labels, simulated.runs(rng, 5, 300, 0.9, spread), 2)
        covered += single.low <= 0.9 <= single.high
        alarms += compare("accuracy", labels, *simulated.arms(rng, 5, 300, 0.9, spread), 2).p < 0.05
        found += compare("accuracy", labels, *simulated.arms(rng, 5, 300, 0.85, spread, gain=0.08), 2).p < 0.05
    assert 0.92 <= covered / 300 <= 0.99
    assert alarms / 300 <= 0.08
    assert found / 300 >= 0.65
