"""A table as Markdown, as LaTeX and as CSV."""

import csv
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
}


class Cell(NamedTuple):
    """What stands in a table: in words, and as the number behind it. `strong`: best among its like; `beside`: in small print."""

    text: str
    value: float | None = None
    strong: bool = False
    beside: str = ""


class Table(NamedTuple):
    """A table with a heading for each column; the first `labels` columns are names, the others figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    labels: int = 1
    note: str = ""


def markdown(table: Table) -> str:
    """The table in Markdown, the best in bold."""

    def cell(each: Cell) -> str:
        text, beside = (literal(part) for part in (each.text, each.beside))
        return (f"**{text}**" if each.strong else text) + (f" ({beside.strip()})" if beside else "")

    sides = [":--" if i < table.labels else "--:" for i in range(len(table.columns))]
    lines = [[cell(Cell(column)) for column in table.columns], sides, *([cell(each) for each in row] for row in table.rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{cell(Cell(table.title))}\n\n{body}\n" + (f"\n{cell(Cell(table.note))}\n" if table.note else "")


def literal(text: str) -> str:
    """Text in which nothing is a mark of Markdown, on one line."""
    return re.sub(r"([\\`*_|<>\[\]~$&])", r"\\\1", " ".join(text.splitlines()))


def latex(table: Table) -> str:
    """The table for LaTeX with the package booktabs, the best in bold."""

    def line(row: Sequence[Cell]) -> str:
        texts = [rf"\textbf{{{escaped(each.text)}}}" if each.strong else escaped(each.text) for each in row]
        small = [rf" {{\footnotesize ({escaped(each.beside.strip())})}}" if each.beside else "" for each in row]
        return f"{' & '.join(map(''.join, zip(texts, small, strict=True)))} \\\\"

    sides = "".join("l" if i < table.labels else "r" for i in range(len(table.columns)))
    rules = [r"\toprule", line([Cell(column) for column in table.columns]), r"\midrule", *map(line, table.rows), r"\bottomrule"]
    note = f" {escaped(table.note)}" if table.note else ""
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(table.title)}.{note}}}",
            rf"\begin{{tabular}}{{{sides}}}",
            *rules,
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Text in which nothing is a command of LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in text.replace("\n", " "))


def comma_separated(table: Table) -> str:
    """The table as CSV: numbers where there are numbers, else the words; texts that a spreadsheet would compute are quoted by a '."""

    def cell(each: Cell) -> str | float:
        if each.value is not None:
            return each.value
        return f"'{each.text}" if each.text.startswith(("=", "+", "-", "@", "\t", "\r")) else each.text

    buffer = io.StringIO()
    lines = [[Cell(column) for column in table.columns], *table.rows]
    csv.writer(buffer, lineterminator="\n").writerows([cell(each) for each in line] for line in lines)
    return buffer.getvalue()


def files(tables: Sequence[Table], flat: Table) -> dict[str, str]:
    """Tables for people in Markdown and LaTeX, and one for programs as CSV, by name of the file."""
    return {
        "table.md": "\n".join(map(markdown, tables)),
        "table.tex": "\n".join(map(latex, tables)),
        "table.csv": comma_separated(flat),
    }
