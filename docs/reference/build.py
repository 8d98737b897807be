"""The reference of the package, from its docstrings, as HTML: `python docs/reference/build.py FOLDER`, or `make docs`.

To what pdoc shows it adds the comments behind fields and constants, the values that a knob takes, and links to other modules;
types of arrays are written as in the source. A warning ends it.
"""

import ast
import importlib
import inspect
import io
import pkgutil
import re
import sys
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_origin

import pdoc
from pdoc.doc import Class, Doc, Function, Module, Namespace, Variable
from pdoc.render_helpers import relative_link
from pydantic_core import PydanticUndefined

import threephase_ray
from threephase_ray.config import Job
from threephase_ray.knobs import REQUIRED, knobs
from threephase_ray.machine import Section

PACKAGE = threephase_ray.__name__
ARRAY = re.compile(r"numpy\.ndarray\[tuple\[typing\.Any, \.\.\.\], numpy\.dtype\[(?:numpy\.)?(\w+)\]\]")


class Written(str):
    """A type as it is to be shown."""

    __repr__ = str.__str__


def names() -> list[str]:
    """The package and all its modules."""
    return [PACKAGE, *(module.name for module in pkgutil.walk_packages(threephase_ray.__path__, f"{PACKAGE}."))]


def comments(source: str) -> dict[str, str]:
    """The comment in the last line of each field and constant of a module that has one, by qualified name."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {token.start[0]: token.string.partition("# type:")[0].lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}

    def walk(body: list[ast.stmt], above: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{above}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            yield from ((f"{above}{target.id}", lines.get(node.end_lineno or 0, "")) for target in targets if isinstance(target, ast.Name))

    return {name: said for name, said in walk(ast.parse(source).body, "") if said}


def explain(part: Doc, said: dict[str, str]) -> None:
    """Add to a module and all parts of it what pdoc leaves out; `said`: the module's comments."""
    part.docstring = linked(part, said.get(part.qualname, part.docstring))
    if isinstance(part, Function):
        part.signature = written(part.signature)
    elif isinstance(part, Variable):
        part.annotation_str = short(part.annotation_str)
        if get_origin(part.default_value):  # a type by another name
            part.default_value_str = short(part.default_value_str)
        if part.default_value is PydanticUndefined:
            part.default_value_str = REQUIRED
    if isinstance(part, Namespace):
        for member in part.own_members:
            explain(member, said)
    if isinstance(part, Class) and issubclass(part.obj, Job | Section):
        show_values(part)


def show_values(section: Class) -> None:
    """Put the values that a knob takes, with their range, in the place of its type, and its default as it stands in YAML."""
    for knob in knobs(section.obj):
        if isinstance(variable := section.get(knob.name), Variable):
            variable.annotation_str, variable.default_value_str = f": {knob.values}", knob.default


def linked(part: Doc, text: str) -> str:
    """A docstring whose `module.name`s are links; on the package's own page, and after "see", a module's name alone is one, too."""

    def link(found: re.Match[str]) -> str:
        see, quoted = found[1] or "", found[2]
        name = f"{PACKAGE}.{quoted.strip('`')}"
        holder, _, member = name.rpartition(".")
        if name in sys.modules and (see or "." in quoted or part.fullname == PACKAGE):
            return f"{see}[{quoted}]({relative_link(part.modulename, name)})"
        if holder != PACKAGE and hasattr(sys.modules.get(holder), member):
            return f"{see}[{quoted}]({relative_link(part.modulename, holder)}#{member})"
        return found[0]

    return re.sub(r"(see )?(`[\w.]+`)", link, text)


def written(signature: inspect.Signature) -> inspect.Signature:
    """A signature with its types as they are to be shown."""

    def shown(annotation: object) -> object:
        return annotation if annotation is inspect.Signature.empty else Written(short(inspect.formatannotation(annotation)))

    parameters = [parameter.replace(annotation=shown(parameter.annotation)) for parameter in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=shown(signature.return_annotation))


def short(text: str) -> str:
    """Types as the source has them: NDArray[int64], Callable, Tensor; those of the package keep their modules and become links."""
    return re.sub(rf"(?<![\w.])(?!{PACKAGE}\.)(?:[a-z_]\w*\.)+(?=[A-Z])", "", ARRAY.sub(r"NDArray[\1]", text))


def write(out: Path, wanted: Iterable[str]) -> None:
    """Write the pages of the modules `wanted`, and the index of their words, into the folder `out`."""
    modules = [importlib.import_module(name) for name in wanted]  # first, so that what other packages warn of does not end it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.render.configure(
            docformat="google", template_directory=Path(__file__).parent, footer_text=f"version {threephase_ray.__version__}"
        )
        pages = {module.__name__: Module(module) for module in modules}
        for page in pages.values():
            explain(page, comments(page.source))
        files = {f"{name.replace('.', '/')}.html": pdoc.render.html_module(page, pages) for name, page in pages.items()}
        files |= {"index.html": pdoc.render.html_index(pages), "search.js": pdoc.render.search_index(pages)}
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), names())
