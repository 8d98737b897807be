import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from threephase_ray.sweeps import results as sweep_results
from threephase_ray.sweeps.results import Sharing
from threephase_ray.sweeps.trial import Mark, Status, Trial

PHASES = ("dae", "contrastive", "finetune")


def trial(number: int, score: float | None = None, status: Status | None = None, **rest: Any) -> Trial:
    """A trial with a point of its own, done if it has a score."""
    status = status if status is not None else "waiting" if score is None else "done"
    return Trial(**{"number": number, "point": {"dae.noise_ratio": number / 100}, "status": status, "score": score, **rest})


def seeded(number: int, noise: float, seed: int, score: float | None, status: Status = "done", cost: float = 1.0) -> Trial:
    return trial(number, score, status, point={"seed": seed, "dae.noise_ratio": noise}, cost=cost)


def chain(number: int, *keys: str, reused: int = 0, seconds: float = 10.0, **rest: Any) -> Trial:
    """A trial whose first phases were there; each phase costs as much."""
    alone = seconds * len(keys)
    return trial(
        number,
        keys=dict(zip(PHASES, keys, strict=False)),
        reused=list(PHASES[:reused]),
        cost=alone - seconds * reused,
        alone=alone,
        **({"score": 0.5} | rest),
    )


@pytest.mark.parametrize(
    ("trials", "order"),
    [
        pytest.param([trial(0, 0.5), trial(1, 0.7), trial(2, 0.6)], [1, 2, 0], id="by score"),
        pytest.param([trial(0, 0.5, cost=3), trial(1, 0.5, cost=2), trial(2, 0.5, cost=2)], [1, 2, 0], id="then cost, then number"),
        pytest.param([trial(2, 0.5), trial(1, 0.5)], [1, 2], id="whatever the order they come in"),
        pytest.param([trial(0, 0.5), trial(1, status="stopped", probe=0.9), trial(2, status="failed"), trial(3)], [0], id="done alone"),
        pytest.param([trial(0), trial(1, status="running")], [], id="none"),
    ],
)
def test_ranking(trials: list[Trial], order: list[int]) -> None:
    assert [place.first.number for place in sweep_results.ranking(trials)] == order
    best = sweep_results.best(trials)
    assert (None if best is None else best.number) == (order[0] if order else None)


def test_seeds_are_averaged() -> None:
    trials = [seeded(0, 0.2, 0, 0.90, cost=4), seeded(1, 0.2, 1, 0.50, cost=2), seeded(2, 0.4, 0, 0.72), seeded(3, 0.4, 1, 0.74)]
    first, second = sweep_results.ranking(trials)
    assert [member.number for member in first.trials] == [2, 3]
    assert first.score == pytest.approx(0.73)
    assert (second.score, second.cost) == (pytest.approx(0.70), 3.0)
    best = sweep_results.best(trials)
    assert best is not None
    assert best.number == 2  # though trial 0 has the highest score of all


@pytest.mark.parametrize("status", ["stopped", "failed", "running", "waiting"])
def test_a_point_counts_once_all_its_seeds_are_done(status: Status) -> None:
    trials = [seeded(0, 0.2, 0, 0.9), seeded(1, 0.2, 1, None, status), seeded(2, 0.4, 0, 0.5), seeded(3, 0.4, 1, 0.5)]
    assert [place.first.number for place in sweep_results.ranking(trials)] == [2]


def test_knobs_that_do_not_count_make_a_point_another() -> None:
    trials = [trial(0, 0.4, point={"a": 1, "seed": 0}), trial(1, 0.8, point={"a": 1, "b": 2, "seed": 0})]
    assert [place.score for place in sweep_results.ranking(trials)] == [0.8, 0.4]


@pytest.mark.parametrize(
    ("trials", "trained", "came", "reused"),
    [
        pytest.param([chain(0, "a", "b", "c"), chain(1, "a", "d", "e", reused=1)], 5, 2, 1, id="a shared first phase"),
        pytest.param([chain(0, "a", "b", "c", reused=3)], 0, 1, 3, id="all there from an earlier run"),
        pytest.param([chain(0, "a", "b", "c", score=None)], 0, 0, 0, id="waiting"),
        pytest.param(
            [chain(0, "a", "b", "c", score=None, status="stopped", marks=[Mark(100, "dae", 0.1), Mark(200, "contrastive", 0.2)])],
            *(2, 1, 0),
            id="stopped between two phases",
        ),
        pytest.param(
            [chain(0, "a", "b", "c", score=None, status="stopped", marks=[Mark(120, "contrastive", 0.2)], reused=1)],
            *(1, 1, 1),
            id="stopped within a phase",
        ),
        pytest.param([], 0, 0, 0, id="nothing"),
    ],
)
def test_sharing(trials: list[Trial], trained: int, came: int, reused: int) -> None:
    assert sweep_results.sharing(trials)[:3] == (trained, came, reused)


def test_sharing_in_a_line() -> None:
    line = "9 phases trained for 5 trials; 6 reused: 1,200 worker seconds instead of 3,000 (2.5 times cheaper)"
    assert str(Sharing(9, 5, 6, 1200.0, 3000.0)) == line
    free = Sharing(0, 2, 6, 0.0, 300.0)
    assert free.ratio is None
    assert str(free) == "0 phases trained for 2 trials; 6 reused: 0 worker seconds instead of 300"


def test_summary_is_plain_json() -> None:
    trials = [
        chain(0, "a", "b", "c", point={"seed": 0, "phases": ("dae", "finetune")}, score=0.8),
        chain(1, "d", "e", "f", point={"seed": 1, "phases": ("dae", "finetune")}, score=0.6),
        chain(2, "a", "g", "h", point={"seed": 0, "phases": ("finetune",)}, score=0.5, reused=1),
        chain(3, "d", "g", "h", point={"seed": 1, "phases": ("finetune",)}, score=None),
    ]
    summary = sweep_results.summary(trials)
    assert summary == json.loads(json.dumps(summary, allow_nan=False))
    assert summary == {
        "best": {"trials": [0, 1], "point": {"phases": ["dae", "finetune"]}, "score": pytest.approx(0.7), "seeds": [0, 1]},
        "trials": {"done": 3, "waiting": 1},
        "phases": {"trained": 8, "reused": 1},
        "worker_seconds": {"spent": 110.0, "without_sharing": 120.0, "ratio": pytest.approx(12 / 11)},
    }


def test_summary_of_nothing() -> None:
    summary = sweep_results.summary([])
    assert summary["best"] is None
    assert summary["worker_seconds"] == {"spent": 0.0, "without_sharing": 0.0, "ratio": None}


def test_parquet_comes_back() -> None:
    trials = [
        chain(0, "a", "b", "c", score=0.75, probe=0.5, scores={"accuracy": 0.75, "macro_f1": 0.25}, reused=1),
        trial(1, status="stopped", reason="probe among the worse half", probe=0.25, point={"contrastive.loss.temperature": 0.1}),
    ]
    first, second = sweep_results.read(sweep_results.parquet(trials))
    assert first == {
        "number": 0,
        "status": "done",
        "dae.noise_ratio": 0.0,
        "contrastive.loss.temperature": None,
        "score": 0.75,
        "probe": 0.5,
        "validation_accuracy": 0.75,
        "validation_macro_f1": 0.25,
        "key_dae": "a",
        "key_contrastive": "b",
        "key_finetune": "c",
        "reused": ["dae"],
        "cost": 20.0,
        "alone": 30.0,
        "reason": "",
    }
    assert (second["contrastive.loss.temperature"], second["dae.noise_ratio"], second["score"], second["key_dae"]) == (
        0.1,
        None,
        None,
        None,
    )
    assert (second["status"], second["reason"], second["reused"]) == ("stopped", "probe among the worse half", [])


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        pytest.param([1, 2, None], pa.int64(), [1, 2, None], id="whole numbers"),
        pytest.param([1, 0.5, None], pa.float64(), [1.0, 0.5, None], id="numbers"),
        pytest.param([True, None, False], pa.bool_(), [True, None, False], id="switches"),
        pytest.param(["cls", "mean", None], pa.string(), ["cls", "mean", None], id="words"),
        pytest.param(
            [("dae", "finetune"), ["finetune"], None], pa.list_(pa.string()), [["dae", "finetune"], ["finetune"], None], id="lists"
        ),
        pytest.param([True, 2, "young", None], pa.string(), ["true", "2", '"young"', None], id="several kinds: JSON"),
        pytest.param([None, None], pa.string(), [None, None], id="never"),
    ],
)
def test_types_of_knobs(values: list[Any], kind: pa.DataType, read: list[Any]) -> None:
    trials = [trial(number, point={} if value is None else {"knob": value}) for number, value in enumerate(values)]
    trials.append(trial(len(values), point={"knob": None}))
    written = pq.read_table(pa.BufferReader(sweep_results.parquet(trials)))
    assert written.schema.field("knob").type == kind
    assert written["knob"].to_pylist() == [*read, None]


def test_parquet_of_nothing_has_its_columns() -> None:
    table = pq.read_table(pa.BufferReader(sweep_results.parquet([])))
    assert table.num_rows == 0
    assert table.column_names == ["number", "status", "score", "probe", "reused", "cost", "alone", "reason"]
