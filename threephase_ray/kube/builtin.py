"""Kubernetes' own kinds against their schemas, unknown fields included; pod templates inside of custom resources, too."""

from collections.abc import Iterator, Sequence

import kubernetes_validate

from threephase_ray.kube.objects import Manifest, Problem, pods_of, title

_LONGEST = 200  # characters of a message


def newest() -> str:
    """The newest Kubernetes whose schemas are installed."""
    return str(kubernetes_validate.latest_version())


def check(manifests: Sequence[Manifest], version: str | None = None) -> list[Problem]:
    """What a Kubernetes of this version (empty: the newest known) would refuse."""
    return [problem for manifest in manifests for problem in _check(manifest, version or newest())]


def _check(manifest: Manifest, version: str) -> Iterator[Problem]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        if is_builtin(str(manifest.get("apiVersion"))):
            yield Problem("kind", title(manifest), f"{manifest.get('apiVersion')} has no such kind", "look at its spelling")
    except kubernetes_validate.ValidationError as error:
        yield Problem("kind", f"{title(manifest)} {_place(error)}", _message(error), "see the field's documentation")
    for pod in pods_of(manifest):
        if pod.template:
            yield from _check_pod(manifest, pod.path, pod.template, version)


def _check_pod(manifest: Manifest, path: str, template: Manifest, version: str) -> Iterator[Problem]:
    """A pod template as the pod that it will be."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"} | (template.get("metadata") or {}), "spec": template.get("spec")}
    try:
        kubernetes_validate.validate(pod, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield Problem("pod", f"{title(manifest)} {path}.{_place(error)}", _message(error), "see the field's documentation")


def is_builtin(api_version: str) -> bool:
    """Whether an API group is Kubernetes' own: v1, apps/v1, networking.k8s.io/v1, but not ray.io/v1 or kueue.x-k8s.io/v1beta1."""
    group = api_version.rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and not group.endswith(".x-k8s.io"))


def _place(error: kubernetes_validate.ValidationError) -> str:
    return ".".join(str(part) for part in error.path)


def _message(error: kubernetes_validate.ValidationError) -> str:
    text = str(error.message)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
