"""The first 20 losses of each phase are the same however they are computed, and the same as they were."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit import tiny_models
from threephase_ray.results import Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(950)]
GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"
STEPS, BATCH = 20, 8
FEW = ["plain0-1x8", "deepspeed1-1x4", "deepspeed1-2x2"]  # for variants that differ from others in their arithmetic alone
VARIANTS: list[dict[str, Any]] = [
    {"name": "dae", "phase": "dae", "knobs": {}},
    {"name": "dae-checkpointing", "phase": "dae", "knobs": {"compute": {"gradient_checkpointing": True}}, "ways": FEW},
    {"name": "masked-lm", "phase": "dae", "knobs": {"dae": {"objective": "mlm", "noise": "masking"}}, "ways": FEW},
    {"name": "contrastive", "phase": "contrastive", "knobs": {}},
    {"name": "cosine", "phase": "contrastive", "knobs": {"contrastive": {"loss": {"name": "cosine_regression"}}}, "ways": FEW},
    {
        "name": "cosine-pairs",
        "phase": "contrastive",
        "knobs": {"contrastive": {"loss": {"name": "cosine_regression", "pairs": "sampled"}}},
        "ways": FEW,
    },
    {"name": "joint", "phase": "joint", "knobs": {}, "ways": FEW},
    {"name": "finetune", "phase": "finetune", "knobs": {}},
    {
        "name": "permutation",
        "phase": "dae",
        "knobs": {"dae": {"objective": "permutation", "noise_ratio": 0.3, "layer_decay": 0.8}},
        "ways": FEW,
    },
    {
        "name": "finetune-contrast",
        "phase": "finetune",
        "knobs": {"finetune": {"contrastive_weight": 0.4, "class_weight": "balanced", "label_smoothing": 0.1}},
        "ways": FEW,
    },
]
# One worker with the whole batch, or two with half of it each; in one pass, or accumulated over two.
WAYS: list[dict[str, Any]] = [
    {"engine": engine, "stage": stage, "workers": workers, "micro": BATCH // workers // passes}
    for workers, engine, stage, passes in [
        (1, "plain", 0, 1), (1, "deepspeed", 0, 1), (1, "deepspeed", 1, 2), (1, "deepspeed", 3, 1),
        (2, "plain", 0, 2), (2, "deepspeed", 0, 1), (2, "deepspeed", 1, 1), (2, "deepspeed", 1, 2),
        (2, "deepspeed", 2, 1), (2, "deepspeed", 2, 2), (2, "deepspeed", 3, 2),
    ]
]  # fmt: skip
REFERENCE = WAYS[0]


def label(way: dict[str, Any]) -> str:
    return f"{way['engine']}{way['stage']}-{way['workers']}x{way['micro']}"


def ways(variant: str) -> list[str]:
    """The ways in which a variant is computed."""
    return next(each.get("ways", [label(way) for way in WAYS]) for each in VARIANTS if each["name"] == variant)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Figures of each phase by (variant, way)."""
    folder = tmp_path_factory.mktemp("golden")
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert")
    data_set = tiny_models.prepared(folder, encoder)
    training = {"steps": STEPS, "batch": BATCH, "learning_rate": 1e-3, "validations": 2}
    config = {
        "name": "golden",
        "data": {"source": "unused"},
        "encoder": {"path": encoder.path, "dropout": 0.0},
        "dae": training,
        "contrastive": training | {"texts_per_class": 2, "loss": {"name": "supervised_contrastive", "temperature": 0.1}},
        "joint": training,
        "finetune": training | {"head_dropout": 0.0, "head_start": "random", "head_learning_rate": 1e-3, "patience": None},
    }
    case = {"config": config, "data": str(data_set.folder), "variants": VARIANTS, "ways": WAYS}
    (folder / "case.json").write_text(json.dumps(case))
    script = root / "tests" / "integration" / "replay.py"
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, cwd=root, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    store = Store(str(folder / "store"), str(folder / "scratch"))
    return {
        (variant["name"], way): json.loads((store.fetch(f"phases/{variant['name']}-{way}") / "metrics.json").read_text())
        for variant in VARIANTS
        for way in ways(variant["name"])
    }


@pytest.mark.parametrize("variant", [variant["name"] for variant in VARIANTS])
def test_losses_do_not_depend_on_how_they_are_computed(played, variant: str, regenerate: bool) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if regenerate:
        golden[variant] = played[variant, label(REFERENCE)]["losses"]
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    for way in ways(variant):
        assert len(played[variant, way]["losses"]) == STEPS
        assert played[variant, way]["losses"] == pytest.approx(golden[variant], abs=1e-5), way


def test_recomputing_activations_changes_nothing(played) -> None:
    for way in ways("dae-checkpointing"):
        plain, saving = (played[variant, way]["losses"] for variant in ("dae", "dae-checkpointing"))
        assert saving == pytest.approx(plain, abs=1e-5), way


@pytest.mark.parametrize("variant", [variant["name"] for variant in VARIANTS])
def test_losses_fall(played, variant: str) -> None:
    losses = played[variant, label(REFERENCE)]["losses"]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("variant", [variant["name"] for variant in VARIANTS])
def test_validation_loss_is_summed_exactly(played, variant: str) -> None:
    expected = played[variant, label(REFERENCE)]["scores"]["loss"]
    for way in ways(variant):
        assert played[variant, way]["scores"]["loss"] == pytest.approx(expected, abs=1e-5), way


@pytest.mark.parametrize("variant", ["dae", "contrastive", "finetune"])
@pytest.mark.parametrize(
    ("kind", "way", "share"),
    [
        ("optimizer", "deepspeed0-2x4", 1.0), ("optimizer", "deepspeed1-2x2", 0.5),
        ("gradients", "deepspeed1-2x2", 1.0), ("gradients", "deepspeed2-2x2", 0.5),
        ("parameters", "deepspeed2-2x2", 1.0), ("parameters", "deepspeed3-2x2", 0.5),
    ],
)  # fmt: skip
def test_sharding_is_real(played, variant: str, kind: str, way: str, share: float) -> None:
    """Bytes that each of two workers holds, against those of one worker alone."""
    (alone,) = played[variant, "deepspeed0-1x8"]["held_bytes"]
    both = played[variant, way]["held_bytes"]
    assert len(both) == 2
    for worker in both:
        assert worker[kind] / alone[kind] == pytest.approx(share, abs=0.05)
