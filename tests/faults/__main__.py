"""Run the scenarios and print what came of them; exit code 1 if any line fails."""

import argparse
import fnmatch
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults import chain, damage, elastic, kills, objects, report, stops, sweeps, twice, uploads
from tests.faults.runner import open_bench, perform
from tests.faults.trial import Case

MODULES = (kills, uploads, objects, elastic, damage, twice, stops, sweeps, chain)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.faults", description="Hurt runs in every way; they must come out the same.")
    parser.add_argument("--only", metavar="PATTERN", help="cases whose name fits one of these: kills/*zero3*,twice")
    parser.add_argument("--work", metavar="FOLDER", type=Path, help="keep stores, logs and faults.json there; its path must be short")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    asked = parser.parse_args()
    if asked.work is not None and asked.work.exists() and any(asked.work.iterdir()):
        parser.error(f"--work {asked.work}: holds something already")
    return asked


def chosen(patterns: str | None) -> list[Case]:
    """The cases that the patterns name: all of a scenario by its name alone."""
    wanted = ["*"] if patterns is None else patterns.split(",")
    every = [case for module in MODULES for case in module.cases()]
    return [case for case in every if any(fnmatch.fnmatch(name, each) for each in wanted for name in (case.name, case.name.split("/")[0]))]


def main() -> int:
    """Run what was asked for."""
    asked = arguments()
    cases = chosen(asked.only)
    if asked.list or not cases:
        print(*(case.name for case in cases) if cases else ["no case fits"], sep="\n")
        return int(not cases)
    folder = asked.work.absolute() if asked.work else Path(tempfile.mkdtemp(prefix="tpr", dir="/tmp"))  # sockets need a short path
    lines: list[report.Line] = []
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what runs is ended
    with open_bench(folder, asked.seed) as bench:
        for case in cases:
            lines += perform(bench, case)
            report.write(lines, folder / "faults.json")
    report.show(lines)
    failed = any(line.problems for line in lines)
    if asked.work is None and not failed:
        shutil.rmtree(folder)
    else:
        print(f"stores, logs and faults.json: {folder}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
