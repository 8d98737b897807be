"""Each phase on one GPU: the share of its peak that real tokens reach in bfloat16, and the speed of stock libraries beside it.

    python benchmarks/gpu.py --texts FOLDER --out benchmarks/results/gpu.json

The encoder has RoBERTa-base's size and random weights; FOLDER holds train and validation files with columns text and label. What is
timed needs neither Ray nor DeepSpeed: a worker's step (forward, backward, check of the gradients, clipping, AdamW) over batches on the
GPU. Peers get the same texts padded, in random order as they come, or in our very batches, which are of like length.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flops
import numpy as np
import peers
import pyarrow.parquet as pq
import sentence_transformers
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizerFast

from threephase_ray import data, phases, pretrained, sampling
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.phases.spec import Batch, Phase
from threephase_ray.results import Store
from threephase_ray.training.evaluate import to_device

CUDA = torch.device("cuda")
WARM_UP, TIMED, ROUNDS = 3, 8, 3
PHASES = ("dae", "contrastive", "finetune")


@dataclass(frozen=True)
class Candidate:
    """One way to train a phase: a step, and the batches that it goes over; `flops`: needed for the real tokens of all of them."""

    phase: str
    name: str
    step: peers.Step
    batches: list[Batch]
    flops: float
    tokens: int


def checkpoint(folder: Path, texts: Path) -> RobertaConfig:
    """A random encoder of RoBERTa-base's size, and a tokenizer made of these texts."""
    tokenizer = ByteLevelBPETokenizer()
    rows = pq.read_table(texts / "train.parquet", columns=["text"])["text"].to_pylist()
    tokenizer.train_from_iterator(rows, vocab_size=30_000, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False)
    folder.mkdir()
    tokenizer.save_model(str(folder))
    words = RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=512)
    words.save_pretrained(folder)
    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    RobertaForMaskedLM(config).save_pretrained(folder)
    return config


def batches(phase: Phase, steps: list[Any]) -> list[Batch]:
    """Some steps' batches, on the GPU."""
    return [to_device(phase.collate(phase.train, visits, visits, 0), CUDA) for visits in itertools.islice(itertools.cycle(steps), TIMED)]


def candidates(name: str, config: Config, facts: RobertaConfig, data_set: DataSet, folder: Path) -> list[Candidate]:
    """All ways of a phase, ours first."""
    phase = phases.build(name, config, data_set)
    steps = phase.steps(0)
    size = max(len(visits) for visits in steps)
    order = sampling.first_visits(np.random.default_rng(0).permutation(len(phase.train)))
    mixed = steps if name == "contrastive" else [order[i * size : (i + 1) * size] for i in range(len(order) // size)]
    grouped, padded = batches(phase, steps), batches(phase, mixed)

    def candidate(way: str, step: peers.Step, over: list[Batch]) -> Candidate:
        needed = [flops.work(facts, batch) for batch in over]
        return Candidate(name, way, step, over, sum(each for each, _ in needed), sum(count for _, count in needed))

    found = [candidate("ours", peers.own(phase, CUDA, "bf16"), grouped)]
    for dtype in (torch.float32, torch.bfloat16):
        precision = str(dtype).removeprefix("torch.")
        match name:
            case "dae":
                pad = int(data_set.tokenizer.pad_token_id)
                way, step = "sentence-transformers", peers.autoencoder(peers.denoising(folder, "cls"), pad, CUDA, dtype)
            case "contrastive":
                way, step = "padded encoder, same loss", peers.embeddings(config, CUDA, dtype)
            case _:
                way, step = "transformers", peers.classification(peers.classifier(folder, data_set.classes), CUDA, dtype)
        found.append(candidate(f"{way}, {precision}", step, padded))
    return [*found, candidate(f"{way}, {precision}, our batches", step, grouped)]


def timed(candidate: Candidate) -> float:
    """Seconds for all its batches."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for batch in candidate.batches:
        candidate.step(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(every: list[Candidate], peak: float) -> list[dict[str, Any]]:
    """Rounds in turn; a line for each candidate."""
    for candidate, number in itertools.product(every, range(WARM_UP)):
        candidate.step(candidate.batches[number])
    rounds = [[timed(candidate) for candidate in every] for _ in range(ROUNDS)]
    lines: list[dict[str, Any]] = []
    for candidate, seconds in zip(every, zip(*rounds, strict=True), strict=True):
        middle = statistics.median(seconds)
        speed = {"tokens_per_second": candidate.tokens / middle, "share_of_peak": candidate.flops / middle / peak}
        lines.append({"phase": candidate.phase, "way": candidate.name, **speed, "seconds": seconds})
    for line in lines:
        first = next(each for each in lines if each["phase"] == line["phase"])
        line["ours_is_faster_by"] = first["tokens_per_second"] / line["tokens_per_second"]
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder with train.parquet and validation.parquet")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text at most")
    parser.add_argument("--batch", type=int, default=64, help="texts of a step")
    parser.add_argument("--peak-tflops", type=float, default=790.0, help="what a large matrix product reaches there in bfloat16")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "encoder"
        encoder = checkpoint(folder, asked.texts)
        pretrained.quiet()
        config = Config(
            name="gpu",
            data={"source": str(asked.texts), "max_length": asked.max_length},
            encoder={"path": str(folder), "pooling": "cls"},
            store=f"{temporary}/store",
            scratch=f"{temporary}/scratch",
            **{name: {"batch": asked.batch} for name in PHASES},
        )
        words, limit = pretrained.load_tokenizer(config.encoder)
        data_set = DataSet(data.prepare(config.data, words, limit, Store(config.store, config.scratch), 0))
        every = [each for name in PHASES for each in candidates(name, config, encoder, data_set, folder)]
        lines = measure(every, asked.peak_tflops * 1e12)
    facts = {"gpu": torch.cuda.get_device_name()} | {name: str(value) for name, value in vars(asked).items() if name != "out"}
    facts |= {library.__name__: library.__version__ for library in (torch, transformers, sentence_transformers)}
    asked.out.write_text(json.dumps(facts | {"lines": lines}, indent=1))
    for line in lines:
        speed = f"{line['tokens_per_second']:>10,.0f} tokens/s  {line['share_of_peak']:6.1%} of peak"
        print(f"{line['phase']:12} {line['way']:46} {speed}  ours is faster by {line['ours_is_faster_by']:.2f}")


if __name__ == "__main__":
    main()
