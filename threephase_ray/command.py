"""The command line of every job: YAML files and dotted flags over the defaults, all errors at once, exit codes.

Values are merged in the order defaults < `--config` files, left to right < dotted flags, then checked together.
"""

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from threephase_ray.config import Config, Job
from threephase_ray.errors import ConfigError, JobError
from threephase_ray.knobs import Catalogue, catalogue, help_text
from threephase_ray.mistakes import explain, refusal, shown, unknown

C = TypeVar("C", bound=Job)
Layer = dict[str, Any]  # knobs as they stand in a YAML file


@overload
def read(files: Sequence[str], flags: Sequence[str] = ...) -> Config: ...
@overload
def read(files: Sequence[str], flags: Sequence[str], kind: type[C]) -> C: ...
def read(files: Sequence[str], flags: Sequence[str] = (), kind: type[Job] = Config) -> Job:
    """Merge the YAML files and the dotted flags over the defaults of `kind`, and check the result.

    Raises:
        ConfigError: names every wrong knob at once, each with the nearest known name where one is unknown.
    """
    contents, unread = load(files)
    given, misspelt = _parse(flags, kind)
    problems, config = [*unread, *misspelt], None
    try:
        config = kind(**reduce(lambda below, above: merge(below, above, kind), [*contents, given], _default_choices(kind)))
    except ValidationError as error:
        # what is missing may stand in a file that could not be read
        problems += explain(error, kind, skip=["missing"] if unread else [])
    if problems or config is None:
        raise refusal(problems)
    return config


def laid_over(config: C, knobs: Mapping[str, Any]) -> C:
    """A resolved configuration with some knobs, by dotted name, of other values; a choice whose `name` changes starts afresh.

    Raises:
        ConfigError: names every wrong knob at once.
    """
    try:
        return lay(config, nested(knobs))
    except ValidationError as error:
        raise refusal(explain(error, type(config))) from None


def lay(config: C, layer: Layer) -> C:
    """As `laid_over`, but the knobs as they stand in a file, and wrong ones as pydantic's ValidationError."""
    kind = type(config)
    return kind(**merge(config.model_dump(mode="json"), layer, kind))


def nested(knobs: Mapping[str, Any]) -> Layer:
    """Knobs by dotted name as they stand in a YAML file."""
    layers = [reduce(lambda below, part: {part: below}, reversed(name.split(".")), value) for name, value in knobs.items()]
    return reduce(merge, layers, {})


@overload
def job(main: Callable[[Config, bool], None], description: str, argv: Sequence[str] | None = None) -> int: ...
@overload
def job(main: Callable[[C, bool], None], description: str, argv: Sequence[str] | None = None, *, kind: type[C]) -> int: ...
def job(main: Callable[[Any, bool], None], description: str, argv: Sequence[str] | None = None, kind: type[Job] = Config) -> int:
    """Run `main(config, dry_run)` as a command line, and give the exit code: 0 done, 1 failed, 2 config, 3 data, 4 resources."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(help_text(description, kind))
        return 0

    def run() -> int:
        files, flags, dry_run = split(arguments)
        main(read(files, flags, kind), dry_run)
        return 0

    return ended(run)


def ended(run: Callable[[], int]) -> int:
    """The exit code that `run` gives, or that of its error, which is printed in a few lines."""
    try:
        return run()
    except JobError as error:
        lines = str(error).splitlines()
        print("\n".join([f"{type(error).__name__}: {lines[0]}", *lines[1:15]]), file=sys.stderr)
        return error.code


def split(arguments: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """Separate `--config FILE` and `--dry-run` from the knobs' flags; a ConfigError if a path is missing."""
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


def _default_choices(kind: type[BaseModel]) -> Layer:
    """The defaults' names as the lowest layer, so that a choice's knob can be set without its `name`."""
    return nested({f"{section}.name": default for section, default in catalogue(kind).choices.items()})


def load(files: Sequence[str]) -> tuple[list[Layer], list[str]]:
    """The files' contents, and what is wrong with those that cannot be read."""
    layers, problems = [], []
    for path in files:
        try:
            layers.append(_load(path))
        except (OSError, UnicodeDecodeError, YAMLError, ConfigError) as error:
            problems.append(f"{path}: {_short(error)}")
    return layers, problems


def _load(path: str) -> Layer:
    """One YAML 1.2 file as a dict; `2e-5` is a number, a key given twice is an error."""
    content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"must hold `knob: value` lines, but is one {type(content).__name__}")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ConfigError(f"{shown(odd[0])} is not the name of a knob")
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


def merge(below: Layer, above: Layer, kind: type[BaseModel] = Config, *, at: str = "") -> Layer:
    """`above` wins knob by knob; a choice whose `name` changes starts afresh, since the other's knobs are not its own.

    `at`: the dotted name, with a dot behind it, of the section that both are. A mapping is one knob, and replaced as a whole.
    """
    if at and "name" in above and "name" in below and below["name"] != above["name"]:
        below = {}
    merged = dict(below)
    for key, value in above.items():
        whole = f"{at}{key}" in catalogue(kind).mappings or not (isinstance(value, dict) and isinstance(below.get(key), dict))
        merged[key] = value if whole else merge(below[key], value, kind, at=f"{at}{key}.")
    return merged


def _parse(flags: Sequence[str], kind: type[Job]) -> tuple[Layer, list[str]]:
    """The flags' values as a nested dict, and what is wrong with the other flags."""
    given, problems = dict[str, str](), []  # a flag that is given again takes the place of the first, also where it is a list
    for word, value in _pairs(flags):
        problem = _problem(word, value, catalogue(kind))
        problems += [problem] if problem else []
        given |= {} if problem else {word: f"{word}={value}"}
    try:
        source: Any = CliSettingsSource(kind, cli_parse_args=[*given.values()], cli_hide_none_type=True)
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


def _problem(word: str, value: str | None, known: Catalogue) -> str | None:
    """What is wrong with a flag, apart from its value's type and range."""
    name = word.removeprefix("--")
    if not word.startswith("--"):
        return f"{word}: belongs to no flag (flags start with --, lists are written a,b)"
    if mapping := next((mapping for mapping in known.mappings if name.startswith(f"{mapping}.")), None):
        return f"{word}: give --{mapping} as a whole, as JSON, or write it into a file"
    if name not in known.knobs and name not in known.sections:
        return f"{word}: {unknown(name, known)}"
    if value is None:
        return f"{word}: needs a value after it"
    if name in known.mappings and not _is_json(value, dict):
        return f"{word}: needs all of it as JSON, in quotes (given: {shown(value)})"
    if name in known.sections and not _is_json(value, dict | None):
        return f"{word}: is a section: set one of its knobs, or give all as JSON"
    return None


def _is_json(text: str, kind: Any) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except json.JSONDecodeError:
        return False
