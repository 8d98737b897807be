"""What all benchmarks share: rounds in turn, ratios of pairs, and the name of the hardware."""

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def serve(way: Callable[[], Any]) -> None:
    """In a process of its own: run `way` once unmeasured, then once for each line that comes, and answer with its CPU seconds."""
    way()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = cpu_seconds()
        way()
        print(f"spent {cpu_seconds() - began}", flush=True)


def rounds(ways: Mapping[str, tuple[Sequence[str], Mapping[str, str]]], count: int) -> dict[str, list[float]]:
    """CPU seconds of each way in each of `count` rounds, in which all take turns: commands that `serve`, and their environments."""
    with contextlib.ExitStack() as stack:
        started = {}
        for name, (command, environment) in ways.items():
            process = subprocess.Popen(
                command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            started[name] = stack.enter_context(process)
            _answer(process, "ready", name)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(count):
            for name, process in started.items():
                with contextlib.suppress(BrokenPipeError):  # the answer, or that there is none, tells more
                    os.write(process.stdin.fileno(), b"again\n")
                spent[name].append(float(_answer(process, "spent", name)))
        for process in started.values():
            process.stdin.close()
    return spent


def _answer(process: subprocess.Popen[str], word: str, name: str) -> str:
    """What follows `word` on the next line that begins with it; trainers print lines of their own."""
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word)
    raise SystemExit(f"{name}: ended with {process.wait()}; run it alone to see why: {' '.join(map(str, process.args))}")


def look(process: psutil.Process, cpu: dict[psutil.Process, float]) -> list[float]:
    """Note the CPU seconds of a process and of all below it, those that ended keeping what they had, and return their memory in GiB."""
    sizes: list[float] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                cpu[each] = sum(each.cpu_times()[:2])
                sizes.append(each.memory_info().rss / 2**30)
    return sizes


def tree_cpu_seconds(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> float:
    """CPU seconds of a command and of all processes below it, each as it was seen last."""
    seen: dict[psutil.Process, float] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = psutil.Popen(command, env=environment, cwd=folder, stdout=said, stderr=said)
        while process.poll() is None:
            look(process, seen)
            time.sleep(0.1)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()[-2000:]}")
    return sum(seen.values())


def ratio(peer: list[float], ours: list[float]) -> dict[str, Any]:
    """How many times as much the peer costs: the median over the rounds, and all of them."""
    each = [theirs / own for theirs, own in zip(peer, ours, strict=True)]
    return {"median": statistics.median(each), "rounds": each}


def hardware(*packages: str) -> dict[str, Any]:
    """The machine and the versions of packages."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)
    names = {name.strip(): value.strip() for name, value in lines.items()}
    low = sorted(flag for flag in names.get("flags", "").split() if "bf16" in flag)
    cpu = {"cpu": names.get("model name", platform.processor()), "family": names.get("cpu family"), "model": names.get("model")}
    wall = time.strftime("%Y-%m-%d")
    return cpu | {"cores": os.cpu_count(), "bfloat16": low, "date": wall} | {package: version(package) for package in packages}
