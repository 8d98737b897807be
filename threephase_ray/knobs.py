"""The list of knobs, and what is made of it: the text of --help and the page docs/knobs.md.

`python -m threephase_ray.knobs docs/knobs.md` writes the page; with `--check` it only compares.
"""

import argparse
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from threephase_ray.config import Config

REQUIRED = "required"
HEAD = """# Knobs

<!-- written by `make knobs` -->
A knob stands in a YAML file (`dae: {noise_ratio: 0.4}`) or is a flag (`--dae.noise_ratio 0.4`); null is nothing. `--help`
of a job prints its own.

## Training, sweeps and studies

`jobs/train.py` and `jobs/prepare.py` take all but the sections `sweep` and `study`, `jobs/sweep.py` all but `study`,
`jobs/study.py` all but `sweep`.
"""
KINDS = {str: "text", int: "integer", float: "number", bool: "true or false"}
SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


class Knob(NamedTuple):
    """One knob, in words."""

    name: str  # dotted
    values: str  # "number > 0, < 1"
    default: str  # as it stands in YAML
    meaning: str
    type: Any  # what it takes, with its range
    initial: Any = None  # the default itself
    member: str = ""  # of a choice: the `name` with which alone the knob is there


class Catalogue(NamedTuple):
    """All that a configuration consists of, by dotted name."""

    knobs: dict[str, Knob]
    sections: dict[str, str]  # -> meaning
    choices: dict[str, str]  # section -> default of the `name` that chooses between its members
    mappings: dict[str, type[BaseModel]]  # knob whose keys are free -> what stands below each key


@cache
def catalogue(kind: type[BaseModel]) -> Catalogue:
    """What a class of configurations consists of."""
    every = {knob.name: knob for knob in knobs(kind)}
    choices = {name.removesuffix(".name"): knob.default for name, knob in every.items() if name.endswith(".name")}
    return Catalogue(every, sections(kind), choices, {name: found for name, knob in every.items() if (found := _entries(knob.type))})


def knobs(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Knob]:
    """Every knob in the order of declaration; of a choice its `name`, then the knobs of each member."""
    for field_name, field in model.model_fields.items():
        name, members = f"{prefix}{field_name}", _sections(field.annotation)
        if not members:
            kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            yield Knob(name, _values(field), _default(field), field.description or "", kind, field.default)
            continue
        if len(members) > 1:
            names = tuple(member.model_fields["name"].default for member in members)
            yield Knob(f"{name}.name", _either(names), field.default.name, f"which {field.description}", Literal[names], field.default.name)
        for member in members:
            own = member.model_fields["name"].default if len(members) > 1 else ""
            below = (knob for knob in knobs(member, f"{name}.") if not own or knob.name != f"{name}.name")
            yield from (knob._replace(member=own) if own else knob for knob in below)


def sections(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """Dotted name -> meaning of every section."""
    found = {}
    for field_name, field in model.model_fields.items():
        for section in _sections(field.annotation):
            found[f"{prefix}{field_name}"] = field.description or ""
            found |= sections(section, f"{prefix}{field_name}.")
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation admits: none for a plain knob."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [section for part in get_args(annotation) for section in _sections(part)]
    return []


def _entries(annotation: Any) -> type[BaseModel] | None:
    """What stands below each key of a knob that is a mapping to sections; None for every other knob."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    below = get_args(bare)[1] if get_origin(bare) is dict else None
    return below if isinstance(below, type) and issubclass(below, BaseModel) else None


def _values(field: FieldInfo) -> str:
    """What a knob takes: kind and range."""
    bounds = [
        f"{sign} {getattr(limit, name)}" for limit in field.metadata for kind, (name, sign) in SIGNS.items() if isinstance(limit, kind)
    ]
    return " ".join([_kind(field.annotation), ", ".join(bounds)]).strip()


def _kind(annotation: Any) -> str:
    """A type in words; that a knob may be empty is said by its meaning."""
    if annotation in KINDS:
        return KINDS[annotation]
    if get_origin(annotation) is dict:
        below = _entries(annotation)
        return f"name: {below.__name__.lower()}" if below else "knob: value"
    parts = [part for part in get_args(annotation) if part not in (type(None), ...)]
    if get_origin(annotation) is Literal:
        return _either(parts)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in parts)
    return ("list of " if get_origin(annotation) is tuple else "") + _kind(parts[0])


def _either(values: Sequence[Any]) -> str:
    return " or ".join(part for part in (", ".join(str(value) for value in values[:-1]), str(values[-1])) if part)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    return _flow(field.default)


def _flow(value: Any) -> str:
    """A default in YAML's flow style; of a section below a key only what is set."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, BaseModel):
        return _flow(value.model_dump(exclude_defaults=True))
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(each)}' for key, each in value.items())}}}"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 10 else str(value)


def _by_section(kind: type[BaseModel]) -> dict[str, list[Knob]]:
    """Dotted name of a section -> its own knobs; the first, '', holds those outside of any section."""
    grouped: dict[str, list[Knob]] = {}
    for knob in knobs(kind):
        grouped.setdefault(knob.name.rpartition(".")[0], []).append(knob)
    return grouped


def help_text(description: str, kind: type[BaseModel] = Config) -> str:
    """What --help prints: every knob with its values, default and meaning."""
    parser = argparse.ArgumentParser(
        description=f"{description} Later files win over earlier ones, flags over files. A list is written a,b; nothing is written null.",
        usage="%(prog)s --config FILE [--config FILE ...] [--dry-run] [--dotted.knob VALUE ...]",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=10),
        add_help=False,
    )
    parser.add_argument("--help", action="store_true", help="print this and stop")
    parser.add_argument("--config", metavar="FILE", help="YAML file with knobs; may be given several times")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and the plan, and stop")
    meanings = sections(kind)
    for section, members in _by_section(kind).items():
        group = parser.add_argument_group(section or "the run", meanings.get(section))
        for knob in members:
            default = "required" if knob.default == REQUIRED else f"default: {knob.default}"
            group.add_argument(f"--{knob.name}", metavar=f"<{knob.values}>", help=f"{knob.meaning} ({default})".replace("%", "%%"))
    return parser.format_help()


def table(kind: type[BaseModel]) -> str:
    """A table of knobs in Markdown: a line for each section, then its knobs."""
    meanings, lines = sections(kind), ["| knob | values | default | meaning |", "|---|---|---|---|"]
    for section, members in _by_section(kind).items():
        if section:
            lines.append(f"| **{section}** | | | **{meanings[section]}** |")
        lines += [f"| `{knob.name}` | {knob.values} | {knob.default} | {knob.meaning.replace('|', '/')} |" for knob in members]
    return "\n".join(lines)


def _table_beside(first: str, job: str, kind: type[BaseModel]) -> str:
    """The table of another job's knobs, without those that the first table has."""
    head, rule, *lines = table(kind).splitlines()
    own = [line for line in lines if line not in first.splitlines()]
    return "\n".join([f"## `jobs/{job}.py`\n\n`name`, `store`, `scratch` and `compute` as above, and:\n", head, rule, *own])


def page() -> str:
    """The knobs of all jobs as a page in Markdown."""
    from threephase_ray.exporting import ExportConfig  # here, for only the page tells of every job's knobs at once
    from threephase_ray.predicting import PredictConfig
    from threephase_ray.serving import ServeConfig
    from threephase_ray.studying import Study
    from threephase_ray.sweeping import SweepConfig

    class Everything(SweepConfig):
        """The knobs of training, sweeps and studies."""

        study: Study = Field(Study(), description="the comparison")

    others: dict[str, type[BaseModel]] = {"predict": PredictConfig, "serve": ServeConfig, "export": ExportConfig}
    first = table(Everything)
    return "\n\n".join([HEAD.rstrip(), first, *(_table_beside(first, job, kind) for job, kind in others.items())]) + "\n"


def main(argv: Sequence[str]) -> int:
    """Write the page into a file, or with `--check` say whether it stands there already: exit code 0 or 1."""
    path, new = Path(argv[-1]), page()
    if "--check" not in argv:
        path.write_text(new, encoding="utf-8")
        return 0
    same = path.is_file() and path.read_text(encoding="utf-8") == new
    print(f"{path}: {'up to date' if same else 'not up to date: run `make knobs`'}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
