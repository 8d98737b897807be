"""What Markdown pages say can be run: commands in fenced blocks and in the midst of a sentence, configurations, programs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

RUN = ("sh", "yaml", "python")  # languages of blocks that are run, or read as configurations
SHOWN = ("json", "mermaid", "text")  # and of those that are only looked at
PROGRAMS = {".venv/bin/python", "make", "pip", "pytest", "python", "python3"}
PROGRAMS |= {"curl", "docker", "git", "helm", "hf", "kind", "kubectl", "ray", "serve", "sha256sum", "tensorboard", "uv"}
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(?P<end>\w+)\1")
_COMMENT = re.compile(r"(^|\s\s+)#( .*)?$")  # two spaces before it, so that a # in quotes is none


@dataclass(frozen=True)
class Piece:
    """Something that a page says can be run, or used as a configuration."""

    page: str
    line: int
    kind: str  # sh, yaml, python; word: a command in the midst of a sentence
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path) -> dict[str, str]:
    """The pages with commands, in the order in which they are followed: the guide makes what the others use."""
    found = [root / "docs" / "own-data.md", root / "README.md", root / "cluster" / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in found}


def pieces(page: str, text: str) -> Iterator[Piece]:
    """All of a page, in order.

    Raises:
        ValueError: a block says no language, or one that nobody knows.
    """
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence" and token.info in RUN:
            yield from _block(page, line + 1, token.info, token.content)
        elif token.type == "code_block" or (token.type == "fence" and token.info not in SHOWN):
            raise ValueError(f"{page}:{line}: say the language of this block, one of {', '.join((*RUN, *SHOWN))}")
        for child in token.children or ():
            if child.type == "code_inline" and is_command(child.content):
                yield Piece(page, line, "word", child.content)


def in_order(page: str, text: str) -> list[Piece]:
    """All of a page, its configurations first: a command may stand before the file that it reads."""
    return sorted(pieces(page, text), key=lambda piece: piece.kind != "yaml")


def is_command(words: str) -> bool:
    """Whether they begin like one: a program, and what it is to do."""
    program, _, rest = words.partition(" ")
    return program in PROGRAMS and bool(rest)


def _block(page: str, line: int, language: str, content: str) -> Iterator[Piece]:
    """A block as one piece, or as its commands."""
    if language != "sh":
        yield Piece(page, line, language, content)
        return
    for number, command in commands(content):
        yield Piece(page, line + number, "sh", command)


def commands(content: str) -> Iterator[tuple[int, str]]:
    """The commands of a block with the numbers of their lines: comments go, continued lines and here-documents stay together."""
    lines = list(enumerate(content.splitlines()))
    while lines:
        number, line = lines.pop(0)
        command = _COMMENT.sub("", line)
        while command.endswith("\\") and lines:
            command += "\n" + _COMMENT.sub("", lines.pop(0)[1])
        if start := _HEREDOC.search(command):
            while lines and not command.endswith(f"\n{start['end']}"):
                command += "\n" + lines.pop(0)[1]
        if command.strip():
            yield number, command.strip()
