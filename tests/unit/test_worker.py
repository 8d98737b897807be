import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.unit import tiny, tiny_models
from tests.unit.tiny_models import CPU
from threephase_ray import data, planning, pretrained
from threephase_ray.config import Config, Encoder
from threephase_ray.loader import DataSet
from threephase_ray.metrics import classification, confusion
from threephase_ray.models import Classifier, Head, restore
from threephase_ray.phases import finetune
from threephase_ray.planning import Outline
from threephase_ray.results import Store
from threephase_ray.training import loop
from threephase_ray.training.plan import Plan, Prediction
from threephase_ray.training.worker import work

UNSEEN = "weather"  # a label of the test split that training lacks


@dataclass(frozen=True)
class Run:
    """A run in this process: what was planned, and where its files are."""

    plan: Outline
    store: Store
    name: str

    def folder(self, number: int) -> Path:
        return self.store.fetch(self.plan.chain[number].job.result)

    def metrics(self, number: int) -> dict[str, Any]:
        return json.loads((self.folder(number) / "metrics.json").read_text())

    @property
    def predictions(self) -> Path:
        return self.store.place(f"{self.name}/predictions.parquet")

    @property
    def events(self) -> Path:
        return self.store.place(f"{self.name}/events.jsonl")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, DataSet]:
    """A tiny checkpoint, and a data set whose test split has a row of an unseen class."""
    folder = tmp_path_factory.mktemp("worker")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    splits = {"train": tiny_models.texts(40), "validation": tiny_models.texts(20, seed=1), "test": tiny_models.texts(40, seed=2)}
    splits["test"].insert(3, ("the price of play", UNSEEN))
    for split, rows in splits.items():
        tiny.write_csv(folder / "source" / f"{split}.csv", rows)
    words, limit = pretrained.load_tokenizer(encoder)
    source, store = (
        tiny_models.configured(encoder, source=str(folder / "source")).data,
        Store(str(folder / "store"), str(folder / "scratch")),
    )
    return encoder, DataSet(data.prepare(source, words, limit, store, seed=0), data.plan(source, words, limit, seed=0).name)


@pytest.fixture(scope="module")
def start(place: tuple[Encoder, DataSet], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Plan a run, train all its phases on the plain engine, and predict the test split."""

    def run(pooling: str = "cls", **knobs: Any) -> Run:
        folder, encoder = tmp_path_factory.mktemp("run"), place[0].model_copy(update={"pooling": pooling})
        store = place[1].folder.parents[2]  # where the data set is
        config: Config = tiny_models.configured(encoder, store=str(store), **knobs)
        plan = planning.outline(config, place[1])
        test = Prediction("finetune", plan.chain[-1].job.result, f"runs/{folder.name}/predictions.parquet")
        settings = plan.config.model_dump(mode="json")
        jobs = [vars(job) for job in plan.missing()]
        told = Plan(settings, place[1].name, f"runs/{folder.name}", 0, "plain", jobs, [vars(test)])
        assert work(Plan(**json.loads(json.dumps(vars(told)))), CPU)  # plain JSON is all that it needs
        return Run(plan, Store(config.store, config.scratch), f"runs/{folder.name}")

    return run


@pytest.fixture(scope="module")
def three(start: Callable[..., Run]) -> Run:
    return start()


@pytest.fixture(scope="module")
def logistic(start: Callable[..., Run]) -> Run:
    return start(phases=("finetune",), finetune={"head": "logistic"}, pooling="mean", calibrate=False)


def test_every_phase_is_committed(three: Run) -> None:
    for number, step in enumerate(three.plan.chain):
        assert three.store.damage(step.job.result) is None
        folder = three.folder(number)
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert files == {"weights.safetensors", "model.json", "encoder/config.json", "metrics.json", "config.json"}
        assert Config(**json.loads((folder / "config.json").read_text())) == three.plan.config
    assert isinstance(restore(three.folder(-1)), Classifier)


def test_figures_of_a_phase(three: Run) -> None:
    for number, step in enumerate(three.plan.chain):
        found = three.metrics(number)
        assert (found["phase"], found["key"], found["engine"], found["workers"]) == (step.job.name, step.job.key, "plain", 1)
        assert len(found["losses"]) == found["steps"] == step.steps == 3
        assert all(math.isfinite(value) for value in [*found["losses"], *found["scores"].values()])
        assert {"step": found["best_step"], **found["scores"]} in found["validations"]
        assert [row["step"] for row in found["validations"]] == [2, 3]
        assert 0 < found["seconds"] == found["worker_seconds"]
        assert found["peak_memory"] > 10_000_000
        (held,) = found["held_bytes"]
        assert held["parameters"] == held["gradients"] == 4 * found["parameters"]
        assert 8 * found["parameters"] < held["optimizer"] < 8.2 * found["parameters"] + 1000


def test_predictions_of_the_test_split(three: Run, place: tuple[Encoder, DataSet]) -> None:
    rows, data_set = pq.read_table(three.predictions).to_pylist(), place[1]
    assert [row["row"] for row in rows] == list(range(41))
    assert [row["label"] for row in rows] == [data_set.label_names[label] for (label,) in data_set.split("test").labels]
    assert rows[3]["label"] == UNSEEN
    assert data_set.label_names == ["food", "money", "sport", UNSEEN]
    for row in rows:
        assert len(row["probabilities"]) == data_set.classes == 3
        assert sum(row["probabilities"]) == pytest.approx(1.0, abs=1e-5)
        assert row["predicted"] == data_set.label_names[int(np.argmax(row["probabilities"]))]


def test_predictions_are_those_of_the_finished_model(three: Run, place: tuple[Encoder, DataSet]) -> None:
    model, split = restore(three.folder(-1)).eval(), place[1].split("test")
    padded = split.padded(np.arange(41))
    with torch.no_grad():
        logits = model(torch.from_numpy(padded.tokens), torch.from_numpy(padded.present))
    table = pq.read_table(three.predictions)
    expected = torch.softmax(logits / json.loads(table.schema.metadata[b"calibration"])["temperature"], dim=-1)
    np.testing.assert_allclose(np.array(table["probabilities"].to_pylist()), expected.numpy(), atol=1e-5)


def test_events_tell_the_course(three: Run) -> None:
    events = [json.loads(line) for line in three.events.read_text().splitlines()]
    one_phase = ["phase", "resume", "step", "step", "validation", "step", "validation", "phase_end", "attempt"]
    assert [event["event"] for event in events] == [*one_phase * 3, "test"]
    assert [event["phase"] for event in events] == [name for name in ("dae", "contrastive", "finetune") for _ in one_phase] + ["finetune"]
    assert [event["loss"] for event in events if event["event"] == "step"] == [
        loss for number in range(3) for loss in three.metrics(number)["losses"]
    ]
    times = [event["time"] for event in events]
    assert times == sorted(times)


def test_a_finished_phase_is_never_written_again(three: Run, place: tuple[Encoder, DataSet]) -> None:
    again = planning.outline(three.plan.config, place[1])
    assert again.missing() == []
    before, events, job = three.metrics(0), three.events.read_text(), vars(three.plan.chain[0].job)
    assert work(Plan(three.plan.config.model_dump(mode="json"), place[1].name, three.name, 0, "plain", [job], []), CPU)
    assert three.metrics(0) == before
    assert three.store.damage(job["result"]) is None
    assert three.events.read_text() == events


def test_a_logistic_head_takes_no_steps_and_beats_chance(logistic: Run, place: tuple[Encoder, DataSet]) -> None:
    found = logistic.metrics(0)
    assert found["losses"] == []
    assert found["steps"] == found["best_step"] == logistic.plan.chain[0].steps == 0
    assert found["held_bytes"] == [{"parameters": 4 * found["parameters"], "gradients": 0, "optimizer": 0}]
    numbers = {name: number for number, name in enumerate(place[1].label_names)}
    rows = pq.read_table(logistic.predictions).to_pylist()
    truth, said = (np.array([numbers[row[column]] for row in rows]) for column in ("label", "predicted"))
    counts = confusion(truth, said, 4)
    test = classification(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1))
    assert test["accuracy"] > 0.75  # the largest class has half of the rows
    assert found["scores"]["accuracy"] > 0.75


def test_a_logistic_head_leaves_the_encoder_alone(logistic: Run, place: tuple[Encoder, DataSet]) -> None:
    before = pretrained.pretrained(place[0]).encoder.state_dict()
    after = restore(logistic.folder(0)).embedder.encoder.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_logistic_head_predicts_as_scikit_learn_does(logistic: Run, place: tuple[Encoder, DataSet]) -> None:
    model, data_set = restore(logistic.folder(0)).eval(), place[1]
    embeddings = {}
    for name in ("train", "validation", "test"):
        padded = data_set.split(name).padded(np.arange(len(data_set.split(name))))
        with torch.no_grad():
            embeddings[name] = model.embedder(torch.from_numpy(padded.tokens), torch.from_numpy(padded.present)).numpy()
    truth = {name: data_set.split(name).labels[:, 0] for name in embeddings}
    pipelines = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)) for c in finetune.STRENGTHS]
    best = max(
        (p.fit(embeddings["train"], truth["train"]) for p in pipelines),
        key=lambda p: p.score(embeddings["validation"], truth["validation"]),
    )
    found = np.array(pq.read_table(logistic.predictions)["probabilities"].to_pylist())
    np.testing.assert_allclose(found, best.predict_proba(embeddings["test"]), atol=1e-3)


def test_a_logistic_head_of_two_classes(place: tuple[Encoder, DataSet]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 16)) * rng.uniform(0.1, 10, size=16)
    classes = (rows[:, 0] + rows[:, 1] + rng.normal(size=60) > 0).astype(int)
    model = Classifier(pretrained.pretrained(place[0]), Head(16, 2, None, 0.0))
    finetune.fit(model, (rows[:40], classes[:40]), (rows[40:], classes[40:]))
    with torch.no_grad():
        found = torch.softmax(model.head(torch.from_numpy(rows).float()), dim=-1).numpy()
    candidates = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(rows[:40], classes[:40]) for c in finetune.STRENGTHS
    ]
    best = max(candidates, key=lambda candidate: candidate.score(rows[40:], classes[40:]))
    np.testing.assert_allclose(found, best.predict_proba(rows), atol=1e-4)


def test_steps_may_start_at_logistic_regression_and_lose_nothing(start: Callable[..., Run]) -> None:
    found = start(phases=("finetune",), finetune={"head_start": "logistic", "head_learning_rate": 1e-4, "steps": 4}).metrics(0)
    assert [check["step"] for check in found["validations"]] == [0, 2, 4]
    assert len(found["losses"]) == 4
    assert found["scores"]["accuracy"] >= found["validations"][0]["accuracy"] > 0.75  # chance: half


@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_a_fitted_head_of_two_layers_says_what_logistic_regression_says(place: tuple[Encoder, DataSet], activation: str) -> None:
    rng = np.random.default_rng(0)
    classes = rng.choice([0, 1, 3], size=200)  # no row of class 2
    rows = (rng.normal(size=(200, 16)) * rng.uniform(0.1, 10, size=16) + 3 * np.eye(4)[classes].repeat(4, axis=1)).astype(np.float32)
    rows[:, 5] = 7.0  # constant
    model = Classifier(pretrained.pretrained(place[0]), Head(16, 4, activation, 0.0))
    finetune.fit(model, (rows[:150], classes[:150]), (rows[150:], classes[150:]))
    with torch.no_grad():
        said = model.head(torch.from_numpy(rows)).softmax(dim=-1).numpy()
    ways = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)) for c in finetune.STRENGTHS]
    best = max((way.fit(rows[:150], classes[:150]) for way in ways), key=lambda way: way.score(rows[150:], classes[150:]))
    assert np.mean(said.argmax(axis=1) == best.predict(rows)) > 0.95
    present = said[:, [0, 1, 3]]
    assert np.abs(present / present.sum(axis=1, keepdims=True) - best.predict_proba(rows)).mean() < (0.02 if activation == "tanh" else 0.05)
    assert said[:, 2].max() < 0.3


def test_a_phase_that_diverges_is_named(start: Callable[..., Run]) -> None:
    with pytest.raises(loop.Diverged, match=r"(?s)dae: .* at step .* of 40.*lower dae\.learning_rate"):
        start(dae={"learning_rate": 1.0, "steps": 40, "weight_decay": 1e30})
