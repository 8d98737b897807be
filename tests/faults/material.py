"""What the runs train on: a tiny checkpoint and texts, and a configuration whose steps take about a tenth of a second."""

from pathlib import Path

from tests.unit import tiny, tiny_models

STEPS = {"dae": 40, "contrastive": 40, "finetune": 60}
PHASES = tuple(STEPS)
INTERVAL = 5  # steps between two checkpoints
ROWS = {"train": 96, "validation": 24, "test": 16}
CONFIG = """
name: run
data: {{source: {source}}}
encoder: {{path: {encoder}, dropout: 0.1}}
dae: {{steps: {dae}, learning_rate: 1e-3, validations: 2}}
contrastive: {{steps: {contrastive}, batch: 24, learning_rate: 1e-3, validations: 2}}
finetune: {{steps: {finetune}, batch: 16, learning_rate: 1e-3, validations: 3, min_steps: 1000}}
compute: {{workers: 2, global_batch: 24, micro_batch: 12, precision: fp32}}
checkpoint: {{steps: {interval}}}
"""


def make(folder: Path) -> Path:
    """Write checkpoint, texts and configuration; the configuration's path."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert", **sizes)
    for seed, (split, count) in enumerate(ROWS.items()):
        tiny.write_csv(folder / "source" / f"{split}.csv", tiny_models.texts(count, longest=24, seed=seed))
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(source=folder / "source", encoder=encoder.path, interval=INTERVAL, **STEPS))
    return path
