"""A worker group's shift in this process: real phases on the plain engine, plans from a real foreman."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit import tiny, tiny_models
from tests.unit.tiny_models import CPU
from threephase_ray import sampling
from threephase_ray.config import Config
from threephase_ray.results import Store
from threephase_ray.sweeping import Halving, Sweep
from threephase_ray.sweeps import chains
from threephase_ray.training import probing, shift
from threephase_ray.training.accounting import Event
from threephase_ray.training.foreman import Foreman
from threephase_ray.training.tasks import Item
from threephase_ray.trials import Planner

SWEEP = Sweep(halving=Halving(keep=1))


class Line:
    """A line to a foreman in the same process; the shift ends when there is nothing to do."""

    def __init__(self, foreman: Foreman) -> None:
        self.foreman, self.unwanted_after = foreman, 10**9
        foreman.sent_for(0)

    def take(self) -> dict[str, Any] | None:
        for number in (0, 1):
            while (news := self.foreman.news(number)) is not None and news["kind"] == "mark":
                pass
        return self.foreman.take(0, ["here"]) or None

    def tell(self, event: Event) -> None:
        self.foreman.tell(0, event)

    def past(self) -> list[Event]:
        return self.foreman.past(0)

    def unwanted(self) -> bool:
        return self.foreman.unwanted(0)

    def done(self, figures: dict[str, Any]) -> None:
        self.foreman.done(0, figures)

    def stopped(self) -> None:
        self.foreman.stopped(0)

    def failed(self, reason: str) -> None:
        self.foreman.failed(0, reason)


class Bench:
    """Two trials that have phase 1 in common."""

    def __init__(self, folder: Path, second: dict[str, Any]) -> None:
        encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
        for seed, split in enumerate(("train", "validation", "test")):
            tiny.write_csv(folder / "source" / f"{split}.csv", tiny_models.texts(30, seed=seed))
        places = {"source": str(folder / "source"), "store": str(folder / "store"), "scratch": str(folder / "scratch")}
        self.store, planner = Store(places["store"], places["scratch"]), Planner()
        self.events: list[Event] = []
        self.foreman = Foreman(self.events.append, [], 1, 1)
        self.chains = [
            self.chain(planner, tiny_models.configured(encoder, **places, **changes)) for changes in ({}, {"contrastive": second})
        ]
        for number, chain in enumerate(self.chains):
            self.foreman.enter(number, chain, {}, True)
            self.foreman.begin(number)

    @staticmethod
    def chain(planner: Planner, config: Config) -> list[Item]:
        made = chains.items(planner.outline(config), "sweeps/s", SWEEP)
        return [dataclasses.replace(item, plan={**json.loads(json.dumps(item.plan)), "engine": "plain"}) for item in made]

    def kinds(self, kind: str) -> list[str]:
        return [event["phase"] for event in self.events if event["event"] == kind]

    def ends(self) -> list[str]:
        return [(self.foreman.news(number) or {"kind": ""})["kind"] for number in (0, 1)]


def test_a_shift_trains_shared_phases_once_and_probes_what_they_gave(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"learning_rate": 1e-3})
    assert shift.work(Line(bench.foreman), CPU) == 7
    assert sorted(bench.kinds("phase_end")) == ["contrastive", "contrastive", "dae", "finetune", "finetune"]
    assert bench.kinds("task_done").count("probe") == 2
    assert bench.ends() == ["done", "done"]
    costs = [bench.foreman.cost(number) for number in (0, 1)]
    assert costs[1]["reused"] == ["dae"]
    assert costs[1]["cost"] < costs[1]["alone"]
    probe = bench.store.read_json(bench.chains[0][2].plan["probes"][0]["result"])
    assert set(probe) == {"linear", "knn", "silhouette"}
    assert all(0 <= probe[kind]["accuracy"] <= 1 for kind in ("linear", "knn"))


@pytest.mark.filterwarnings("ignore")
def test_a_phase_that_diverges_ends_its_trial_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"learning_rate": 1.0, "clip": 1e30, "epsilon": 1e-30, "weight_decay": 1e30})
    shift.work(Line(bench.foreman), CPU)
    assert bench.ends() == ["done", "failed"]
    assert bench.kinds("task_failed") == ["contrastive"]
    (reason,) = (event["reason"] for event in bench.events if event["event"] == "task_failed")
    assert "lower contrastive.learning_rate" in reason


def test_a_phase_that_nobody_wants_is_saved_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, {"learning_rate": 1e-3})
    monkeypatch.setattr("threephase_ray.training.stop._SECONDS", 0.002)
    withdrawn = []

    class Leaving(Line):
        def tell(self, event: Event) -> None:
            super().tell(event)
            if event["event"] == "step" and not withdrawn:
                withdrawn.extend(self.foreman.withdraw(number) for number in (0, 1))

    shift.work(Leaving(bench.foreman), CPU)
    assert len(withdrawn) == 2
    assert bench.kinds("saved") in (["dae"], [])  # the phase may have been over before the wish was seen
    assert len(bench.kinds("phase_end")) == 1 - len(bench.kinds("saved"))


def test_probes_tell_classes_apart_and_see_what_was_never_trained() -> None:
    rng = sampling.generator(0)
    centres = np.eye(4, 8, dtype=np.float32) * 9

    def side(classes: list[int]) -> tuple[Any, Any]:
        labels = np.array(classes)
        return centres[labels] + rng.normal(size=(len(labels), 8)).astype(np.float32), labels

    train, validation = side([0, 1, 2] * 20), side([0, 1, 2] * 5 + [3] * 5)
    figures = probing.compare(train, validation, 4)
    assert figures["linear"]["accuracy"] == figures["knn"]["accuracy"] == 0.75
    assert figures["linear"]["macro_recall"] == 0.75


def test_a_probe_looks_at_labelled_rows_only_and_at_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Split:
        labels = np.array([[0, 1], [0, -1], [1, 2], [1, 0], [0, 3]])

    assert probing.labelled(Split(), 0).tolist() == [0, 2, 3, 4]  # type: ignore[arg-type]
    monkeypatch.setattr(probing, "MOST", 2)
    drawn = probing.labelled(Split(), 0).tolist()  # type: ignore[arg-type]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 2
    assert set(drawn) <= {0, 2, 3, 4}
