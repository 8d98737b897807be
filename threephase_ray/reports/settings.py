"""A run's configuration: all of it, and where it differs from the defaults."""

from collections.abc import Iterator
from typing import Any

from threephase_ray import knobs
from threephase_ray.config import Config

_PLACES = ("name", "store", "scratch")  # say where a run is, not what it does


def differences(config: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(Knob, value, default, meaning) of every knob that is not at its default; what the run resolved by itself is among them."""
    known = {knob.name: knob for knob in knobs.knobs(Config)}
    found = []
    for name, value in flat(config):
        knob = known.get(name)
        if name in _PLACES or knob is None or (knob.default != knobs.REQUIRED and _plain(value) == _plain(knob.initial)):
            continue
        found.append((name, said(value), knob.default, knob.meaning))
    return found


def flat(section: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every knob by its dotted name."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _plain(value: Any) -> Any:
    """A value as YAML gives it back: tuples are lists there, and a whole number may be a float."""
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def said(value: Any) -> str:
    """A value as one writes it into a file."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(said, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
