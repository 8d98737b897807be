"""What is wrong with a configuration, in a line for each knob, with the nearest known name where one is unknown."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from threephase_ray.errors import ConfigError
from threephase_ray.knobs import Catalogue, catalogue

_LISTED = 12  # problems that are named; an error has 15 lines at most
_SHOWN = 100  # characters of a wrong value
_LIKE = 1.3  # likeness of 2 from which a name is suggested
_CLEARER = {
    "tuple_type": "needs a list, such as [a, b]",
    "dict_type": "needs `knob: value` lines below it",
    "too_short": "needs an item at least",
    "too_long": "has too many items",
}


def refusal(problems: Sequence[str]) -> ConfigError:
    """The error that names the problems, as many as there is room for."""
    more = [f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    lines = [f"  {line}" for line in [*problems[:_LISTED], *more]]
    return ConfigError("\n".join(["the configuration cannot be used:", *lines, "see --help for every knob"]))


def shown(value: object) -> str:
    """A value in a message."""
    return repr(value)[:_SHOWN]


def explain(error: ValidationError, kind: type[BaseModel], skip: Sequence[str] = ()) -> list[str]:
    """A line for each wrong knob; `skip`: pydantic's types of errors to leave out."""
    known = catalogue(kind)
    details = [detail for detail in error.errors() if detail["type"] not in skip and not _follows(detail)]
    return list(dict.fromkeys(_line(detail, known) for detail in details))


def in_words(error: ValidationError) -> str:
    """What is wrong with a single value."""
    detail = error.errors()[0]
    return f"{_message(detail)}{_given(detail)}"


def unknown(name: str, known: Catalogue) -> str:
    """Say that a knob does not exist, and which one may have been meant."""
    if name in known.knobs:
        return f"does not belong to the chosen {name.rsplit('.', 1)[0]}.name"
    likeness, near = max((_likeness(name, other), other) for other in [*known.knobs, *known.sections])
    return "no such knob" + (f"; did you mean {near}?" if likeness > _LIKE else "")


def _likeness(name: str, known: str) -> float:
    """How alike two dotted names are, and their last parts, which people remember best: 0 to 2."""
    pairs = [(name, known), (name.split(".")[-1], known.split(".")[-1])]
    return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _follows(detail: Any) -> bool:
    """Whether an error only follows from others: a list is too short because its items were wrong."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _line(detail: Any, known: Catalogue) -> str:
    """One line for one of pydantic's errors."""
    name, kind = _dotted(detail["loc"], known), detail["type"]
    entry = next((entry for mapping, entry in known.mappings.items() if name.startswith(f"{mapping}.")), None)
    if entry is not None:
        return _line_of_entry(detail, name, entry)
    if kind == "extra_forbidden":
        return f"{name}: {unknown(name, known)}"
    if kind == "missing":
        return f"{name}: is required"
    if kind == "union_tag_invalid":
        return f"{name}.name: must be {known.knobs[f'{name}.name'].values} (given: {detail['ctx']['tag']})"
    if name in known.sections and kind != "value_error":
        return f"{name}: is a section: needs `knob: value` lines below it"
    message = f"does not fit: {known.knobs[name].meaning}" if kind == "string_pattern_mismatch" else _message(detail)
    return f"{name}: {message}{'' if name in known.sections else _given(detail)}" if name else message


def _line_of_entry(detail: Any, name: str, entry: type[BaseModel]) -> str:
    """One line for an error below a key of a mapping, such as an axis of a sweep's space."""
    kind, fields, last = detail["type"], list(entry.model_fields), str(detail["loc"][-1])
    if last == "[key]":
        return f"{name.removesuffix('.[key]')}: a name has small letters, digits, dots, dashes and underscores, at most 40"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(last, fields, 1)
        return f"{name}: must be one of {', '.join(fields)}" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "model_type":
        return f"{name}: needs one of {', '.join(fields)} below it{_given(detail)}"
    if kind in ("missing", "too_long"):
        return f"{name}: needs two numbers, [low, high]"
    if kind == "value_error":
        return f"{name}: {_message(detail)}"
    below = next(at for at, part in enumerate(detail["loc"]) if part in fields)
    if len(detail["loc"]) > below + 2:  # pydantic says for each member of a union why it does not fit
        place = _joined(detail["loc"][: below + 2])
        return f"{place}: needs text, a number, true, false, null or a list of texts"
    return f"{name}: {_message(detail)}{_given(detail)}"


def _message(detail: Any) -> str:
    message: str = detail["msg"]
    return _CLEARER.get(detail["type"], message.removeprefix("Value error, "))


def _given(detail: Any) -> str:
    """The wrong value of a knob; what YAML took for a number or a date may have been meant as text."""
    quotes = "; write it in quotes" if detail["type"] == "string_type" and detail["input"] is not None else ""
    return f" (given: {shown(detail['input'])}{quotes})"


def _dotted(location: Sequence[str | int], known: Catalogue) -> str:
    """A knob's name from pydantic's location, which names a choice's member after the choice."""
    name = _joined(location)
    for section in known.choices:
        name = re.sub(rf"^{re.escape(section)}\.[^.]+", section, name)
    return name


def _joined(location: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in location)
