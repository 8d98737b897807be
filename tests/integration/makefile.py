"""Whether the lines that a make target prints could be run: programs, scripts, modules, files, flags and configurations are there."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from threephase_ray import command
from threephase_ray.config import Config, Job
from threephase_ray.errors import JobError
from threephase_ray.studying import StudyConfig

PYTHON = ".venv/bin/python"
JOBS: dict[str, type[Job]] = {"jobs/train.py": Config, "jobs/study.py": StudyConfig}
OUTPUTS = re.compile(r"store/|texts/|build/|benchmarks/results/|.*requirements\.txt|sbom\.json")  # made, or brought by whoever calls it


def lines(printed: str) -> list[str]:
    """The commands that `make -n` printed, one a line."""
    return [line for line in re.sub(r"\\\n\s*", "", printed).splitlines() if line.strip() and not line.startswith("make")]


def problem(line: str, root: Path, recipe: str) -> str:
    """What keeps a line from being run in the project's folder; nothing if it could be."""
    program, *words = shlex.split(line)
    made = re.search(r"-m venv (\S+)", recipe)  # an environment that the target makes for itself
    if not (made and program.startswith(f"{made[1]}/")) and shutil.which(program) is None and shutil.which(root / program) is None:
        return f"{program} is not there"
    if program != PYTHON:
        return ""
    return of_python(words, root)


def of_python(words: list[str], root: Path) -> str:
    """The same for what Python is given."""
    match words:
        case ["-m", "pip", "install", *rest]:
            return of_extras(rest, root)
        case ["-m", "pytest", *rest]:
            return unknown(rest, tests_help(), root)
        case ["-m", module, *rest]:
            script, more = root / Path(*module.split(".")), rest
        case [name, *rest]:
            script, more = root / name, rest
            if name in JOBS:
                return of_job(rest, JOBS[name], root)
        case _:
            return "Python is given nothing"
    found = [path for path in (script, script.with_suffix(".py"), script / "__main__.py") if path.is_file()]
    if not found:
        return f"{script} is not there"
    return unknown(more, "\n".join(path.read_text(encoding="utf-8") for path in (found[0], *found[0].parent.glob("*.py"))), root)


def of_job(flags: list[str], kind: type[Job], root: Path) -> str:
    """The same for a job: its configuration is read."""
    files = [str(root / path) for flag, path in itertools.pairwise(flags) if flag == "--config"]
    try:
        command.read(files, [], kind)
    except (JobError, OSError) as error:
        return str(error)
    return "" if len(flags) == 2 * len(files) else f"flags that nobody looked at: {flags}"


def of_extras(flags: list[str], root: Path) -> str:
    """The same for an installation of the project: its extras are there."""
    wanted = re.findall(r"[\w-]+", "".join(re.findall(r"\.\[(.*)\]", " ".join(flags))))
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    missing = [extra for extra in wanted if not re.search(rf"^{extra} = \[", project, re.MULTILINE)]
    return f"no such extras: {missing}" if missing else ""


def unknown(words: list[str], known: str, root: Path) -> str:
    """Flags that a program's source or help does not have, and files that are not there."""
    flags = [word for word in words if word.startswith("--") and word not in re.findall(r"--[\w-]+", known)]
    paths = [word for word in words if "/" in word and not OUTPUTS.match(word) and not list(root.glob(word))]
    return ", ".join([*(f"unknown: {flag}" for flag in flags), *(f"{path} is not there" for path in paths)])


@cache
def tests_help() -> str:
    """What pytest says of its flags, those of its plugins included."""
    return subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True).stdout
