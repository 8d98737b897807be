"""Commands found in pages, and the ledger of those that are run: nothing is overlooked, nothing stands there for nothing."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration import documents, makefile, standins
from tests.integration.documents import Piece

PAGE = """
# Title

Say `make test` or `python -m thing run`, but `make` and `jobs/train.py` are no commands.

```sh
# a comment
one --flag "a # b"      # a comment with `ticks`
two --first \\
  --second              # the end
cat > file <<'END'
# kept    # kept
END
three && four
```

| what | how |
|---|---|
| a row | `kubectl get pods` |

- a list

  ```yaml
  # python jobs/train.py --config a.yaml
  seed: 1
  ```

```text
not --run
```
"""
PLAN = ".venv/bin/python jobs/train.py --config mine.yaml --dry-run"


def found(text: str) -> list[tuple[str, str]]:
    return [(piece.kind, piece.text) for piece in documents.pieces("page", text)]


def test_commands_of_a_page() -> None:
    assert found(PAGE) == [
        ("word", "make test"),
        ("word", "python -m thing run"),
        ("sh", 'one --flag "a # b"'),
        ("sh", "two --first \\\n  --second"),
        ("sh", "cat > file <<'END'\n# kept    # kept\nEND"),
        ("sh", "three && four"),
        ("word", "kubectl get pods"),
        ("yaml", "# python jobs/train.py --config a.yaml\nseed: 1\n"),
    ]


def test_configurations_of_a_page_come_first() -> None:
    order = [piece.kind for piece in documents.in_order("page", PAGE)]
    assert (order[0], order[1:]) == ("yaml", [kind for kind, _ in found(PAGE) if kind != "yaml"])


def test_pieces_know_their_lines() -> None:
    lines = PAGE.splitlines()
    for piece in documents.pieces("page", PAGE):
        assert piece.text.splitlines()[0] in lines[piece.line - 1], piece


@pytest.mark.parametrize("block", ["```\nmake x\n```", "```bash\nmake x\n```", "text\n\n    make x\n"])
def test_a_block_whose_language_is_not_said_is_refused(block: str) -> None:
    with pytest.raises(ValueError, match="say the language of this block"):
        found(block)


def test_pages_with_commands_are_all_there() -> None:
    pages = documents.pages(ROOT)
    assert {"README.md", "cluster/README.md", "docs/own-data.md"} <= pages.keys()
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")} <= pages.keys()
    assert next(iter(pages)) == "docs/own-data.md"


def piece(kind: str, text: str) -> Piece:
    return Piece("page", 1, kind, text)


def test_what_is_new_is_run_and_what_was_there_is_not() -> None:
    new, plan, yaml = piece("sh", "make coffee"), piece("sh", PLAN), piece("yaml", "# python jobs/train.py --config mine.yaml\n")
    assert standins.to_run([new, plan, new, plan, yaml, new, plan]) == [new, plan, yaml, plan]


def test_what_is_not_run_is_named_word_by_word() -> None:
    push = "docker push REGISTRY/threephase-ray:0.1.0-ray2.60.0"
    assert standins.to_run([piece("sh", push)]) == []
    assert standins.to_run([piece("sh", f"{push} --quiet")])


def test_an_exception_or_a_stand_in_for_nothing_is_told() -> None:
    assert "kubectl drain" in standins.unused([])
    assert "kubectl drain" not in standins.unused([piece("word", "kubectl drain")])
    assert "/shared/store" in standins.unused([])
    assert "jobs/predict.py" in standins.unused([])


def changed(text: str, kind: str = "sh", long: bool = False) -> str:
    return standins.changed(piece(kind, text), {"shared": "/there", "encoder": "/tiny", "port": "81", "dashboard": "http://x"}, long)


def test_commands_change_as_the_tables_say() -> None:
    assert changed(PLAN) == PLAN
    assert changed("jobs/serve.py --model mine") == "jobs/serve.py --model mine --port 81"
    assert "--store /there" in changed("jobs/submit.py --config mine.yaml --store /shared/store")
    assert changed("""echo '{"texts": []}'""") == """echo '{"texts": []}'"""
    sweep = "jobs/sweep.py --config jobs/configs/sweeps/demo.yaml"
    assert changed(sweep) == f"{sweep} --dry-run"
    assert "--encoder.path /tiny" in changed(sweep, long=True)


def test_configurations_have_words_changed_alone() -> None:
    head = "# python jobs/train.py --config mine.yaml"
    assert changed(f"{head}\nencoder: {{path: demo:all-minilm-l6-v2}}\n", "yaml") == f"{head}\nencoder: {{path: /tiny}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a script, a configuration and an environment."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text("")
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "a.py").write_text('parser.add_argument("--rows")')
    (tmp_path / "study.yaml").write_text("name: a\ndata: {train: a.csv}\nencoder: {path: b}\n")
    (tmp_path / "pyproject.toml").write_text("[project.optional-dependencies]\nserve = []\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (".venv/bin/python benchmarks/a.py --rows 5", ""),
        (".venv/bin/python benchmarks/a.py --row 5", "unknown: --row"),
        (".venv/bin/python benchmarks/b.py", "is not there"),
        (".venv/bin/python -m benchmarks.a --rows 5", ""),
        (".venv/bin/python -m benchmarks.b", "is not there"),
        (".venv/bin/python benchmarks/a.py --rows some/file", "some/file is not there"),
        (".venv/bin/python jobs/train.py --config study.yaml", ""),
        (".venv/bin/python jobs/train.py --config other.yaml", "other.yaml"),
        (".venv/bin/python jobs/train.py --config study.yaml --seed", "nobody looked at"),
        ('.venv/bin/python -m pip install -e ".[serve]"', ""),
        ('.venv/bin/python -m pip install -e ".[serve,sevre]"', "['sevre']"),
        (".venv/bin/python -m pytest -q --collect-onyl benchmarks", "unknown: --collect-onyl"),
        (".venv/bin/python -m pytest -q --dist loadfile tests/none", "tests/none is not there"),
        (".venv/bin/rufff check", ".venv/bin/rufff is not there"),
        ("ls -l", ""),
    ],
)
def test_what_keeps_a_line_of_a_target_from_being_run(line: str, problem: str, project: Path) -> None:
    said = makefile.problem(line, project, line)
    assert (problem in said) if problem else (said == "")


def test_a_target_may_use_an_environment_that_it_makes(project: Path) -> None:
    assert makefile.problem("audit/bin/tool --x", project, "python3 -m venv audit\naudit/bin/tool --x") == ""
    assert makefile.problem("audit/bin/tool --x", project, "audit/bin/tool --x")


def test_lines_that_a_target_prints() -> None:
    assert makefile.lines("a --b \\\n\t--c\n\nmake[1]: Nothing\nd") == ["a --b --c", "d"]
