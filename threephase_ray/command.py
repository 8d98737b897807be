"""The command line of every job: YAML files and dotted flags over the defaults, all errors at once, exit codes.

Values are merged in the order defaults < `--config` files, left to right < dotted flags, then checked together.
"""

import difflib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from threephase_ray.config import Config
from threephase_ray.errors import ConfigError, JobError
from threephase_ray.knobs import choices, help_text, knobs, sections

NAMES = {knob.name: knob for knob in knobs()}
SECTIONS = sections()
CHOICES = choices()
LISTED = 12  # problems that are named; an error has 15 lines at most
SHOWN = 100  # characters of a wrong value
LIKE = 1.3  # likeness of 2 from which a name is suggested
CLEARER = {"tuple_type": "needs a list, such as [a, b]", "too_short": "needs an item at least"}


def read(files: Sequence[str], flags: Sequence[str] = ()) -> Config:
    """Merge the YAML files and the dotted flags over the defaults, and check the result.

    Raises:
        ConfigError: names every wrong knob at once, each with the nearest known name where one is unknown.
    """
    layers, unread = _load_all(files)
    given, misspelt = _parse(flags)
    problems = [*unread, *misspelt]
    try:
        config = Config(**reduce(merge, [*layers, given], _default_choices()))
    except ValidationError as error:
        # what is missing may stand in a file that could not be read
        problems += [_explain(detail) for detail in error.errors() if not (unread and detail["type"] == "missing")]
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        lines = [f"  {line}" for line in [*problems[:LISTED], *more]]
        raise ConfigError("\n".join(["the configuration cannot be used:", *lines, "see --help for every knob"]))
    return config


def job(main: Callable[[Config, bool], None], description: str, argv: Sequence[str] | None = None) -> int:
    """Run `main(config, dry_run)` as a command line, and give the exit code: 0 done, 1 failed, 2 config, 3 data, 4 resources."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(help_text(description))
        return 0
    try:
        files, flags, dry_run = _split(arguments)
        main(read(files, flags), dry_run)
    except JobError as error:
        lines = str(error).splitlines()
        print("\n".join([f"{type(error).__name__}: {lines[0]}", *lines[1:15]]), file=sys.stderr)
        return error.code
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """Separate `--config FILE` and `--dry-run` from the knobs' flags."""
    files, flags, rest = [], [], iter(arguments)
    for word in rest:
        if word == "--config":
            files.append(next(rest, ""))
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
        elif word != "--dry-run":
            flags.append(word)
    if any(not path or path.startswith("--") for path in files):
        raise ConfigError("--config needs the path of a YAML file after it")
    return files, flags, "--dry-run" in arguments


def _default_choices() -> dict[str, Any]:
    """The defaults' names as the lowest layer, so that a choice's knob can be set without its `name`."""
    layer: dict[str, Any] = {}
    for section, default in CHOICES.items():
        inner: Any = {"name": default}
        layer = merge(layer, reduce(lambda below, part: {part: below}, reversed(section.split(".")), inner))
    return layer


def _load_all(files: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The files' contents, and what is wrong with those that cannot be read."""
    layers, problems = [], []
    for path in files:
        try:
            layers.append(_load(path))
        except (OSError, UnicodeDecodeError, YAMLError, ConfigError) as error:
            problems.append(f"{path}: {_short(error)}")
    return layers, problems


def _load(path: str) -> dict[str, Any]:
    """One YAML 1.2 file as a dict; `2e-5` is a number, a key given twice is an error."""
    content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"must hold `knob: value` lines, but is one {type(content).__name__}")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ConfigError(f"{repr(odd[0])[:SHOWN]} is not the name of a knob")
    return content


def _short(error: Exception) -> str:
    """An error of reading in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.object[error.start]:#04x} at position {error.start}): save it as UTF-8"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        what = " ".join(part for part in (error.context, error.problem) if part)
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {what}"
    return " ".join(str(error).split())[:300]


def dump(config: BaseModel) -> str:
    """The resolved configuration as YAML that `read` takes back."""
    buffer = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    yaml.dump(config.model_dump(mode="json"), buffer)
    return buffer.getvalue()


def merge(below: dict[str, Any], above: dict[str, Any], *, root: bool = True) -> dict[str, Any]:
    """`above` wins knob by knob; a choice whose `name` changes starts afresh, since the other's knobs are not its own."""
    if not root and "name" in above and "name" in below and below["name"] != above["name"]:
        below = {}
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = merge(below[key], value, root=False) if both else value
    return merged


def _parse(flags: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The flags' values as a nested dict, and what is wrong with the other flags."""
    known, problems = [], []
    for word, value in _pairs(flags):
        problem = _problem(word, value)
        problems += [problem] if problem else []
        known += [] if problem else [f"{word}={value}"]
    try:
        source: Any = CliSettingsSource(Config, cli_parse_args=known, cli_hide_none_type=True)
        return dict(source()), problems
    except SettingsError as error:
        return {}, [*problems, str(error)]


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """`--knob=value` and `--knob value` as (--knob, value); None where no value follows."""
    words = list(flags)
    while words:
        word, *words = words
        flag, equals, value = word.partition("=")
        name = "--" + flag[2:].replace("-", "_")  # --skip-nonfinite is skip_nonfinite
        if not word.startswith("--"):
            yield word, None
        elif equals:
            yield name, value
        elif words and not words[0].startswith("--"):
            yield name, words.pop(0)
        else:
            yield name, None


def _problem(word: str, value: str | None) -> str | None:
    """What is wrong with a flag, apart from its value's type and range."""
    name = word.removeprefix("--")
    if not word.startswith("--"):
        return f"{word}: belongs to no flag (flags start with --, lists are written a,b)"
    if name not in NAMES and name not in SECTIONS:
        return f"{word}: {_unknown(name)}"
    if value is None:
        return f"{word}: needs a value after it"
    return f"{word}: is a section: set one of its knobs, or give all as JSON" if name in SECTIONS and not _is_section(value) else None


def _is_section(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | None)
    except json.JSONDecodeError:
        return False


def _unknown(name: str) -> str:
    """Say that a knob does not exist, and which one may have been meant."""
    if name in NAMES:
        return f"does not belong to the chosen {name.rsplit('.', 1)[0]}.name"
    likeness, near = max((_likeness(name, known), known) for known in [*NAMES, *SECTIONS])
    return "no such knob" + (f"; did you mean {near}?" if likeness > LIKE else "")


def _likeness(name: str, known: str) -> float:
    """How alike two dotted names are, and their last parts, which people remember best: 0 to 2."""
    pairs = [(name, known), (name.split(".")[-1], known.split(".")[-1])]
    return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _explain(detail: Any) -> str:
    """One line for one of pydantic's errors."""
    name, kind = _dotted(detail["loc"]), detail["type"]
    if kind == "extra_forbidden":
        return f"{name}: {_unknown(name)}"
    if kind == "missing":
        return f"{name}: is required"
    if kind == "union_tag_invalid":
        return f"{name}.name: must be {NAMES[f'{name}.name'].values} (given: {detail['ctx']['tag']})"
    if name in SECTIONS and kind != "value_error":
        return f"{name}: is a section: needs `knob: value` lines below it"
    message = CLEARER[kind] if kind in CLEARER else detail["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        message = f"does not fit: {NAMES[name].meaning}"
    return f"{name}: {message}{_given(name, detail)}" if name else message


def _given(name: str, detail: Any) -> str:
    """The wrong value of a knob; what YAML took for a number or a date may have been meant as text."""
    if name in SECTIONS:
        return ""
    quotes = "; write it in quotes" if detail["type"] == "string_type" and detail["input"] is not None else ""
    return f" (given: {repr(detail['input'])[:SHOWN]}{quotes})"


def _dotted(location: Sequence[str | int]) -> str:
    """A knob's name from pydantic's location, which names a choice's member after the choice."""
    name = ".".join(str(part) for part in location)
    for section in CHOICES:
        name = re.sub(rf"^{re.escape(section)}\.[^.]+", section, name)
    return name
