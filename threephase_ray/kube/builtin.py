"""Kubernetes' own kinds against their schemas, unknown fields included; pod templates inside of custom resources, too."""

import functools
import json
from collections.abc import Iterator, Sequence

import kubernetes_validate
from kubernetes_validate.utils import VersionNotSupportedError
from packaging.version import InvalidVersion

from threephase_ray.errors import ConfigError
from threephase_ray.kube.objects import Manifest, Problem, pods_of, title

_LONGEST = 200  # characters of a message


def newest() -> str:
    """The newest Kubernetes whose schemas are installed."""
    return str(kubernetes_validate.latest_version())


def check(manifests: Sequence[Manifest], version: str | None = None) -> list[Problem]:
    """What a Kubernetes of this version (empty: the newest known) would refuse.

    Raises:
        ConfigError: the schemas of that version are not known.
    """
    try:
        return [problem for manifest in manifests for problem in _check(manifest, version or newest())]
    except (VersionNotSupportedError, InvalidVersion):
        raise ConfigError(f"Kubernetes {version}: its schemas are not known; the newest known are those of {newest()}") from None


def _check(manifest: Manifest, version: str) -> Iterator[Problem]:
    try:
        if refused := _refused(json.dumps(manifest, sort_keys=True, default=str), version):
            yield Problem("kind", f"{title(manifest)} {refused[0]}", refused[1], "see the field's documentation")
    except kubernetes_validate.SchemaNotFoundError:
        if is_builtin(str(manifest.get("apiVersion"))):
            yield Problem("kind", title(manifest), f"{manifest.get('apiVersion')} has no such kind", "look at its spelling")
    for pod in pods_of(manifest):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, **pod.template}
        if pod.template and (refused := _refused(json.dumps(whole, sort_keys=True, default=str), version)):
            yield Problem("pod", f"{title(manifest)} {pod.path}.{refused[0]}", refused[1], "see the field's documentation")


@functools.cache  # jobs from one template have the same pods, and the schemas are read anew each time
def _refused(text: str, version: str) -> tuple[str, str] | None:
    """(where, why) an object as JSON would be refused."""
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return ".".join(str(part) for part in error.path), str(error.message)[:_LONGEST]
    return None


def is_builtin(api_version: str) -> bool:
    """Whether an API group is Kubernetes' own: v1, apps/v1, networking.k8s.io/v1, but not ray.io/v1 or kueue.x-k8s.io/v1beta1."""
    group = api_version.rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and not group.endswith(".x-k8s.io"))
