"""The presets say what they claim to say."""

from pathlib import Path

from threephase_ray import command
from threephase_ray.config import Baseline, Config, CosineRegression

LEAST = ["--name", "x", "--data.source", "x", "--encoder.path", "x"]


def test_default_preset_is_what_stands_without_it(root: Path) -> None:
    given = command.read([str(root / "jobs/configs/presets/default.yaml")], LEAST)
    assert given == Config(name="x", data={"source": "x"}, encoder={"path": "x"}, baseline=Baseline())


def test_paper_preset_has_the_papers_loss_and_schedule(root: Path) -> None:
    paper = command.read([str(root / "jobs/configs/presets/paper.yaml")], LEAST)
    assert paper.contrastive.loss == CosineRegression(pairs="sampled")
    assert (paper.dae.warmup_share, paper.finetune.warmup_share) == (0.5, 0.2)
    assert round(3 * paper.contrastive.warmup_share, 3) == 1.0
    assert (paper.dae.noise_ratio, paper.finetune.epochs, paper.finetune.epsilon) == (0.6, 70, 2e-5)
