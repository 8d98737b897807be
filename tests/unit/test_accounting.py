import json
from typing import Any

import pytest

from threephase_ray.training import accounting

KEY, OTHER = "aa", "bb"


def log(*lines: tuple[float, str, dict[str, Any]]) -> list[accounting.Event]:
    return [{"time": time, "event": event, **more} for time, event, more in lines]


def steps(start: float, numbers: range) -> list[tuple[float, str, dict[str, Any]]]:
    """A step each second."""
    return [(start + i, "step", {"step": number}) for i, number in enumerate(numbers)]


KILLED = log(
    (0, "start", {}),
    (5, "phase", {"key": KEY}), (6, "resume", {"step": 0}), *steps(10, range(1, 11)),
    (19.5, "checkpoint", {"step": 5, "stall": 0.5}),
    (25, "retry", {}),
    (30, "phase", {"key": KEY}), (31, "resume", {"step": 5}), *steps(33, range(6, 13)),
    (100, "start", {}),
    (105, "phase", {"key": KEY}), (106, "resume", {"step": 10}), *steps(107, range(11, 21)),
    (117, "phase_end", {"key": KEY}),
    (118, "phase", {"key": OTHER}), (119, "resume", {"step": 0}), *steps(120, range(1, 4)),
)  # fmt: skip


def test_attempts_tell_what_was_done_wasted_and_lost() -> None:
    first, second, third = accounting.attempts(KILLED, KEY)
    assert (first.from_step, first.to_step, first.steps_done, first.steps_wasted, first.recovery_seconds) == (0, 10, 10, 5, 0.0)
    assert (second.from_step, second.to_step, second.steps_done, second.steps_wasted) == (5, 12, 7, 2)
    assert (third.from_step, third.to_step, third.steps_done, third.steps_wasted) == (10, 20, 10, 0)
    assert second.recovery_seconds == pytest.approx(33 - 19.5)  # from the last sign of life
    assert third.recovery_seconds == pytest.approx(107 - 100)  # from the start of the driver: nobody ran in between
    assert (first.checkpoints, first.checkpoint_stall) == (1, 0.5)
    assert [len(accounting.attempts(KILLED, key)) for key in (OTHER, "cc")] == [1, 0]


def test_goodput_is_the_share_of_the_time_that_counted() -> None:
    found = accounting.summary(accounting.attempts(KILLED, KEY))
    times = (19.5 - 5) + (39 - 19.5) + (117 - 100)
    wasted = (19.5 - 10) * 5 / 10 + (39 - 33) * 2 / 7
    lost = wasted + (33 - 19.5) + (107 - 100) + 0.5
    assert found["total_seconds"] == pytest.approx(times)
    assert found["lost_seconds"] == pytest.approx(lost)
    assert found["goodput"] == pytest.approx(1 - lost / times)
    assert (found["attempts"], found["steps_done"], found["steps_wasted"]) == (3, 27, 7)
    whole = accounting.summary(accounting.attempts(KILLED, OTHER))
    assert (whole["goodput"], whole["steps_wasted"]) == (1.0, 0)


def test_where_a_group_runs_is_no_sign_of_life() -> None:
    retry = [event["event"] for event in KILLED].index("retry") + 1
    told = [*KILLED[:retry], *log((29, "group", {"nodes": ["a"]})), *KILLED[retry:]]
    assert accounting.attempts(told, KEY) == accounting.attempts(KILLED, KEY)


def test_a_phase_that_is_trained_anew_has_a_new_account() -> None:
    anew = log((200, "start", {}), (205, "phase", {"key": KEY}), (206, "resume", {"step": 0}), *steps(207, range(1, 3)))
    (only,) = accounting.attempts([*KILLED, *anew], KEY)
    assert (only.steps_done, only.steps_wasted, only.recovery_seconds) == (2, 0, 0.0)


def test_a_torn_line_is_left_out() -> None:
    lines = [json.dumps(event).encode() for event in KILLED[:3]]
    assert accounting.parse(b"\n".join([lines[0], lines[1][:12], lines[2], lines[0][:9]])) == [KILLED[0], KILLED[2]]
