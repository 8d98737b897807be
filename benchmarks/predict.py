"""Prediction in bulk on CPUs: its speed beside transformers' pipeline, its memory over many rows, and its files after kills.

    python benchmarks/predict.py speed --texts SHORT.parquet LONG.parquet --out benchmarks/results/predict-speed.json
    python benchmarks/predict.py scale --texts SHORT.parquet --rows 1000000 --out benchmarks/results/predict-scale.json
    python benchmarks/predict.py scale --texts SHORT.parquet --rows 200000 --kills 5 --out benchmarks/results/predict-kills.json

The files hold texts in a column `text`. The classifier is stock: MiniLM-L6 of the demo with a head of seven classes, untrained, in
float32. `speed`: CPU time of one thread for the same texts in the same random order, in rounds that go over all ways in turn, and median
ratios. The pipeline has 32 texts a batch; `TextClassifier` has the tokens of 32 texts of mean length, or its own default. `scale`: the job
`jobs/predict.py` with two workers, over rows that are all different; the memory is that of all its processes, what they share counted in
each. With `--kills` a second job is killed at random moments and started again, and its files are compared.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from threephase_ray import demo, pretrained
from threephase_ray.digest import digest
from threephase_ray.predictions.classifier import TextClassifier

BATCH, ROUNDS, LENGTH, WORKERS = 32, 5, 256, 2  # texts; rounds; tokens of a text at most; processes that score
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
Way = Callable[[list[str]], NDArray[np.float32]]  # from texts to probabilities


def classifier(folder: Path, layers: int) -> None:
    """Write the stock classifier as a run's `model` folder holds it."""
    torch.manual_seed(0)
    facts = {"num_labels": 7, "num_hidden_layers": layers, "dtype": torch.float32}
    AutoModelForSequenceClassification.from_pretrained(demo.encoder(), **facts).save_pretrained(folder / "classifier")
    AutoTokenizer.from_pretrained(demo.encoder(), model_max_length=LENGTH).save_pretrained(folder / "classifier")


def distinct(file: Path) -> list[str]:
    """The file's texts, each once, in random order, without those that have lost characters."""
    texts = sorted({text for text in pq.read_table(file, columns=["text"])["text"].to_pylist() if "\ufffd" not in text})
    return [texts[number] for number in np.random.default_rng(0).permutation(len(texts))]


def speed(asked: argparse.Namespace) -> dict[str, Any]:
    """Texts per CPU-second of each way, for each of the files."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        classifier(folder := Path(temporary), asked.layers)
        return {"lines": [line for file in asked.texts for line in compared(folder, file, asked.tokens)]}


def compared(folder: Path, file: Path, budget: int) -> list[dict[str, Any]]:
    """A line for each way to score as many of the file's texts as have `budget` tokens."""
    texts = distinct(file)[:budget]
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(folder / "classifier")(texts, truncation=True)["input_ids"]]
    texts = texts[: int(np.searchsorted(np.cumsum(lengths), budget))]
    mean = float(np.mean(lengths[: len(texts)]))
    few, usual = TextClassifier(folder, CPU, tokens=round(BATCH * mean)), TextClassifier(folder, CPU)
    ways: dict[str, Way] = {
        f"ours, tokens of {BATCH} texts": lambda texts: few.score(texts).probabilities,
        "ours, default": lambda texts: usual.score(texts).probabilities,
        f"pipeline, {BATCH} texts a batch": stock(folder, BATCH),
        "pipeline, default": stock(folder, 1),
    }
    outputs = [way(texts) for way in ways.values()]  # warm-up, too
    differences = [float(abs(output - outputs[0]).max()) for output in outputs]
    assert max(differences) < 1e-5, "the ways give other probabilities"
    rounds = np.array([[seconds(way, texts) for way in ways.values()] for _ in range(ROUNDS)])
    speeds, ratios = len(texts) / np.median(rounds, axis=0), np.median(rounds / rounds[:, :1], axis=0)
    facts = {"file": "/".join(file.parts[-2:]), "texts": len(texts), "mean_tokens": round(mean, 2)}
    names = ("way", "texts_per_cpu_second", "first_is_faster_by", "largest_difference", "cpu_seconds")
    values = zip(ways, speeds.tolist(), ratios.tolist(), differences, rounds.T.tolist(), strict=True)
    return [facts | dict(zip(names, line, strict=True)) for line in values]


def stock(folder: Path, batch: int) -> Way:
    """transformers' pipeline as texts to probabilities."""
    found: Any = pipeline("text-classification", model=str(folder / "classifier"), device="cpu", batch_size=batch, top_k=None)
    number = found.model.config.label2id

    def score(texts: list[str]) -> NDArray[np.float32]:
        rows = [sorted(row, key=lambda label: number[label["label"]]) for row in found(texts, truncation=True)]
        return np.array([[label["score"] for label in row] for row in rows], dtype=np.float32)

    return score


def seconds(way: Way, texts: list[str]) -> float:
    """CPU time of this process."""
    began = time.process_time()
    way(texts)
    return time.process_time() - began


def changed(texts: list[str], count: int) -> Iterator[str]:
    """Different texts: those given, drawn again and again, with a third of their words replaced by words of others."""
    chance, seen = np.random.default_rng(1), set[str]()
    split = [text.split() for text in texts]
    words = sorted({word for text in split for word in text})
    while len(seen) < count:
        text = split[chance.integers(len(split))]
        kept, other = chance.random(len(text)) > 1 / 3, chance.integers(len(words), size=len(text))
        made = " ".join(word if keep else words[number] for word, keep, number in zip(text, kept, other, strict=True))
        if made not in seen:
            seen.add(made)
            yield made


def write(folder: Path, texts: list[str], count: int) -> None:
    """Half of the rows as Parquet, half as CSV."""
    folder.mkdir()
    table = pa.table({"id": range(count), "text": list(changed(texts, count))})
    pq.write_table(table[: count // 2], folder / "a.parquet", row_group_size=50_000)
    pa.csv.write_csv(table[count // 2 :], folder / "b.csv")


class Job:
    """A process that runs `jobs/predict.py`, and all that it starts: their memory and CPU time as time goes on."""

    def __init__(self, place: Path, name: str) -> None:
        """`place`: folder with `model` and `texts`, and for the results."""
        self.results, self.began = place / "store" / "predictions" / name, time.monotonic()
        where = ["--store", "store", "--scratch", "scratch", "--model", "model", "--input.files", "texts"]
        command = [sys.executable, str(ROOT / "jobs/predict.py"), "--name", name, *where, "--compute.workers", str(WORKERS)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
        self.process = psutil.Popen(command, cwd=place, env=environment, start_new_session=True)
        self.cpu: dict[psutil.Process, float] = {}  # seconds of each process, also of those that ended
        self.samples: list[tuple[float, int, float, float]] = []  # seconds, shards done, GiB of all, GiB of the largest process

    def follow(self, until: float = float("inf")) -> bool:
        """Look every second for so many seconds, and say whether the job has ended by then."""
        while (running := self.process.poll() is None) and self.spent() < until:
            sizes = measuring.look(self.process, self.cpu)
            self.samples.append((self.spent(), len(list(self.results.glob("_shards/*.json"))), sum(sizes), max(sizes, default=0.0)))
            time.sleep(max(0.0, min(1.0, until - self.spent())))
        assert running or self.process.returncode == 0, "the job failed"
        return not running

    def spent(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def kill(self) -> None:
        """End the job's process group, and wait until what it started has noticed."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert not psutil.wait_procs(list(self.cpu), timeout=60.0)[1], "processes of a killed job live on"


def scale(asked: argparse.Namespace) -> dict[str, Any]:
    """Speed and memory of the whole job, then what kills did to another."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        classifier(place / "model", asked.layers)
        write(place / "texts", distinct(asked.texts[0]), asked.rows)
        job = Job(place, "whole")
        job.follow()
        took, cpu = job.spent(), sum(job.cpu.values())
        check_rows(job.results, asked.rows)
        thirds = np.array_split([sample[2:] for sample in job.samples if sample[1]], 3)  # from the first shard on
        return {
            "rows": asked.rows,
            "seconds": took,
            "cpu_seconds": cpu,
            "rows_per_cpu_second": asked.rows / cpu,
            "peak_gib_of_all_and_of_one_process_by_thirds": [part.max(axis=0).tolist() for part in thirds],
            "samples_of_seconds_shards_gib_and_gib_of_one": job.samples[:: max(1, len(job.samples) // 40)],
            "kills_by_seconds_and_shards_done": killed(place, job, took, asked.kills, asked.rows) if asked.kills else [],
        }


def killed(place: Path, whole: Job, took: float, count: int, rows: int) -> list[tuple[float, int]]:
    """Moments of the kills and the shards done by then; the files are those of the job that was left alone."""
    chance, kills = np.random.default_rng(2), []
    for moment in chance.uniform(0.0, took / 2, size=count):
        job = Job(place, "killed")
        if job.follow(until=moment):
            break
        job.kill()
        kills.append(job.samples[-1][:2])
    job = Job(place, "killed")
    job.follow()
    check_rows(job.results, rows)
    assert sums(job.results) == sums(whole.results), "the files differ"
    return kills


def sums(results: Path) -> dict[str, str]:
    """SHA-256 of the files with rows, of their records and of the manifest."""
    files = [*results.glob("*.parquet"), *results.glob("_shards/*.json"), results / "_manifest.json"]
    return {path.relative_to(results).as_posix(): digest(path).hex() for path in files}


def check_rows(results: Path, count: int) -> None:
    """See that each row is there once, in order and scored."""
    tables = [pq.read_table(name, columns=["id", "predicted_state"]) for name in sorted(results.glob("*.parquet"))]
    ids = [int(number) for table in tables for number in table["id"].to_pylist()]  # text where they come from CSV
    states = {state for table in tables for state in table["predicted_state"].unique().to_pylist()}
    assert (ids, states) == (list(range(count)), {"scored"}), "rows are lost, doubled or not scored"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "scale"])
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="Parquet files with a column text; scale uses the first")
    parser.add_argument("--tokens", type=int, default=25_000, help="of each file's texts, for speed")
    parser.add_argument("--rows", type=int, default=1_000_000, help="to score, for scale")
    parser.add_argument("--layers", type=int, default=6, help="of the encoder; fewer are a cut of it, for scale in short time")
    parser.add_argument("--kills", type=int, default=0, help="of a second job, for scale")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    asked = parser.parse_args()
    pretrained.quiet()
    found = (speed if asked.what == "speed" else scale)(asked)
    found = measuring.hardware("torch", "transformers", "ray") | {"layers": asked.layers} | found
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
