"""Perform cases on a bench."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.faults import material
from tests.faults.job import ROOT
from tests.faults.report import Line
from tests.faults.trial import Bench, Case, Trial

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),  # the workers take the code that stands here
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else the workers wait for whatever else the machine does
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
UNWANTED = ("RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")  # without bytecode each process starts seconds later


@contextlib.contextmanager
def open_bench(folder: Path, seed: int) -> Iterator[Bench]:
    """What cases share, in `folder`; all processes end with it."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED} | ENVIRONMENT
    environment["RAY_TMPDIR"] = str(folder / "r")
    bench = Bench(folder, material.make(folder / "material"), environment, seed)
    try:
        yield bench
    finally:
        bench.close()


def perform(bench: Bench, case: Case) -> list[Line]:
    """The lines of a case; one that says why, if it failed on its way. What it started is ended."""
    started, lines = time.monotonic(), list[Line]()
    trial = Trial(bench, case.name, case.seconds)
    try:
        lines += case.work(trial)
    except Exception as error:
        traceback.print_exc()
        lines.append(Line(case.name, problems=[f"{type(error).__name__}: {error}"]))
    finally:
        trial.close()
    if any(line.problems for line in lines):
        bench.close()  # whatever went wrong may have hurt the cluster: the next case gets a new one
    for line in lines:
        line.seconds = time.monotonic() - started
    said = "; ".join(f"{line.cells()[-1]}"[:200] for line in lines)
    print(f"{time.strftime('%H:%M:%S')} {case.name}: {time.monotonic() - started:.0f} s: {said}", file=sys.stderr, flush=True)
    return lines
