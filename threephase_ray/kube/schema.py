"""Custom resources against the schemas of their CustomResourceDefinitions, as the API server does it: defaults, types, unknown
fields, and the rules written in CEL.
"""

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cel
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from threephase_ray.errors import ConfigError
from threephase_ray.kube.objects import Manifest, Problem, dig, read, title

Key = tuple[str, str]  # apiVersion and kind

_FORMATS = FormatChecker(formats=())
_LONGEST = 200  # characters of a message


@dataclass(frozen=True)
class Schema:
    """One version of a custom resource."""

    open_api: Manifest
    validator: Draft202012Validator


@_FORMATS.checks("int32")
def _int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@_FORMATS.checks("int64")
def _int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@functools.cache
def load(folder: Path) -> Mapping[Key, Schema]:
    """The served versions of all CustomResourceDefinitions in the folder's YAML files.

    Raises:
        ConfigError: there are none.
    """
    definitions = [document for file in sorted(folder.glob("*.yaml")) for document in read(file)]
    schemas = {
        (f"{dig(definition, 'spec', 'group')}/{version['name']}", dig(definition, "spec", "names", "kind")): _schema(version)
        for definition in definitions
        if definition["kind"] == "CustomResourceDefinition"
        for version in dig(definition, "spec", "versions")
        if version.get("served")
    }
    if not schemas:
        raise ConfigError(f"{folder}: has no CustomResourceDefinition in a .yaml file")
    return schemas


def _schema(version: Manifest) -> Schema:
    open_api = version["schema"]["openAPIV3Schema"]
    return Schema(open_api, Draft202012Validator(_closed(open_api), format_checker=_FORMATS))


def _closed(schema: Any) -> Any:
    """The schema with unknown fields forbidden wherever it names fields."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items() if key != "properties"}
    if properties := schema.get("properties"):
        closed["properties"] = {name: _closed(value) for name, value in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed


def check(manifests: Sequence[Manifest], schemas: Mapping[Key, Schema]) -> list[Problem]:
    """What the API server would refuse of the objects whose schemas are known."""
    return [
        problem
        for manifest in manifests
        if (schema := schemas.get((str(manifest.get("apiVersion")), str(manifest.get("kind")))))
        for problem in _check(manifest, schema)
    ]


def _check(manifest: Manifest, schema: Schema) -> Iterator[Problem]:
    whole = with_defaults(without_nulls(manifest), schema.open_api)
    errors = sorted(schema.validator.iter_errors(whole), key=lambda error: list(map(str, error.absolute_path)))
    for error in errors:
        yield Problem("schema", f"{title(manifest)} {_place(error)}", _shortened(error.message), "see the field's documentation")
    for where, message in () if errors else cel_faults(whole, schema.open_api):
        yield Problem("cel", f"{title(manifest)} {where}", message, "see the field's documentation")


def without_nulls(value: Any) -> Any:
    """A copy without fields that are null: the API server drops them, then applies defaults."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def with_defaults(value: Any, schema: Manifest) -> Any:
    """A copy with the schema's defaults where nothing is given."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        missing = {name: copy.deepcopy(part["default"]) for name, part in properties.items() if "default" in part and name not in value}
        return {name: with_defaults(item, _part(schema, name)) for name, item in (value | missing).items()}
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items") or {}) for item in value]
    return value


def cel_faults(value: Any, schema: Manifest, path: str = "") -> Iterator[tuple[str, str]]:
    """(where, message) of each rule that does not hold. Rules on a change (`oldSelf`) say nothing about a new object."""
    for rule in schema.get("x-kubernetes-validations") or []:
        if "oldSelf" not in rule["rule"] and cel.evaluate(rule["rule"], {"self": value}) is not True:
            yield path or "spec", rule.get("message") or rule["rule"]
    if isinstance(value, dict):
        for name, item in value.items():
            yield from cel_faults(item, _part(schema, name), f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from cel_faults(item, schema.get("items") or {}, f"{path}[{number}]")


def _part(schema: Manifest, name: str) -> Manifest:
    """The schema of one field of an object."""
    known = (schema.get("properties") or {}).get(name)
    others = schema.get("additionalProperties")
    return known if known is not None else others if isinstance(others, dict) else {}


def _place(error: ValidationError) -> str:
    """Where an error is, as in a manifest."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
