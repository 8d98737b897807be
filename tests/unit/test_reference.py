"""The reference made of docstrings: complete, linked, without warnings, and readable without a network."""

import ast
import importlib.util
import re
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import threephase_ray
from tests.conftest import ROOT

PACKAGE = ROOT / "threephase_ray"
SOME = ["", ".losses", ".imbalance", ".config", ".loader", ".sampling", ".phases.spec", ".training.loop"]


def load() -> ModuleType:
    """The script that writes the reference."""
    spec = importlib.util.spec_from_file_location("build_reference", ROOT / "docs" / "reference" / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of some modules, by name without the package's."""
    out = tmp_path_factory.mktemp("reference")
    build.write(out, [f"threephase_ray{name}" for name in SOME])
    return {name: (out / f"threephase_ray{name.replace('.', '/')}.html").read_text(encoding="utf-8") for name in SOME}


def test_every_module_is_there() -> None:
    files = (path.relative_to(ROOT).with_suffix("") for path in PACKAGE.rglob("*.py"))
    assert set(build.names()) == {".".join(path.parts).removesuffix(".__init__") for path in files}


def test_the_first_page_leads_to_every_part() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.stem not in ("__init__", "__pycache__")}
    named = re.findall(r"`([a-z.]+)[.A-Z\w]*`", threephase_ray.__doc__ or "")
    assert not parts - {name.partition(".")[0] for name in named}


@pytest.mark.parametrize("name", SOME[1:])
def test_every_class_and_function_is_there(pages: dict[str, str], name: str) -> None:
    body = ast.parse((PACKAGE / f"{name[1:].replace('.', '/')}.py").read_text(encoding="utf-8")).body
    public = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")]
    assert len(public) > 2
    assert not [each for each in public if f'<section id="{each}">' not in pages[name]]


def test_links(pages: dict[str, str]) -> None:
    assert '<a href="threephase_ray/losses.html"><code>losses</code></a>' in pages[""]
    assert '<a href="threephase_ray/phases/spec.html#Phase"><code>phases.spec.Phase</code></a>' in pages[""]
    assert '<a href="#positives">positives</a>' in pages[".losses"]
    assert 'href="../config.html#Training"' in pages[".phases.spec"]
    assert 'see <a href="../sampling.html"><code>sampling</code></a>' in pages[".phases.spec"]


def test_formulas_arguments_types_comments_and_knobs(pages: dict[str, str]) -> None:
    text = {name: re.sub(r"\s+", " ", re.sub("<[^>]+>", "", page)) for name, page in pages.items()}
    assert "f(n_k) = log(n_max / n_k) * max_ratio / log(n_max) ratio_k = f(n_k)" in text[".imbalance"]
    assert "Arguments: states: of the tokens, [n, h]. weight, bias: of the linear map to logits, [v, h] and [v]." in text[".losses"]
    assert "in_order(rows: int | NDArray[int64], batch: int) -> list[NDArray[int64]]:" in text[".sampling"]
    assert "stale: int = 0 validations since the best one" in text[".training.loop"]
    assert "path: text = required folder, hub id, or demo:all-minilm-l6-v2" in text[".config"]
    assert "data: Data = required texts" in text[".config"]
    assert "noise_ratio: number &gt; 0, &lt; 1 = 0.6" in text[".config"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_and_comments_hold_no_tags(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    parts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    texts = [*(ast.get_docstring(part) or "" for part in parts), *build.comments(source).values()]
    plain = [re.sub(r"^    .*$|`[^`]*`", "", text, flags=re.MULTILINE) for text in texts]
    assert not [text for text in plain if re.search("<[a-zA-Z/]", text)], "put `...` around <...>, which HTML takes for a tag"


def test_nothing_comes_from_a_network(pages: dict[str, str]) -> None:
    assert not [found for page in pages.values() for found in re.findall(r'<(?:script|link|img|iframe)\b[^>]*"(?:https?:)?//[^>]*>', page)]


def test_a_warning_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.pdoc.render, "html_module", lambda *_: warnings.warn("broken", stacklevel=1))
    with pytest.raises(UserWarning, match="broken"):
        build.write(tmp_path, ["threephase_ray.imbalance"])
    assert not list(tmp_path.iterdir())
