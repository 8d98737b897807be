"""What must be right before a job leaves this machine: knobs, no secrets, nothing that lies only here."""

import re
from collections.abc import Set
from pathlib import Path

from threephase_ray import credentials
from threephase_ray.config import Job
from threephase_ray.errors import ConfigError
from threephase_ray.mistakes import refusal
from threephase_ray.studies import arms
from threephase_ray.studying import StudyConfig
from threephase_ray.sweeping import SweepConfig
from threephase_ray.sweeps.space import Space

# Knobs that are read as paths where the job runs, by the last parts of their names.
_PATHS = re.compile(r"(^|\.)(data\.(source|train|validation|test|unlabelled)|encoder\.path|sweep\.configs|model|input\.files)(\.\d+)*$")


def check(config: Job, root: Path, uploaded: Set[str]) -> None:
    """Refuse a configuration that would fail on the cluster, or mean something else there. `uploaded`: names below `root`.

    Raises:
        ConfigError: all that is wrong.
    """
    if isinstance(config, SweepConfig):
        Space(config)
    if isinstance(config, StudyConfig):
        arms.check(config)
    knobs = list(credentials.texts(config.model_dump(mode="json")))
    if problems := [*credentials.found(knobs), *left_behind(knobs, root, uploaded)]:
        raise refusal(problems) if len(problems) > 1 else ConfigError(problems[0])


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
