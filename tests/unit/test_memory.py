import math
from dataclasses import replace

import pytest

from threephase_ray.memory import LOGITS, STAGES, USABLE, Size, activation_bytes, gigabytes, lowest_stage, needed, state_bytes

SIZE = Size(parameters=22_000_000, layers=6, hidden=384, heads=12, tokens=32 * 48, length=48, vocabulary=30_522)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, [16_000, 16_000, 16_000, 16_000]),
        (2, [16_000, 12_000, 10_000, 8_000]),  # 16, then 8 + 8/2, 4 + 12/2, 16/2 bytes a parameter
        (8, [16_000, 9_000, 5_500, 2_000]),
    ],
)
def test_states_of_a_thousand_parameters(workers: int, expected: list[int]) -> None:
    assert [state_bytes(stage, 1000, workers) for stage in STAGES] == expected


def test_activations_by_hand() -> None:
    size = Size(parameters=0, layers=2, hidden=3, heads=1, tokens=2, length=5, vocabulary=7)
    assert activation_bytes(size) == 2 * 2 * (68 * 3 + 10 * 1 * 5) + 12 * 2 * 7
    assert activation_bytes(replace(size, vocabulary=0)) == 2 * 2 * (68 * 3 + 10 * 1 * 5)
    assert needed(0, replace(size, parameters=10), 2) == 160 + activation_bytes(size)


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_a_higher_stage_never_needs_more(workers: int) -> None:
    amounts = [needed(stage, SIZE, workers) for stage in STAGES]
    assert amounts == sorted(amounts, reverse=True)
    assert (len(set(amounts)) == 1) == (workers == 1)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_lowest_stage_that_fits(stage: int) -> None:
    exactly = math.ceil(needed(stage, SIZE, 4) / USABLE)
    assert lowest_stage(SIZE, 4, exactly)[0] == stage
    assert lowest_stage(SIZE, 4, exactly - 1)[0] == min(3, stage + 1)


def test_nothing_is_sharded_where_memory_is_plenty() -> None:
    stage, reason = lowest_stage(SIZE, 2, 10**12)
    assert stage == 0
    assert reason == f"the lowest that fits: {gigabytes(needed(0, SIZE, 2))} of 1000.00 GB"


def test_logits_are_held_of_some_tokens_at_a_time() -> None:
    few, many, more = (replace(SIZE, layers=0, tokens=tokens) for tokens in (100, 10_000, 20_000))
    assert activation_bytes(few) == 12 * 100 * 30_522
    assert activation_bytes(many) == activation_bytes(more) <= 12 * LOGITS


def test_one_worker_has_nobody_to_share_with() -> None:
    assert lowest_stage(SIZE, 1, 10**12)[0] == 0
    assert "nobody to share with" in lowest_stage(SIZE, 1, 10**12)[1]


@pytest.mark.parametrize(("workers", "last"), [(1, 0), (2, 3)])
def test_what_does_not_fit_is_said(workers: int, last: int) -> None:
    stage, reason = lowest_stage(SIZE, workers, 1000)
    assert stage == last
    assert "may not fit" in reason
    assert gigabytes(needed(last, SIZE, workers)) in reason
