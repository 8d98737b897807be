"""What the whole project promises: README's tree and the page of knobs are true, files and functions stay small, layers hold."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from threephase_ray import command, knobs
from threephase_ray.config import Config, Job
from threephase_ray.predicting import PredictConfig
from threephase_ray.studies import arms
from threephase_ray.studying import StudyConfig
from threephase_ray.sweeping import SweepConfig

CODE = sorted(path for folder in ("threephase_ray", "jobs", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
KINDS: dict[str, type[Job]] = {"sweeps": SweepConfig, "studies": StudyConfig, "predictions": PredictConfig}
CONFIGS = sorted((ROOT / "jobs" / "configs").rglob("*.yaml"))


def tree() -> Iterator[tuple[str, str]]:
    """(path, what it is for) of every line of README's tree."""
    block = re.search(r"## The tree\n.*?```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block, "README.md has no tree"
    above: list[str] = []
    for line in block.group(1).splitlines():
        name, _, purpose = line.strip().partition(" ")
        above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
        yield "".join(above), purpose.strip()


def functions() -> list[int]:
    """Lines of every function of the library."""
    nodes = (node for path in (ROOT / "threephase_ray").rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return [node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef) and node.end_lineno]


def test_tree_lists_what_exists() -> None:
    missing = [path for path, _ in tree() if not (ROOT / path).exists()]
    assert not missing, f"in README's tree, but not in the project: {missing}"
    assert not [path for path, purpose in tree() if not purpose], "lines without a purpose"


def test_tree_lists_every_module() -> None:
    listed = {path for path, _ in tree()}
    modules = {str(path.relative_to(ROOT)) for path in CODE if path.name != "__init__.py" and "tests" not in path.relative_to(ROOT).parts}
    assert modules <= listed, f"not in README's tree: {sorted(modules - listed)}"


def test_tree_lists_every_page() -> None:
    listed = {path for path, _ in tree()}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.*") if path.suffix != ".pyc"}
    assert pages <= listed, f"not in README's tree: {sorted(pages - listed)}"


def test_page_of_knobs_is_up_to_date() -> None:
    assert knobs.main(["--check", str(ROOT / "docs" / "knobs.md")]) == 0, "run `make knobs`"


def test_page_of_knobs_notices_a_change(tmp_path: Path) -> None:
    page, there = tmp_path / "knobs.md", (ROOT / "docs" / "knobs.md").read_text(encoding="utf-8")
    assert knobs.main(["--check", str(page)]) == 1
    page.write_text(there.replace("`dae.noise_ratio`", "`dae.noise`"), encoding="utf-8")
    assert knobs.main(["--check", str(page)]) == 1
    assert knobs.main([str(page)]) == 0
    assert knobs.main(["--check", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == there


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert not {path: lines for path, lines in lengths.items() if lines > 250}


def test_functions_are_short() -> None:
    assert statistics.median(functions()) <= 12
    assert statistics.quantiles(functions(), n=10)[-1] <= 26


@pytest.mark.parametrize("name", ["constraints.txt", "Makefile", "pyproject.toml", ".ci/run", ".pre-commit-config.yaml"])
def test_installation_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.findall(r"\S*://\S*|--(?:extra-)?index-url|--find-links|--trusted-host", text)


def test_constraints_are_exact_versions() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_open_with_their_command_and_parse(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# python jobs/\w+\.py .*--config ", first)
    assert str(path.relative_to(ROOT)) in first
    # A preset may leave these to the file that it is combined with.
    given = ["--name", "name", "--data.train", "train.csv", "--encoder.path", "encoder"] if path.parent.name != "predictions" else []
    config = command.read([str(path)], given, KINDS.get(path.parent.name, Config))
    if isinstance(config, StudyConfig):
        arms.check(config)


def test_there_are_configs() -> None:
    assert ROOT / "jobs" / "configs" / "demo.yaml" in CONFIGS


def test_help_and_configuration_errors_come_at_once() -> None:
    program = "import sys, threephase_ray.command; print(*{'torch', 'ray', 'deepspeed', 'transformers', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
