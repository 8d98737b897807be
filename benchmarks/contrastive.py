"""Phase 2 on a CPU: what it costs to draw the classes as far together as sentence-transformers' CosineSimilarityLoss on sampled pairs does.

    python benchmarks/contrastive.py --texts FOLDER --out benchmarks/results/contrastive.json

FOLDER holds train and validation files with columns text and label; the encoder is the demo's, all-MiniLM-L6-v2. Every few steps logistic
regression on the embeddings of the training texts is scored on the validation texts; that look is not counted. Ours is phase 2. The peer
gets pairs of one class and of two in equal shares, as SetFit draws them, 16 a step. Both are run as they come, and with other learning
rates. Figures are CPU seconds on one thread until each validation accuracy is reached first, for each seed.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from threephase_ray import demo, phases, planning, pretrained, sampling
from threephase_ray.config import Config
from threephase_ray.loader import DataSet, Split
from threephase_ray.phases.spec import Batch, Ints, Phase, tensors
from threephase_ray.training import loop
from threephase_ray.training.engine import PlainEngine, Settings

CPU = torch.device("cpu")
OWN_RATES, RATES = (2e-4, 1e-4, 3e-4), (2e-5, 1e-4, 3e-4)  # learning rates, ours and the peer's, the defaults first
PAIRS = 16  # of the peer, in a step
TARGETS = (0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98)

Embed = Callable[[Tensor, Tensor], Tensor]
Steps = Iterator[None]  # each `next` is a step
Way = tuple[torch.nn.Module, Embed, Steps]  # what learns, how it embeds, how it is trained


def ours(phase: Phase, steps: int) -> Way:
    """Phase 2 with its own batches, warm-up and decay."""
    model = phase.model(None)
    engine = PlainEngine(model, phase.groups(model), CPU, Settings(0, "fp32", clip=1.0, epsilon=1e-8, micros=1))

    def train() -> Steps:
        made: list[Ints] = []
        for number in range(steps):
            engine.train(True)
            made = made or phase.steps(number)
            visits = made.pop(0)
            engine.backward(engine.apply(phase.loss, phase.collate(phase.train, visits, visits, number)))
            engine.step(loop.factor(number, steps, phase.training.warmup_share))
            yield

    return model, model, train()


def peer(train: Split, steps: int, rate: float, seed: int) -> Way:
    """CosineSimilarityLoss with the same warm-up and decay."""
    encoder = Transformer(str(demo.encoder()))
    network = SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")], device="cpu")
    loss, rng = CosineSimilarityLoss(network), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, fused=True)
    labels = train.labels[:, -1]

    def features(batch: Batch) -> dict[str, Tensor]:
        return {"input_ids": batch["ids"], "attention_mask": batch["mask"].long()}

    def train_it() -> Steps:
        classes = sampling.corrected_visits(labels, 1.0, 1.0, rng)
        for number in range(steps):
            network.train()
            pairs = sampling.balanced_pairs(classes, PAIRS, rng)
            sides = [tensors(train, pairs[:, side]) for side in (0, 1)]
            alike = (sides[0]["labels"][:, -1] == sides[1]["labels"][:, -1]).float()
            loss([features(side) for side in sides], alike).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate * loop.factor(number, steps, 0.1)
            optimizer.step()
            optimizer.zero_grad()
            yield

    def embed(ids: Tensor, mask: Tensor) -> Tensor:
        return network({"input_ids": ids, "attention_mask": mask.long()})["sentence_embedding"]

    return network, embed, train_it()


@torch.no_grad()
def accuracy(model: torch.nn.Module, embed: Embed, train: Split, validation: Split) -> float:
    """Of logistic regression on the embeddings, without dropout."""
    model.eval()
    sides = []
    for split in (train, validation):
        parts = [tensors(split, visits) for visits in sampling.by_length(split.lengths, 64)]
        found = torch.cat([embed(part["ids"], part["mask"]) for part in parts])
        sides.append((torch.nn.functional.normalize(found, dim=1).numpy(), torch.cat([part["labels"][:, -1] for part in parts]).numpy()))
    return float(LogisticRegression(C=10.0, max_iter=1000).fit(*sides[0]).score(*sides[1]))


def course(way: Way, data_set: DataSet, every: int) -> list[tuple[float, float]]:
    """CPU seconds so far and validation accuracy, every few steps."""
    model, embed, steps = way
    spent, seen = 0.0, []
    splits = data_set.split("train"), data_set.split("validation")
    while True:
        began = measuring.cpu_seconds()
        done = sum(1 for _ in zip(range(every), steps, strict=False))
        spent += measuring.cpu_seconds() - began
        if done < every:
            return seen
        seen.append((spent, accuracy(model, embed, *splits)))


def until(seen: list[tuple[float, float]], target: float) -> float | None:
    """CPU seconds when the accuracy was first reached."""
    return next((spent for spent, reached in seen if reached >= target), None)


def configured(asked: argparse.Namespace, seed: int, folder: Path, rate: float) -> Config:
    """A subset of the texts, drawn by the seed; phase 2 as it is by default, but for the learning rate."""
    return Config(
        name="benchmark",
        seed=seed,
        data={"source": str(asked.texts), "max_length": 128, "rows": {"per_class": asked.per_class, "validation": 350, "test": 350}},
        encoder={"path": "demo:all-minilm-l6-v2"},
        contrastive={"learning_rate": rate},
        store=str(folder / "store"),
        scratch=str(folder / "scratch"),
    )


def main() -> None:
    """Train every way with every seed, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder with train and validation files")
    parser.add_argument("--per-class", type=int, default=10, help="training texts of each class")
    parser.add_argument("--steps", type=int, default=40, help="of ours; the peer takes as many with --peer-factor times that")
    parser.add_argument("--peer-factor", type=int, default=3, help="its steps are a third as large, and it needs more of them")
    parser.add_argument("--every", type=int, default=4, help="steps between two looks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    asked = parser.parse_args()
    pretrained.quiet()
    torch.set_num_threads(1)
    courses: dict[str, list[list[tuple[float, float]]]] = {}
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as temporary:
            for rate in OWN_RATES:
                config = configured(asked, seed, Path(temporary), rate)
                data_set = planning.prepare(config)  # the same for all
                torch.manual_seed(seed)
                seen = course(ours(phases.build("contrastive", config, data_set), asked.steps), data_set, asked.every)
                courses.setdefault(f"ours, {rate:g}", []).append(seen)
            for rate in RATES:
                way = peer(data_set.split("train"), asked.peer_factor * asked.steps, rate, seed)
                seen = course(way, data_set, asked.every)
                courses.setdefault(f"CosineSimilarityLoss, {rate:g}", []).append(seen)
        print(f"seed {seed}: " + "; ".join(f"{way} {max(each for _, each in runs[-1]):.3f}" for way, runs in courses.items()), flush=True)
    lines: list[dict[str, Any]] = []
    for target in TARGETS:
        reached = {way: [until(seen, target) for seen in runs] for way, runs in courses.items()}
        whole = {way: statistics.median(each) for way, each in reached.items() if None not in each}
        lines.append({"accuracy": target, "cpu_seconds": reached, "median": whole})
        print(f"{target:.2f}: " + "; ".join(f"{way} {spent:.1f} s" for way, spent in whole.items()))
    facts = measuring.hardware("torch", "transformers", "sentence-transformers")
    asked_for = {name: str(value) for name, value in vars(asked).items() if name != "out"}
    asked.out.write_text(json.dumps(facts | {"asked": asked_for, "courses": courses, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
