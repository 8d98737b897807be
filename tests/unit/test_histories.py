"""From a run's events to what trackers are told: each step once, in order, and nothing that was told changes."""

import json
import random
from typing import Any

import pytest

from tests.unit.killed import DAE, KILLED, TUNE, begin, steps, timed, validation, whole
from threephase_ray.trackers.histories import Histories, Row, numbers, outcome
from threephase_ray.training import accounting


def test_each_step_is_there_once_in_order_with_the_loss_that_it_had_first() -> None:
    rows = whole(KILLED)
    assert [row.step for row in rows[DAE]] == [*range(1, 13)]
    again = dict.fromkeys(range(10, 13), 0.25)  # 5 to 7, and 9, were done twice
    assert [row.figures["loss"] for row in rows[DAE]] == [1 / step + again.get(step, 0.0) for step in range(1, 13)]
    assert [row.step for row in rows[TUNE]] == [0, 1, 2, 3, 5, 6]
    times = {(event["step"], event["loss"]): event["time"] for event in reversed(KILLED) if event["event"] == "step"}
    assert all(row.time == times[row.step, row.figures["loss"]] for row in rows[DAE])


def test_validation_scores_belong_to_their_step() -> None:
    rows = whole(KILLED)
    assert {row.step: row.figures["validation/accuracy"] for row in rows[DAE] if "validation/accuracy" in row.figures} == {7: 0.25, 12: 0.5}
    assert rows[TUNE][0].figures == {"validation/accuracy": 0.125}
    assert set(rows[TUNE][-1].figures) == {"loss", "steps_per_second", "validation/accuracy"}


def test_speed_is_that_of_the_steps_without_a_break() -> None:
    rows = whole(KILLED)[DAE]
    assert "steps_per_second" not in rows[0].figures
    assert rows[1].figures["steps_per_second"] == 1.0
    assert rows[6].figures["steps_per_second"] == pytest.approx(6 / 7)  # seven steps, and a checkpoint between them
    assert "steps_per_second" in rows[9].figures
    long = whole(timed(begin(DAE, 0), steps(range(1, 50)), [{"event": "phase_end"}]))[DAE]
    assert {row.figures["steps_per_second"] for row in long[1:]} == {1.0}


@pytest.mark.parametrize("seed", range(20))
def test_what_was_told_stays_true_however_the_log_is_cut(seed: int) -> None:
    draw, histories, told = random.Random(seed), Histories(), dict[str, list[Row]]()  # noqa: S311
    start = 0
    while start < len(KILLED):
        stop = start + draw.randint(1, 9)
        for key, rows in histories.add(KILLED[start:stop]).items():
            told.setdefault(key, []).extend(rows)
        start = stop
        read = whole(KILLED[:start])
        assert all(read[key] == told[key] == whole(KILLED)[key][: len(told[key])] for key in told)
    assert told == whole(KILLED)
    assert histories.trained == {DAE, TUNE}


def test_a_step_is_told_only_when_nothing_can_come_to_it() -> None:
    events = timed(begin(DAE, 0), steps(range(1, 3)))
    assert [row.step for row in whole(events)[DAE]] == [1]
    assert [row.step for row in whole([*events, *timed(validation(2, 0.5), [{"event": "phase_end"}])])[DAE]] == [1, 2]


def test_a_phase_that_is_trained_anew_is_not_told_twice() -> None:
    anew = timed([{"event": "start"}], begin(DAE, 0), steps(range(1, 13), 0.125), [{"event": "phase_end"}])
    assert whole([*KILLED, *anew]) == whole(KILLED)


def test_torn_lines_are_left_out() -> None:
    lines = [json.dumps(event).encode() for event in KILLED]
    torn = next(number for number, event in enumerate(KILLED) if event["event"] == "retry") - 1  # of the last step before the kill
    lines[torn] = lines[torn][:20]
    rows = whole(accounting.parse(b"\n".join(lines)))
    assert [row.step for row in rows[DAE]] == [*range(1, 13)]
    assert rows[DAE][6].figures["loss"] == 1 / 7 + 0.5  # the step that was torn, done again


def test_final_figures_are_those_of_the_results() -> None:
    def phase(name: str, accuracy: float) -> dict[str, Any]:
        made = {"goodput": 0.5, "attempts": 2}
        return {
            "phase": name,
            "key": "aa",
            "scores": {"accuracy": accuracy},
            "steps": 4,
            "best_step": 2,
            "seconds": 8.5,
            "accounting": made,
        }

    test = {"rows": 12, "accuracy": 0.75, "accuracy_interval": [0.5, 1.0], "per_class": {"names": ["a"], "f1": [1.0]}, "confusion": [[1]]}
    found = outcome(
        {
            "name": "mine", "phases": [phase("dae", 0.25), phase("finetune", 0.5)], "baseline": phase("finetune", 0.125),
            "goodput": 0.75, "test": test, "baseline_test": {"accuracy": 0.5},
        }
    )  # fmt: skip
    assert found.run == {"test/rows": 12.0, "test/accuracy": 0.75, "baseline_test/accuracy": 0.5, "goodput": 0.75}
    assert list(found.phases) == ["dae", "finetune", "baseline"]
    assert found.phases["baseline"] == {
        "best/accuracy": 0.125, "cost/steps": 4.0, "cost/best_step": 2.0, "cost/seconds": 8.5, "cost/goodput": 0.5
    }  # fmt: skip


def test_only_numbers_are_figures() -> None:
    assert numbers({"a": 1, "b": 0.5, "c": True, "d": None, "e": "x", "f": [1]}, "of/") == {"of/a": 1.0, "of/b": 0.5}
