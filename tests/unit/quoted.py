"""The error messages that docs/troubleshooting.md quotes, and the texts of the source that they are made of."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
_OPEN = r"<[^<>]+>|\[|\]"  # what differs, what may be absent
_VALUE = "\0"  # a value inside a text of the source


@dataclass(frozen=True)
class Quote:
    """One message of the page."""

    codes: tuple[int, ...]  # exit codes that the section is about
    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The class of the error, where the message says it."""
        found = re.match(r"([A-Z]\w+): ", self.lines[0])
        return found[1] if found else ""

    def parts(self) -> Iterator[str]:
        """The clauses of the message without what differs, since the source may put them together; of words alone."""
        for line in self.lines:
            said = re.split(rf"{_OPEN}|[:;] ", line.removeprefix(f"{self.kind}: ") if self.kind else line)
            yield from (part.strip(" .,:;()'\"") for part in said if re.search(r"[A-Za-z]{2}", part))

    def says(self, printed: str) -> bool:
        """Whether all lines of the message, in their order, are whole lines of what was printed."""
        pattern = r"\n(?:.*\n)*?".join(_pattern(line) for line in self.lines)
        return re.search(rf"^{pattern}$", printed, re.MULTILINE) is not None


def _pattern(line: str) -> str:
    """A quoted line as an expression: `<...>` is anything, `[...]` may be absent."""
    made = re.sub(r"\\\[(.*?)\\\]", r"(?:\1)?", re.escape(line).replace(r"\ ", " "))
    return re.sub(r"<[^<>]+>", ".+", made)


def quotes() -> list[Quote]:
    """All messages of the page."""
    found = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        codes = tuple(int(code) for code in re.findall(r"\d+", title))
        found += [Quote(codes, tuple(block.splitlines())) for block in re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)]
    return found


def texts(path: Path) -> list[str]:
    """The texts of a module, docstrings left out, with `_VALUE` for what is put into them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    holders = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in holders if node.body and isinstance(node.body[0], ast.Expr)}
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    left_out = docstrings | {id(part) for node in joined for part in node.values}
    plain = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in left_out]
    put = ["".join(str(part.value) if isinstance(part, ast.Constant) else _VALUE for part in node.values) for node in joined]
    return [*(text for text in plain if isinstance(text, str)), *put]
