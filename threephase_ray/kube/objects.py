"""Manifests as the checks see them: objects, the Ray clusters and pods that they make, quantities, problems."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from threephase_ray.errors import ConfigError

Manifest = dict[str, Any]
Fault = tuple[str, str, str]  # where in the object, what is wrong, what to do

_FACTORS = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: found by which rule, where, what, and what to do about it."""

    rule: str
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return " ".join(f"{self.where}: {self.what}; {self.remedy} [{self.rule}]".split())


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that a RayCluster or a RayJob asks for."""

    owner: Manifest
    path: str
    spec: Manifest

    @property
    def groups(self) -> list[Manifest]:
        """The worker groups."""
        return list(self.spec.get("workerGroupSpecs") or [])

    @property
    def autoscaled(self) -> bool:
        """Whether Ray's autoscaler adds and removes workers."""
        return bool(self.spec.get("enableInTreeAutoscaling"))

    def nodes(self) -> Iterator[tuple[str, Manifest]]:
        """(path, group) of the head and of each worker group."""
        yield f"{self.path}.headGroupSpec", self.spec.get("headGroupSpec") or {}
        for number, group in enumerate(self.groups):
            yield f"{self.path}.workerGroupSpecs[{number}]", group


@dataclass(frozen=True)
class Pod:
    """A pod template: of a head, a worker group or a submitter."""

    owner: Manifest
    path: str
    role: str
    template: Manifest

    @property
    def spec(self) -> Manifest:
        """The pod's spec."""
        return dig(self.template, "spec") or {}

    @property
    def labels(self) -> dict[str, str]:
        """The pod's labels, the operator's own aside."""
        return dig(self.template, "metadata", "labels") or {}

    @property
    def main(self) -> Manifest:
        """Its first container, which is Ray's."""
        return next(iter(self.spec.get("containers") or []), {})

    def containers(self) -> Iterator[tuple[str, Manifest]]:
        """(path, container) of all its containers."""
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for number, container in enumerate(self.spec.get(kind) or []):
                yield f"{self.path}.spec.{kind}[{number}]", container


def dig(tree: Any, *names: str | int) -> Any:
    """What stands at a path of keys and indexes, None where it ends early."""
    for name in names:
        if isinstance(tree, Mapping):
            tree = tree.get(name)
        elif isinstance(tree, Sequence) and isinstance(name, int) and name < len(tree):
            tree = tree[name]
        else:
            return None
    return tree


def title(manifest: Manifest) -> str:
    """An object's kind and name, for people."""
    return f"{manifest.get('kind')}/{dig(manifest, 'metadata', 'name')}"


def kinds(manifests: Sequence[Manifest], *wanted: str) -> list[Manifest]:
    """The objects of these kinds."""
    return [manifest for manifest in manifests if manifest.get("kind") in wanted]


def cluster_of(manifest: Manifest) -> Cluster | None:
    """The Ray cluster that an object asks for; None if it asks for none of its own."""
    if manifest.get("kind") == "RayCluster":
        return Cluster(manifest, "spec", manifest.get("spec") or {})
    if manifest.get("kind") == "RayJob" and (spec := dig(manifest, "spec", "rayClusterSpec")):
        return Cluster(manifest, "spec.rayClusterSpec", spec)
    return None


def pods_of(manifest: Manifest) -> Iterator[Pod]:
    """All pod templates that an object brings; a submitter that is left to the operator's default counts, as an empty template."""
    if cluster := cluster_of(manifest):
        for path, group in cluster.nodes():
            role = "head" if path.endswith("headGroupSpec") else "worker"
            yield Pod(manifest, f"{path}.template", role, group.get("template") or {})
    if manifest.get("kind") == "RayJob" and dig(manifest, "spec", "submissionMode") in (None, "K8sJobMode"):
        yield Pod(manifest, "spec.submitterPodTemplate", "submitter", dig(manifest, "spec", "submitterPodTemplate") or {})


def quantity(value: object) -> float:
    """A quantity of Kubernetes as a number: "500m" is 0.5, "2Gi" is 2147483648; NaN for what is none."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", str(value))
    return float(match.group(1)) * _FACTORS[match.group(2) or ""] if match else float("nan")


def selects(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all, none takes nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(expression, labels) for expression in selector.get("matchExpressions") or [])


def _meets(expression: Manifest, labels: Mapping[str, str]) -> bool:
    """One expression of a selector."""
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def parse(text: str, source: str) -> list[Manifest]:
    """All objects of a YAML stream, Lists unpacked; `yes` and `on` are truth values, as for Kubernetes.

    Raises:
        ConfigError: it is no YAML, or holds something that is no object.
    """
    try:
        documents = [document for document in yaml.load_all(text, Loader=_SAFE_LOADER) if document is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: is no YAML: {' '.join(str(error).split())}") from None
    if odd := [document for document in documents if not isinstance(document, dict) or "kind" not in document]:
        raise ConfigError(f"{source}: holds something that is no Kubernetes object: {str(odd[0])[:80]}")
    lists = [item for document in documents if document["kind"] == "List" for item in document.get("items") or []]
    return [document for document in documents if document["kind"] != "List"] + lists


def read(path: Path) -> list[Manifest]:
    """All objects of a YAML file, see `parse`; a ConfigError if it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: twenty times as fast
