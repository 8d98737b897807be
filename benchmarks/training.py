"""Training on a CPU against stock libraries: phase 1 against sentence-transformers, phase 3 against Hugging Face's Trainer.

    python benchmarks/training.py --texts FOLDER --out benchmarks/results/training.json

FOLDER holds train and validation files with columns text and label; the encoder is the demo's, all-MiniLM-L6-v2. Each way goes over the
same texts once, with its own batches, collation and optimiser steps: ours as workers train (without Ray and DeepSpeed, which
`engine.py` weighs), peers by their trainers as they come, and in bare loops over our batches, whose collation is not counted.
Figures are ratios of CPU time on one thread, of ways that take turns, each in a process of its own; ours has our workers' environment.
First it is made sure that ours and the peers compute the same: without dropout the losses of the same steps agree.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import peers
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from threephase_ray import demo, export, phases, planning, pretrained
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.phases.spec import Phase
from threephase_ray.training import loop
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.fit import KEEP_MEMORY

CPU = torch.device("cpu")
FP32 = torch.float32
STEPS, NEAR = 6, 1e-4  # whose losses are compared, and how far apart they may be
QUIET = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}

Epoch = Callable[[], Any]


class Unsaved:
    """A keeper that takes no checkpoints."""

    def wishes(self) -> tuple[bool, bool, bool]:
        """None."""
        return False, False, False


def own(phase: Phase, precision: str) -> Epoch:
    """Our loop over all texts once: batches, noise, steps."""
    model = phase.model(None)
    engine = PlainEngine(model, phase.groups(model), CPU, Settings(0, precision, clip=1.0, epsilon=1e-8, micros=1))
    setting = loop.Setting(phase.name, phase, engine, model, CPU, phase.training.batch, lambda event: None, Unsaved())

    def epoch() -> None:
        steps = phase.steps(0)
        course = loop.Course(steps=len(steps))
        for visits in steps:
            loop.take_step(setting, course, visits)

    return epoch


def replayed(phase: Phase, step: peers.Step) -> Epoch:
    """A peer's step over our batches; gives the losses."""
    batches = [phase.collate(phase.train, visits, visits, 0) for visits in phase.steps(0)]
    return lambda: [step(batch) for batch in batches]


def arguments(kind: Any, batch: int, folder: Path, **more: Any) -> Any:
    """A trainer's settings: one epoch, and nothing besides training."""
    return kind(str(folder / "trainer"), num_train_epochs=1, per_device_train_batch_size=batch, learning_rate=peers.RATE, **QUIET, **more)


def noisy_texts(phase: Phase, data_set: DataSet) -> Dataset:
    """Noisy and clean texts."""
    columns: dict[str, list[str]] = {"ids": [], "decoder_ids": []}
    for visits in phase.steps(0):
        batch = phase.collate(phase.train, visits, visits, 0)
        for name, texts in columns.items():
            texts += data_set.tokenizer.batch_decode(batch[name], skip_special_tokens=True)
    return Dataset.from_dict(columns).shuffle(seed=0)


def autoencoder(way: str, config: Config, data_set: DataSet, folder: Path) -> Epoch:
    """A way through phase 1."""
    phase = phases.build("dae", config, data_set)
    if way.startswith("ours"):
        return own(phase, "bf16" if way.endswith("bfloat16") else "fp32")
    network = peers.denoising(demo.encoder(), "cls")
    if way.endswith("our batches"):
        return replayed(phase, peers.autoencoder(network, int(data_set.tokenizer.pad_token_id), CPU, FP32))
    asked = arguments(SentenceTransformerTrainingArguments, phase.training.batch, folder, bf16=way.endswith("bfloat16"))
    return SentenceTransformerTrainer(network.encoder, asked, noisy_texts(phase, data_set), loss=network).train


def classifier(way: str, config: Config, data_set: DataSet, folder: Path) -> Epoch:
    """A way through phase 3."""
    phase, split = phases.build("finetune", config, data_set), data_set.split("train")
    if way == "ours":
        return own(phase, "fp32")
    stock = peers.classifier(demo.encoder(), data_set.classes)
    if way.endswith("our batches"):
        return replayed(phase, peers.classification(stock, CPU, FP32))
    tokens = [split.padded(np.array([row])).tokens[0].tolist() for row in range(len(split))]
    rows = Dataset.from_dict({"input_ids": tokens, "labels": split.labels[:, -1], "length": split.lengths})
    sampling = "group_by_length" if way.endswith("grouped by length") else "random"
    asked = arguments(TrainingArguments, phase.training.batch, folder, train_sampling_strategy=sampling)
    return Trainer(stock, asked, DataCollatorWithPadding(data_set.tokenizer), rows).train


WAYS = {
    "dae": (
        autoencoder,
        ["ours", "ours, bfloat16", "sentence-transformers", "sentence-transformers, bfloat16", "sentence-transformers, our batches"],
    ),
    "finetune": (classifier, ["ours", "Trainer", "Trainer, grouped by length", "bare loop, our batches"]),
}


def gate(config: Config, data_set: DataSet) -> dict[str, float]:
    """How far apart the losses are along the same steps without dropout, in both phases; fails where that is too far."""
    changes = {"encoder": config.encoder.model_copy(update={"dropout": 0.0})}
    alike = {"learning_rate": peers.RATE, "head_learning_rate": peers.RATE, "weight_decay": 0.0}
    changes |= {"dae": config.dae.model_copy(update=alike), "finetune": config.finetune.model_copy(update=alike | {"head_dropout": 0.0})}
    still = config.model_copy(update=changes)
    dae, finetune = (phases.build(name, still, data_set) for name in ("dae", "finetune"))
    network, pad = peers.denoising(demo.encoder(), "cls", dropout=False), int(data_set.tokenizer.pad_token_id)
    models = {"dae": dae.model(None), "finetune": finetune.model(None)}
    models["dae"].embedder.layers.requires_grad_(False)  # the bottleneck, which the peer lacks, stays the identity
    network.decoder.load_state_dict(models["dae"].decoder.causal.state_dict(), strict=False)  # its cross-attention begins at random
    exported = export._stock_classifier(models["finetune"], data_set.label_names[: data_set.classes])
    found = {}
    for phase, peer in ((dae, peers.autoencoder(network, pad, CPU, FP32)), (finetune, peers.classification(exported, CPU, FP32))):
        mine = peers.own(phase, CPU, "fp32", models[phase.name])
        batches = [phase.collate(phase.train, visits, visits, 0) for visits in phase.steps(0)[:STEPS]]
        found[phase.name] = max(abs(mine(batch) - peer(batch)) for batch in batches)
    if max(found.values()) > NEAR:
        raise SystemExit(f"the losses differ by {found}: the ways do not compute the same")
    return found


def prepared(asked: argparse.Namespace, batch: int, folder: Path) -> tuple[Config, DataSet]:
    """The texts, tokenised; the configuration of the phases over them."""
    config = Config(
        name="benchmark",
        data={"source": str(asked.texts), "max_length": asked.max_length, "rows": {"train": asked.rows, "validation": 64, "test": 64}},
        encoder={"path": "demo:all-minilm-l6-v2", "pooling": "cls"},
        store=str(folder / "store"),
        scratch=str(folder / "scratch"),
        dae={"batch": batch},
        finetune={"batch": batch, "head_start": "random"},
    )
    return config, planning.prepare(config)


def measured(phase: str, batch: int, asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A line for each way through a phase."""
    common = [sys.executable, __file__, "--texts", asked.texts, "--rows", asked.rows, "--max-length", asked.max_length, "--store", folder]
    commands = {
        way: ([*map(str, common), "--batches", str(batch), "--phase", phase, "--way", way], KEEP_MEMORY if way.startswith("ours") else {})
        for way in WAYS[phase][1]
    }
    spent = measuring.rounds(commands, asked.rounds)
    lines = []
    for way, each in spent.items():
        ratio = measuring.ratio(each, spent["ours"])
        lines.append({"phase": phase, "batch": batch, "way": way, "ratio": ratio, "cpu_seconds": each})
        print(f"{phase:9} batch {batch:3} {way:38} {ratio['median']:.2f} times our CPU time", flush=True)
    return lines


def main() -> None:
    """Compare, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder with train and validation files")
    parser.add_argument("--rows", type=int, default=128, help="training texts")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text at most")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32], help="texts of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--phase", choices=WAYS, help="run one way alone: of this phase ...")
    parser.add_argument("--way", help="... this one; an epoch for each line of input")
    parser.add_argument("--store", type=Path, help="where that finds its texts")
    asked = parser.parse_args()
    pretrained.quiet()
    torch.set_num_threads(1)
    if asked.way:
        config, data_set = prepared(asked, asked.batches[0], asked.store)
        return measuring.serve(WAYS[asked.phase][0](asked.way, config, data_set, asked.store))
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for batch in asked.batches:
            apart = gate(*prepared(asked, batch, Path(temporary)))
            lines += [line | {"losses_apart": apart[phase]} for phase in WAYS for line in measured(phase, batch, asked, Path(temporary))]
    facts = measuring.hardware("torch", "transformers", "sentence-transformers", "accelerate")
    asked_for = {name: str(value) for name, value in vars(asked).items() if value is not None and name != "out"}
    asked.out.write_text(json.dumps(facts | {"asked": asked_for, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
