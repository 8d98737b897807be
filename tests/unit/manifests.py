"""Rendered overlays for the tests of manifests, each made once; edits by path; the layers of the checks."""

import copy
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from threephase_ray import __version__
from threephase_ray.kube import builtin, podsecurity, render, rules, schema
from threephase_ray.kube.objects import Manifest, Problem, title

OVERLAYS = sorted(path.name for path in (ROOT / "cluster" / "overlays").iterdir())
JOBS = ("prepare", "train", "sweep", "study", "predict")
GONE = object()  # as a value: the field is removed

_CRDS = ROOT.parent / "shared" / "kuberay" / "crds"
_PIN = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
RAY = _PIN[1] if _PIN else ""

Edit = tuple[str, str, Any]  # object, path in it with / between keys, value


def crds() -> Path:
    """The operator's CustomResourceDefinitions; skips where they are absent, or fails if they are required."""
    if any(_CRDS.glob("*.yaml")):
        return _CRDS
    reason = f"needs the CustomResourceDefinitions of KubeRay in {_CRDS}"
    if os.environ.get("THREEPHASE_REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@functools.cache
def overlay(name: str) -> tuple[Manifest, ...]:
    """All objects of an overlay and its jobs. Not to be changed, see `edited`."""
    return tuple(render.gather(ROOT / "cluster" / "overlays" / name))


def without(name: str, *jobs: str) -> list[Manifest]:
    """An overlay's objects, some jobs left out."""
    return [manifest for manifest in overlay(name) if title(manifest) not in {f"RayJob/{job}" for job in jobs}]


def edited(manifests: Sequence[Manifest], edits: Sequence[Edit]) -> list[Manifest]:
    """A copy with the edits made; an edit without a path adds its value as an object, or removes the object."""
    changed = copy.deepcopy(list(manifests))
    for name, path, value in edits:
        if not path:
            changed = [manifest for manifest in changed if title(manifest) != name] + ([] if value is GONE else [value])
            continue
        _put(
            next(manifest for manifest in changed if title(manifest) == name),
            path.split("/"),
            value if value is GONE else copy.deepcopy(value),
        )
    return changed


def _put(tree: Any, path: Sequence[str], value: Any) -> None:
    """Set, append ("-") or remove what stands at the path; `~` in a key is a slash, as in JSON patches."""
    *above, last = [part.replace("~", "/") for part in path]
    for part in above:
        tree = tree[int(part)] if isinstance(tree, list) else tree.setdefault(part, {})
    if value is GONE:
        del tree[int(last) if isinstance(tree, list) else last]
    elif last == "-":
        tree.append(value)
    elif isinstance(tree, list):
        tree[int(last)] = value
    else:
        tree[last] = value


def found_by_rules(manifests: Sequence[Manifest]) -> list[Problem]:
    """What the layers find that need no schemas: rules and Pod Security."""
    return rules.check(manifests, RAY, __version__) + podsecurity.check(manifests)


def found_by_schemas(manifests: Sequence[Manifest], folder: Path | None) -> list[Problem]:
    """What the layers with schemas find; `folder`: the operator's, where they are there."""
    return builtin.check(manifests) + (schema.check(manifests, schema.load(folder)) if folder else [])
