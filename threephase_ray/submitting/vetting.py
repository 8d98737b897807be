"""What must be right before a job leaves this machine: knobs, no secrets, nothing that lies only here."""

import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from threephase_ray.config import Job
from threephase_ray.errors import ConfigError
from threephase_ray.mistakes import refusal
from threephase_ray.studies import arms
from threephase_ray.studying import StudyConfig
from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps.space import Space

# Knobs that are read as paths where the job runs, by the last parts of their names.
_PATHS = re.compile(r"(^|\.)(data\.(source|train|validation|test|unlabelled)|encoder\.path|sweep\.configs|model|input\.files)(\.\d+)*$")
_SECRETS = {
    "a password or key inside a URI": re.compile(r"://[^/@\s]*:[^/@\s]+@"),
    "a signature or token inside a URI": re.compile(r"[?&]([\w-]+[-_])?(sig|signature|token|secret|password|credential)=", re.IGNORECASE),
    "an access key of AWS": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of a hub": re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,})\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


def check(config: Job, root: Path, uploaded: Set[str]) -> None:
    """Refuse a configuration that would fail on the cluster, or mean something else there. `uploaded`: names below `root`.

    Raises:
        ConfigError: all that is wrong.
    """
    if isinstance(config, SweepConfig):
        Space(config)
    if isinstance(config, StudyConfig):
        arms.check(config)
    knobs = list(texts(config.model_dump(mode="json")))
    if problems := [*secrets(knobs), *left_behind(knobs, root, uploaded)]:
        raise refusal(problems) if len(problems) > 1 else ConfigError(problems[0])


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


def secrets(knobs: list[tuple[str, str]]) -> list[str]:
    """Values that look like credentials, which must be in no file, log or metadata; none of them is shown."""
    found = [(name, next((what for what, pattern in _SECRETS.items() if pattern.search(value)), "")) for name, value in knobs]
    advice = "give it to the cluster's nodes (environment, secret or role), not to the job"
    return [f"{name}: looks like {what}; {advice}" for name, what in found if what]


def left_behind(knobs: list[tuple[str, str]], root: Path, uploaded: Set[str]) -> list[str]:
    """Paths that the cluster would not find, or would find empty: a relative store, and what lies here without being uploaded."""
    found, advice = [], "give an absolute path that all nodes have, or a URI"
    for name, value in knobs:
        if name == "store" and "://" not in value and not value.startswith(("/", "~")):
            found.append(f"store: {value} would lie in the job's own folder, and go with it; {advice}")
        elif _PATHS.search(name) and is_only_here(value, root, uploaded):
            found.append(f"{name}: {value} lies here and is not uploaded; {advice}")
    return found


def is_only_here(value: str, root: Path, uploaded: Set[str]) -> bool:
    """Whether a relative path, or the beginning of a glob, is here but not where the job will look."""
    plain = re.split(r"[*?\[]", value)[0].rstrip("/")
    if "://" in value or value.startswith(("/", "~")) or not plain or not Path(plain).exists():
        return False
    inside = (Path.cwd() / plain).resolve() == (root / plain).resolve()
    return not (inside and any(name == plain or name.startswith(f"{plain}/") for name in uploaded))
