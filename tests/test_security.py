"""What no file of the project does: unpickle, run what it reads, trust a checkpoint's code, hide an error, go through a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

CODE = sorted(path for folder in ("threephase_ray", "jobs") for path in (ROOT / folder).rglob("*.py"))
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN = {"trust_remote_code": True, "allow_pickle": True, "shell": True, "weights_only": False, "verify": False}
OTHERWISE = {("wandb.login", "verify")}  # says whether a key is tried at the server at once, and nothing of certificates
SAFE_YAML = {"safe", "safe_load", "safe_load_all"}


def faults(source: str) -> Iterator[str]:
    """What is unsafe in a file, with its line."""
    for node in ast.walk(ast.parse(source)):
        for what in _of(node):
            yield f"line {getattr(node, 'lineno', 0)}: {what}"


def _of(node: ast.AST) -> Iterator[str]:
    """What is unsafe about a node by itself."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (f"imports {name}" for name in names if name.split(".")[0] in UNPICKLERS)
    if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
        yield "an error is hidden"
    if isinstance(node, ast.Call):
        yield from _of_call(node)


def _of_call(call: ast.Call) -> Iterator[str]:
    """What is unsafe about a call."""
    name, given = ast.unparse(call.func), {word.arg: word.value for word in call.keywords if word.arg}
    for word, wrong in FORBIDDEN.items():
        if isinstance(value := given.get(word), ast.Constant) and value.value is wrong and (name, word) not in OTHERWISE:
            yield f"{name}({word}={wrong})"
    if name in RUNNERS:
        yield f"{name}()"
    if name in ("torch.load", "torch.jit.load", "os.system", "os.popen") and "weights_only" not in given:
        yield f"{name}()"
    if name.startswith("yaml.") and name.rpartition(".")[2].startswith(("load", "full_load", "unsafe_load")):
        loader = given.get("Loader", call.args[1] if len(call.args) > 1 else None)
        if loader is None or "safe" not in ast.unparse(loader).lower():
            yield f"{name}() without a safe loader"
    if name.rpartition(".")[2] == "YAML" and not (isinstance(kind := given.get("typ"), ast.Constant) and kind.value in SAFE_YAML):
        yield "YAML() of another kind than safe"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe(path: Path) -> None:
    assert not [*faults(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('a')",
        "torch.load('a', weights_only=False)",
        "AutoModel.from_pretrained('a', trust_remote_code=True)",
        "numpy.load('a', allow_pickle=True)",
        "subprocess.run('a', shell=True)",
        "os.system('a')",
        "eval('a')",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "YAML().load(text)",
        "try:\n    a()\nexcept OSError:\n    pass",
        "requests.get('a', verify=False)",
    ],
)
def test_what_is_planted_is_found(planted: str) -> None:
    assert [*faults(planted)]


@pytest.mark.parametrize(
    "harmless",
    ["torch.load('a', weights_only=True)", "YAML(typ='safe')", "yaml.load(text, Loader=yaml.SafeLoader)", "subprocess.run(['a'])"],
)
def test_what_is_safe_is_not_found(harmless: str) -> None:
    assert not [*faults(harmless)]
