"""Preparation, loading and the start of training with many rows, and `datasets.map` with the same tokenizer beside the preparation.

    python benchmarks/data.py --texts FILE.parquet --work FOLDER --rows 1000000 3000000 10000000 --out benchmarks/results/data.json

FILE has columns text and label. Its rows are repeated with changes, so that nearly all differ: of each text a third of the words are
replaced by others' and one is put in. Each thing is measured in a process of its own, after a thousand rows that pay for imports: CPU
seconds are those of all its threads and children, memory is its peak. Preparation and map take turns over `--pair` rows, with one process
and one thread each. Both read the same Parquet file; one ends with a committed data set, the other with its Arrow cache.
"""

import argparse
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STEPS = 3_000  # whose batches are made to see how fast the loader is
PHASES = ["dae", "contrastive", "joint", "finetune"]


def write(source: Path, path: Path, rows: int) -> None:
    """As many rows made of the texts of a file, in chunks."""
    table = pq.read_table(source)
    texts, labels = [text.split() for text in table["text"].to_pylist()], table["label"].to_pylist()
    words = [word for text in texts for word in text]
    rng = np.random.default_rng(rows)
    with pq.ParquetWriter(path, pa.schema([("text", pa.string()), ("label", pa.string())])) as file:
        for first in range(0, rows, 10_000):
            chosen = rng.integers(len(texts), size=min(10_000, rows - first)).tolist()
            file.write_table(pa.table({"text": [changed(texts[i], words, rng) for i in chosen], "label": [str(labels[i]) for i in chosen]}))


def changed(text: list[str], words: list[str], rng: np.random.Generator) -> str:
    """A text with other words in some places, and one more."""
    text = text.copy()
    for place, word in rng.integers((len(text), len(words)), size=(max(1, len(text) // 3), 2)).tolist():
        text[place] = words[word]
    place, word = rng.integers((len(text) + 1, len(words))).tolist()
    return " ".join([*text[:place], words[word], *text[place:]])


def peak() -> int:
    """Most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What the work gives, and its seconds of CPU and of the clock."""
    cpu, began = measuring.cpu_seconds(), time.perf_counter()
    made = work()
    return made, {"cpu_seconds": round(measuring.cpu_seconds() - cpu, 3), "seconds": round(time.perf_counter() - began, 3)}


def tokenizer(asked: argparse.Namespace) -> Any:
    """The tokenizer that both use."""
    from transformers import AutoTokenizer

    from threephase_ray import demo

    return AutoTokenizer.from_pretrained(demo.encoder() if asked.encoder.startswith("demo:") else asked.encoder)


def prepare(asked: argparse.Namespace) -> dict[str, Any]:
    """The data set of a file, in the store; CPU seconds of its parts."""
    from threephase_ray import config, data
    from threephase_ray.results import Store

    stages: dict[str, list[float]] = {}
    words = tokenizer(asked)

    def note(stage: str, done: int, total: int) -> None:
        stages.setdefault(stage.split()[0], [measuring.cpu_seconds(), 0.0])[1] = measuring.cpu_seconds()

    def make(path: str, store: Path) -> Path:
        shutil.rmtree(store, ignore_errors=True)
        knobs = config.Data(source=path, max_length=asked.length)
        return data.prepare(knobs, words, asked.length, Store(str(store), str(asked.work / "scratch")), 0, note)

    make(asked.warm, asked.work / "store-warm")
    stages.clear()
    before, cpu = peak(), measuring.cpu_seconds()
    folder, cost = timed(lambda: make(asked.path, asked.work / "store"))
    ends = [cpu, stages["reading"][1], *stages["tokenising"], measuring.cpu_seconds()]
    names = ("reading", "checks and draws", "tokenising", "digests and commit")
    parts = {name: round(end - start, 2) for name, start, end in zip(names, ends, ends[1:], strict=False)}
    size = sum(file.stat().st_size for file in folder.rglob("*"))
    return cost | {"before_mb": before, "peak_mb": peak(), "parts_cpu_seconds": parts, "result_mb": size // 10**6}


def mapped(asked: argparse.Namespace) -> dict[str, Any]:
    """`datasets.map` over the same file."""
    import datasets

    datasets.disable_progress_bars()
    cache, words = asked.work / "cache", tokenizer(asked)

    def make(path: str) -> Any:
        rows = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(cache))
        ask = functools.partial(words, truncation=True, max_length=asked.length)
        return rows.map(lambda batch: ask(batch["text"]), batched=True, batch_size=1000, remove_columns=["text"])

    shutil.rmtree(cache, ignore_errors=True)
    make(asked.warm)
    before = peak()
    _, cost = timed(lambda: make(asked.path))
    shutil.rmtree(cache)
    return cost | {"before_mb": before, "peak_mb": peak()}


def start(asked: argparse.Namespace) -> dict[str, Any]:
    """All that comes between a finished data set and the first step of each phase, and then the loader's speed."""
    import torch

    from threephase_ray import phases, planning, pretrained
    from threephase_ray.config import Config
    from threephase_ray.loader import DataSet
    from threephase_ray.results import Store

    torch.set_num_threads(1)
    pretrained.quiet()
    store = Store(str(asked.work / "store"), str(asked.work / "scratch"))
    name = next(path.relative_to(asked.work / "store") for path in (asked.work / "store/data").iterdir())
    config = Config(name="data", data={"source": asked.path}, encoder={"path": asked.encoder}, store=str(asked.work / "store"))
    costs: dict[str, Any] = {}
    before = peak()

    def note(part: str, work: Callable[[], Any]) -> Any:
        made, costs[part] = timed(work)
        return made

    folder = note("every file checked against its SHA-256", lambda: store.fetch(str(name)))
    data_set = note("data set opened", lambda: DataSet(folder, str(name)))
    config = note("outline of the run", lambda: planning.outline(config, data_set)).config
    speed = {}
    for each in PHASES:
        phase = note(f"{each}: built", lambda each=each: phases.build(each, config, data_set))
        steps = note(f"{each}: an epoch's steps", lambda phase=phase: phase.steps(0))
        note(f"{each}: validation's steps", phase.checks)
        note(f"{each}: first batch", lambda phase=phase, steps=steps: phase.collate(phase.train, steps[0], steps[0], 0))
        some = steps[1 : STEPS + 1]
        _, cost = timed(lambda phase=phase, some=some: [len(phase.collate(phase.train, visits, visits, 0)) for visits in some])
        speed[each] = {"batch": max(map(len, some)), "texts_per_cpu_second": round(sum(map(len, some)) / cost["cpu_seconds"])}
    total = {kind: round(sum(cost[kind] for cost in costs.values()), 2) for kind in ("cpu_seconds", "seconds")}
    return {"total": total, "parts": costs, "before_mb": before, "peak_mb": peak(), "loader": speed}


def measured(what: Callable[[argparse.Namespace], dict[str, Any]], path: Path, warm: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own found out."""
    order = [sys.executable, __file__, "--measure", what.__name__, "--path", path, "--warm", warm]
    order += ["--work", asked.work, "--encoder", asked.encoder, "--length", asked.length]
    one_thread = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, order)], check=True, stdout=subprocess.PIPE, text=True, env=one_thread)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what.__name__, path.stem, json.dumps(found))
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="Parquet file with columns text and label")
    parser.add_argument("--work", type=Path, required=True, help="folder for texts, which stay there, and for stores")
    parser.add_argument("--encoder", default="demo:all-minilm-l6-v2", help="whose tokenizer is used")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text at most")
    parser.add_argument("--pair", type=int, default=300_000, help="rows over which preparation and datasets.map are compared")
    parser.add_argument("--rounds", type=int, default=5, help="how often, 0: not at all; the ratio is the median")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="numbers of rows at which preparation and start are measured")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    for hidden in ("--measure", "--path", "--warm"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps({"prepare": prepare, "mapped": mapped, "start": start}[asked.measure](asked)))
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    files = {rows: asked.work / f"{asked.texts.parent.name}-{rows}.parquet" for rows in (1_000, asked.pair, *asked.rows)}
    for rows, path in files.items():
        if not path.exists():
            write(asked.texts, path, rows)
    ask = functools.partial(measured, warm=files[1_000], asked=asked)
    rounds = [{"prepare": ask(prepare, files[asked.pair]), "map": ask(mapped, files[asked.pair])} for _ in range(asked.rounds)]
    ratios = sorted(each["map"]["cpu_seconds"] / each["prepare"]["cpu_seconds"] for each in rounds)
    scales = [{"rows": rows, "prepare": ask(prepare, files[rows]), "start": ask(start, files[rows])} for rows in asked.rows]
    for store in ("store", "store-warm", "scratch"):
        shutil.rmtree(asked.work / store, ignore_errors=True)
    for scale in scales:
        scale["prepare"]["rows_per_cpu_second"] = round(scale["rows"] / scale["prepare"]["cpu_seconds"])
    facts = measuring.hardware("datasets", "tokenizers", "transformers", "pyarrow", "numpy")
    facts |= {"texts": asked.texts.parent.name, "encoder": asked.encoder, "max_length": asked.length}
    middle = statistics.median(ratios) if ratios else None
    pair = {"rows": asked.pair, "ours_is_faster_by": middle, "ratios": ratios, "rounds": rounds}
    if asked.out:
        asked.out.write_text(json.dumps(facts | {"pair": pair, "scales": scales}, indent=1))
    print("ours is faster by", middle, ratios)


if __name__ == "__main__":
    main()
