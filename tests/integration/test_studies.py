"""A whole study in one process, with a plain engine: arms share phases, are tuned on validation, and are compared on the test split."""

import dataclasses
import io
import json
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.unit import test_shift, tiny, tiny_models
from threephase_ray import command
from threephase_ray.results import Store
from threephase_ray.studies import arms, findings, study
from threephase_ray.studies.work import Bench, Planned, Tuning
from threephase_ray.studying import StudyConfig
from threephase_ray.training import shift
from threephase_ray.training.foreman import Foreman
from threephase_ray.training.plan import Plan
from threephase_ray.training.tasks import Item
from threephase_ray.trials import Planner

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
STUDY = """
name: s
store: {folder}/store
scratch: {folder}/scratch
data: {{source: {folder}/source}}
encoder: {{path: {encoder}}}
dae: {{steps: 2, validations: 1}}
contrastive: {{steps: 2, validations: 1, batch: 8, texts_per_class: 2}}
finetune: {{steps: 3, validations: 1, batch: 8}}
probe: false
study:
  reference: fair
  seeds: [0, 1]
  axes: {{rows: {{levels: {{"12": {{data.rows.train: 12}}, all: {{}}}}}}}}
  arms:
    three: {{knobs: {{probe: true}}}}
    light: {{knobs: {{finetune.head: logistic}}}}
    fair: {{knobs: {{phases: [finetune]}}, tune: {{finetune.learning_rate: [1.0e-4, 3.0e-4]}}}}
"""


class Line(test_shift.Line):
    """The driver asks for news by itself."""

    def take(self) -> dict[str, Any] | None:
        return self.foreman.take(0, ["here"]) or None


class Crew:
    """One worker group in this process, which works when it is asked how far it is; halted after so many tasks."""

    def __init__(self, store: Store, most: int = 1000) -> None:
        self._store, self._left, self.done = store, most, list[str]()
        self.foreman = Foreman(lambda event: None, [], 1, 1)

    def enter(self, number: int, chain: list[Item], supervised: bool) -> None:
        made = [dataclasses.replace(item, plan={**json.loads(json.dumps(item.plan)), "engine": "plain"}) for item in chain]
        plans = {item.key: Plan(**item.plan) for item in made}
        finished = {key: shift.known(self._store, plan) for key, plan in plans.items() if shift.is_finished(self._store, plan)}
        self.foreman.enter(number, made, finished, supervised)

    def ask(self, name: str, *arguments: Any) -> Any:
        if name == "ends":
            self.foreman.sent_for(0)
            line = Line(self.foreman)
            while self._left and (plan := line.take()):
                self._left -= 1
                shift.finish(Plan(**plan), line, torch.device("cpu"))
                self.done += [job["name"] for job in plan["phases"]] + ["test"] * len(plan["tests"]) + ["probe"] * len(plan["probes"])
            if not self._left:
                self.halt()
        return getattr(self.foreman, name)(*arguments)

    def halt(self) -> None:
        self.foreman.close()

    def problem(self) -> None:
        return None


class Told:
    """Who is told."""

    def __init__(self) -> None:
        self.expected, self.ended = 0, list[tuple[str, str]]()

    def expect(self, runs: int) -> None:
        self.expected += runs

    def told(self, planned: Planned, reason: str) -> None:
        self.ended.append((planned.run.arm, reason))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_models.checkpoint(folder / "checkpoint", "bert")
    for seed, split in enumerate(("train", "validation", "test")):
        tiny.write_csv(folder / "source" / f"{split}.csv", tiny_models.texts(30, seed=seed))
    return folder


SMALL = (
    # each seed draws test rows of its own
    ('axes: {rows: {levels: {"12": {data.rows.train: 12}, all: {}}}}', "axes: {rows: {levels: {few: {data.rows.test: 20}}}}"),
    ("    light: {knobs: {finetune.head: logistic}}\n", ""),
)


def read(place: Path, *changes: tuple[str, str]) -> StudyConfig:
    text = STUDY.format(folder=place, encoder=tiny_models.checkpoint(place / "checkpoint", "bert").path)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (place / "study.yaml").write_text(text)
    return command.read([str(place / "study.yaml")], [], StudyConfig)


class Life:
    """One call of a study, halted after so many tasks."""

    def __init__(self, config: StudyConfig, most: int = 1000) -> None:
        self.config, self.store, self.told = config, Store(config.store, config.scratch), Told()
        planner, folder = Planner(), f"studies/{config.name}"
        self.crew = Crew(self.store, most)
        tunings = [Tuning(config, planner, arm, cell) for arm, cell in arms.tuned_arms(config)]
        self.choices = {made.place: found for made in tunings if (found := made.known(self.store, folder)) is not None}
        self.bench = Bench(self.crew, self.store, config.study.keep_classifiers, Event(), self.told)
        study.carry_out(config, planner, tunings, self.choices, folder, self.bench)
        self.planned = study.plan_all(config, planner, self.choices)

    def found(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return findings.find(self.config, self.planned, self.choices, self.bench.failed, self.store)


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple[Life, list[str]]:
    """A whole study, and the shards of test splits that were opened meanwhile."""
    opened, memory_map = list[str](), pa.memory_map
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pa, "memory_map", lambda path: (opened.append(path), memory_map(path))[1])
        return Life(read(place)), [path for path in opened if Path(path).name.startswith("test")]


def test_phases_are_shared_and_the_test_split_is_opened_once_per_run(whole: tuple[Life, list[str]]) -> None:
    life, opened = whole
    done = life.crew.done
    assert {kind: done.count(kind) for kind in done} == {
        "contrastive": 4,  # shared by two arms
        "dae": 4,
        "finetune": 2 * 4 + 4 + 2,  # two arms; the third with two learning rates for the first seed, then with the better one
        "probe": 4 * 4,  # of one arm alone
        "test": 12,
    }
    assert len(opened) == 12
    assert (life.told.expected, len(life.told.ended), life.bench.failed) == (12, 12, {})
    for choice in life.choices.values():
        scores = [each["score"] for each in choice["tried"]]
        assert choice["chosen"] == choice["tried"][scores.index(max(scores))]["knobs"]
    assert not [name for name in life.store.storage.sizes("phases") if name.startswith("phases/finetune")]  # their figures are kept


def test_findings_tell_of_every_arm_in_every_cell(whole: tuple[Life, list[str]]) -> None:
    life, _ = whole
    found, rows = life.found()
    cells = found["cells"]
    assert [(cell["levels"]["rows"], list(cell["arms"]), cell["rows"]) for cell in cells] == [
        (level, ["three", "light", "fair"], 30) for level in ("12", "all")
    ]
    table = pq.read_table(io.BytesIO(findings.parquet(rows, life.config.study.axes))).to_pylist()
    assert [row["status"] for row in table] == ["done"] * 12
    for cell in cells:
        for arm, figures in cell["arms"].items():
            own = [row["accuracy"] for row in table if (row["arm"], row["axis.rows"]) == (arm, cell["levels"]["rows"])]
            assert figures["accuracy"]["mean"] == pytest.approx(sum(own) / 2)
            assert figures["accuracy"]["low"] <= figures["accuracy"]["mean"] <= figures["accuracy"]["high"]
            assert figures["seeds"] == 2
        compared = [(each["arm"], each["metric"]) for each in cell["comparisons"]]
        assert compared == [(arm, metric) for arm in ("three", "light") for metric in ("accuracy", "macro_f1")]
        assert list(cell["arms"]["three"]["probes"]) == ["pretrained", "dae", "contrastive", "finetune"]
        assert cell["arms"]["fair"]["tuning"]["cpu_seconds"] > 0
        assert cell["arms"]["light"]["probes"] == {}
    sharing = found["sharing"]
    assert (sharing["phases_trained"], sharing["phases_reused"]) == (4 + 4 + 12, 4 + 4)
    assert sharing["worker_seconds"] < sharing["worker_seconds_alone"]


def test_the_same_call_again_trains_nothing_and_a_new_arm_only_its_own(place: Path, whole: tuple[Life, list[str]]) -> None:
    assert whole[1]
    again = Life(read(place))
    assert (again.crew.done, again.told.expected) == ([], 0)
    more = Life(read(place, ("  arms:\n", "  arms:\n    short: {knobs: {phases: [finetune], finetune.head: logistic}}\n")))
    assert sorted(more.crew.done) == ["finetune"] * 4 + ["test"] * 4
    assert (more.told.expected, len(more.planned)) == (4, 16)


def test_an_arm_without_calibration_differs_in_its_probabilities_alone(place: Path, whole: tuple[Life, list[str]]) -> None:
    assert whole[1]
    life = Life(read(place, ("  arms:\n", "  arms:\n    raw: {knobs: {finetune.head: logistic, calibrate: false}}\n")))
    tests = {arm: [life.store.read_json(f"{each.folder}/results.json")["test"] for each in life.planned if each.run.arm == arm]
             for arm in ("light", "raw")}  # fmt: skip
    assert [each["confusion"] for each in tests["raw"]] == [each["confusion"] for each in tests["light"]]
    assert {each["calibration"]["reason"] for each in tests["raw"]} == {"calibrate is false"}
    assert any(each["calibration"]["temperature"] != 1 for each in tests["light"])


def test_a_study_that_is_stopped_goes_on_and_finds_the_same(place: Path) -> None:
    expected, _ = Life(read(place, *SMALL, ("/store", "/one"))).found()
    cut, done = read(place, *SMALL, ("/store", "/other")), 0
    for most in (3, 6, 9, 1000):
        life = Life(cut, most)
        done += len(life.crew.done)
    found, _ = life.found()
    assert done == 2 * (3 + 4 + 1) + 2 + 1 + 2
    for one, other in zip(found["cells"], expected["cells"], strict=True):
        assert one["comparisons"] == other["comparisons"]
        assert all(one["arms"][arm]["accuracy"] == other["arms"][arm]["accuracy"] for arm in ("three", "fair"))


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_fails_is_named_and_the_others_count(place: Path, whole: tuple[Life, list[str]]) -> None:
    wild = {"learning_rate": 1.0, "clip": 1e30, "epsilon": 1e-30, "weight_decay": 1e30}
    knobs = ", ".join(f"contrastive.{name}: {value:.1e}" for name, value in wild.items())
    life = Life(read(place, SMALL[0], ("{finetune.head: logistic}", f"{{{knobs}}}, tune: {{finetune.steps: [2, 3]}}")))
    assert [arm for arm, reason in life.told.ended if reason] == ["light", "light"]
    found, rows = life.found()
    assert [(each["arm"], each["seed"]) for each in found["failed"]] == [("light", 0), ("light", 1)]
    assert all("lower contrastive.learning_rate" in each["reason"] for each in found["failed"])
    assert [list(cell["arms"]) for cell in found["cells"]] == [["three", "fair"]]
    assert [row["status"] for row in rows if row["arm"] == "light"] == ["failed", "failed"]


def test_validation_takes_the_place_of_the_test_split_while_one_chooses(place: Path, whole: tuple[Life, list[str]]) -> None:
    life = Life(read(place, *SMALL, ("probe: false", "predict: validation"), ("seeds: [0, 1]", "seeds: [0]")))
    _, rows = life.found()
    assert [row["accuracy"] for row in rows] == [pytest.approx(row["validation_accuracy"]) for row in rows]
    assert all("test" not in life.store.read_json(f"{each.folder}/results.json") for each in life.planned)
