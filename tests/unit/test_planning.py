import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit import tiny, tiny_models
from threephase_ray import command, data, planning
from threephase_ray.config import Config, Encoder
from threephase_ray.errors import ConfigError, JobError
from threephase_ray.imbalance import corrected_sizes
from threephase_ray.loader import DataSet
from threephase_ray.memory import Size
from threephase_ray.planning import Outline
from threephase_ray.results import Store
from threephase_ray.training import plan

ALL = {"dae", "contrastive", "finetune"}
BASELINE = {"batch": 12, "learning_rate": 1e-3, "steps": 4, "same_budget": False}
BIG = Size(parameters=10**9, layers=24, hidden=1024, heads=16, tokens=32 * 128, length=128, vocabulary=30_000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planning")


@pytest.fixture(scope="module")
def encoder(place: Path) -> Encoder:
    return tiny_models.checkpoint(place / "checkpoint", "bert")


@pytest.fixture(scope="module")
def data_set(place: Path, encoder: Encoder) -> DataSet:
    return tiny_models.prepared(place, encoder)


@pytest.fixture
def configured(encoder: Encoder, tmp_path: Path) -> Config:
    return tiny_models.configured(encoder, store=str(tmp_path / "store"), seed=3)


def changed(config: Config, knobs: dict[str, Any]) -> Config:
    """The configuration with other values of some knobs."""
    return Config(**command.merge(config.model_dump(mode="json"), knobs))


def keys(plan: Outline) -> dict[str, str]:
    """The key of each phase."""
    return {step.job.name: step.job.key for step in [*plan.chain, *([plan.baseline] if plan.baseline else [])]}


@pytest.mark.parametrize(
    ("knobs", "follow"),
    [
        ({"dae": {"noise_ratio": 0.5}}, ALL),
        ({"contrastive": {"loss": {"temperature": 0.2}}}, {"contrastive", "finetune"}),
        ({"contrastive": {"imbalance": {"max_ratio": 20}}}, {"contrastive", "finetune"}),
        ({"finetune": {"learning_rate": 1e-5}}, {"finetune"}),
        ({"joint": {"learning_rate": 1e-5}}, set()),
        ({"seed": 4}, ALL),
        ({"encoder": {"dropout": 0.3}}, ALL),
        ({"encoder": {"pooling": "mean"}}, ALL),
        ({"encoder": {"pooling": "cls"}}, set()),  # what auto chooses here
        ({"compute": {"precision": "bf16"}}, ALL),
        ({"compute": {"global_batch": 8}}, set()),  # every phase sets its own batch here
        ({"compute": {"workers": 4, "micro_batch": 2, "zero_stage": 3, "cpus_per_worker": 2, "worker_memory_gb": 1}}, set()),
        ({"compute": {"gradient_checkpointing": True, "start_timeout_s": 5}}, set()),
        ({"name": "another"}, set()),
        ({"baseline": BASELINE}, set()),
    ],
)
def test_keys_follow_what_a_result_depends_on(configured: Config, data_set: DataSet, knobs: dict[str, Any], follow: set[str]) -> None:
    before, after = (keys(planning.outline(config, data_set)) for config in (configured, changed(configured, knobs)))
    assert {name for name in ALL if before[name] != after[name]} == follow


def test_keys_follow_the_texts_and_the_weights_but_not_their_place(
    configured: Config, data_set: DataSet, tmp_path: Path, encoder: Encoder
) -> None:
    before = keys(planning.outline(configured, data_set))
    elsewhere = tiny_models.checkpoint(tmp_path / "elsewhere", "bert")
    assert keys(planning.outline(changed(configured, {"encoder": {"path": elsewhere.path}}), data_set)) == before
    larger = tiny_models.checkpoint(tmp_path / "larger", "bert", intermediate_size=64)
    assert not set(keys(planning.outline(changed(configured, {"encoder": {"path": larger.path}}), data_set)).values()) & set(
        before.values()
    )
    source = tiny.write_csv(tmp_path / "train.csv", tiny_models.texts(50, seed=9))
    other = DataSet(
        data.prepare(configured.data.model_copy(update={"source": str(source)}), data_set.tokenizer, 40, tiny.opened(tmp_path), 0)
    )
    assert not set(keys(planning.outline(configured, other)).values()) & set(before.values())
    moved = planning.outline(changed(configured, {"store": str(tmp_path / "moved")}), data_set)
    assert keys(moved) == before
    assert moved.chain[0].job.result == f"phases/dae-{before['dae']}"


def test_an_open_batch_is_the_global_one(configured: Config, data_set: DataSet) -> None:
    open_batch = changed(configured, {"dae": {"batch": None}})
    filled = {size: changed(configured, {"dae": {"batch": size}}) for size in (8, 32)}
    assert planning.resolve(open_batch).dae.batch == 32
    assert keys(planning.outline(open_batch, data_set)) == keys(planning.outline(filled[32], data_set))
    smaller = changed(open_batch, {"compute": {"global_batch": 8}})
    assert keys(planning.outline(smaller, data_set)) == keys(planning.outline(filled[8], data_set))


def test_plain_fine_tuning_is_a_run_of_phase_three_alone(configured: Config, data_set: DataSet) -> None:
    for knobs in (BASELINE, BASELINE | {"same_budget": True, "steps": None}):
        plan = planning.outline(changed(configured, {"baseline": knobs}), data_set)
        assert plan.config.baseline is not None
        same = plan.config.baseline.model_dump(mode="json", exclude={"same_budget"})
        alone = planning.outline(changed(configured, {"phases": ["finetune"], "finetune": same}), data_set)
        assert keys(plan)["baseline"] == keys(alone)["finetune"]
        assert plan.baseline is not None
        assert plan.baseline.job.previous is None
        assert plan.baseline.job.result == alone.chain[0].job.result


@pytest.mark.parametrize(
    ("knobs", "texts"),
    [
        ({}, 2 * 30 + 36 + 30),  # 3 steps each, of 10, 12 and 10 texts; the autoencoder has an encoder and a decoder
        ({"dae": {"objective": "mlm", "noise": "masking"}}, 1.5 * 30 + 36 + 30),
        ({"phases": ["joint", "finetune"]}, 3 * 36 + 30),
        ({"phases": ["contrastive", "finetune"], "contrastive": {"loss": {"name": "cosine_regression", "pairs": "sampled"}}}, 3 * 20 + 30),
        ({"finetune": {"head": "logistic"}}, 2 * 30 + 36),
    ],
)
def test_the_same_budget_is_counted_in_passes_over_texts(configured: Config, data_set: DataSet, knobs: dict[str, Any], texts: int) -> None:
    plan = planning.outline(changed(changed(configured, {"baseline": {"batch": 5}}), knobs), data_set)
    assert plan.baseline is not None
    assert sum(step.texts * step.passes for step in plan.chain) == texts
    assert plan.baseline.steps == round(texts / 5)


def test_a_resolved_configuration_gives_the_same_plan(configured: Config, data_set: DataSet) -> None:
    first = planning.outline(changed(configured, {"baseline": {"batch": None}, "dae": {"batch": None}}), data_set)
    again = planning.outline(changed(first.config, {}), data_set)
    assert keys(again) == keys(first)
    assert again.config == first.config
    assert "auto" not in (first.config.encoder.pooling, first.config.compute.precision)


def test_class_sizes_after_the_correction(configured: Config, data_set: DataSet, capsys: pytest.CaptureFixture[str]) -> None:
    knobs = {"contrastive": {"imbalance": {"max_ratio": 20}}}
    planning.show_classes(planning.outline(changed(configured, knobs), data_set))
    printed = capsys.readouterr().out
    sizes = data_set.facts["splits"]["train"]["class_counts"][: data_set.classes]
    after = corrected_sizes(np.array(sizes), 1.5, 20).tolist()
    assert after != sizes
    for name, size, grown in zip(data_set.label_names, sizes, after, strict=True):
        assert [name, str(size), str(grown)] in [line.replace("│", " ").split() for line in printed.splitlines()]


def test_everything_is_shown(configured: Config, data_set: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planning.outline(changed(configured, {"baseline": BASELINE}), data_set)
    planning.show(plan)
    repeated = tiny.write_csv(tmp_path / "train.csv", [*tiny.rows(), *tiny.rows()[:3]])
    planning.show_data(DataSet(tiny.prepare(tmp_path, source=str(repeated))).facts)
    printed = capsys.readouterr().out
    stock = "stock AutoModelForSequenceClassification (cls pooling)"
    for word in (*keys(plan).values(), "after the imbalance correction", "ZeRO stage 0", stock, "drawn from train", "duplicate"):
        assert word in printed


@pytest.mark.parametrize(
    ("compute", "stage", "reason"),
    [
        ({"workers": 1}, 0, "nobody to share with"),
        ({"workers": 2, "worker_memory_gb": 26}, 1, "the lowest that fits"),
        ({"workers": 4, "worker_memory_gb": 1}, 3, "may not fit"),
        ({"workers": 4, "worker_memory_gb": 1, "zero_stage": 2}, 2, "as asked"),
    ],
)
def test_zero_stage(configured: Config, compute: dict[str, Any], stage: int, reason: str) -> None:
    chosen, why = planning.choose_stage(changed(configured, {"compute": compute}), replace(BIG, parameters=1000 if stage == 0 else 10**9))
    assert chosen == stage
    assert reason in why


def test_memory_of_a_worker(configured: Config) -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 16e9
    for compute, expected in (({"workers": 4}, physical / 4), ({"worker_memory_gb": 2.5}, 2.5e9), ({"use_gpu": True}, gpu)):
        assert planning.worker_memory(changed(configured, {"compute": compute})) == expected


@pytest.mark.parametrize(("asked", "use_gpu", "found"), [("auto", False, "fp32"), ("auto", True, "bf16"), ("fp32", True, "fp32")])
def test_precision(configured: Config, asked: str, use_gpu: bool, found: str) -> None:
    config = changed(configured, {"compute": {"precision": asked, "use_gpu": use_gpu}})
    assert planning.resolve(config).compute.precision == found


def test_what_the_store_has_is_not_trained_again(configured: Config, data_set: DataSet) -> None:
    plan = planning.outline(configured, data_set)
    assert plan.missing() == [step.job for step in plan.chain]
    name, store = plan.chain[0].job.result, Store(configured.store, configured.scratch)
    folder = store.attempt(name, 1)
    (folder / "weights.safetensors").write_bytes(b"0123")
    assert planning.outline(configured, data_set).missing() == plan.missing()  # it was not finished
    store.commit(name, 1)
    again = planning.outline(configured, data_set)
    assert [step.finished for step in again.chain] == [True, False, False]
    assert again.missing() == [step.job for step in plan.chain[1:]]
    (folder / "weights.safetensors").write_bytes(b"0124")
    with pytest.raises(JobError, match=r"weights\.safetensors has other content") as raised:
        planning.outline(configured, data_set)
    assert name in str(raised.value)


def test_only_phases_that_are_listed_are_checked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "distilbert"}')
    config = tiny_models.configured(Encoder(path=str(tmp_path)), dae={"decoder": "tied"})
    with pytest.raises(ConfigError, match="no causal class with cross-attention"):
        planning.check(config)
    with pytest.raises(ConfigError, match="no causal class with cross-attention"):
        planning.check(changed(config, {"phases": ["joint", "finetune"]}))
    planning.check(changed(config, {"phases": ["contrastive", "finetune"]}))


def test_joint_with_sampled_pairs_is_refused(configured: Config, data_set: DataSet) -> None:
    knobs = {"phases": ["joint"], "contrastive": {"loss": {"name": "cosine_regression", "pairs": "sampled"}}}
    with pytest.raises(ConfigError, match=r"set contrastive\.loss\.pairs to batch"):
        planning.outline(changed(configured, knobs), data_set)


def test_a_preview_reads_nothing(configured: Config, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = changed(configured, {"data": {"source": None, "train": str(place / "source" / "train.csv")}})
    planning.preview(config)
    printed = capsys.readouterr().out
    assert "train.csv" in printed
    assert "20% of train" in printed
    assert "not made yet" in printed
    assert not (tmp_path / "store").exists()
    made = planning.prepare(config)
    planning.preview(config)
    assert "is there" in capsys.readouterr().out
    assert planning.prepare(config).folder == made.folder


def test_workers_are_told_absolute_paths(place: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    told = plan.told(tiny_models.configured(Encoder(path="checkpoint"), store="kept"))
    assert told["store"] == str(place / "kept")
    assert told["encoder"]["path"] == str(place / "checkpoint") == encoder.path
    elsewhere = plan.told(tiny_models.configured(Encoder(path="org/name"), store="s3://bucket/kept"))
    assert (elsewhere["store"], elsewhere["encoder"]["path"]) == ("s3://bucket/kept", "org/name")
