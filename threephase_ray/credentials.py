"""Values of a configuration that look like credentials: they belong to machines, not into files, logs or metadata."""

import re
from collections.abc import Iterator
from typing import Any

_KINDS = {
    "a password or key inside a URI": re.compile(r"://[^/@\s]*:[^/@\s]+@"),
    "a signature or token inside a URI": re.compile(r"[?&]([\w-]+[-_])?(sig|signature|token|secret|password|credential)=", re.IGNORECASE),
    "an access key of AWS": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of a hub": re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,})\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


def texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a configuration, with its dotted name; names of mappings count, too."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from texts(key, f"{name} (a name)")
            yield from texts(below, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from texts(below, f"{name}.{number}")


def found(knobs: list[tuple[str, str]]) -> list[str]:
    """What is wrong with those of the knobs whose values look like credentials; no value is shown."""
    kinds = [(name, next((kind for kind, pattern in _KINDS.items() if pattern.search(value)), "")) for name, value in knobs]
    advice = "give it to the cluster's nodes (environment, secret or role), not to the job"
    return [f"{name}: looks like {kind}; {advice}" for name, kind in kinds if kind]
