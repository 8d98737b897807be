"""Rules for the pods of Ray clusters: images, resources, shared memory, time to go, tokens."""

import itertools
import re
from collections.abc import Callable, Iterator

from threephase_ray.kube.objects import Fault, Manifest, Pod, cluster_of, dig, quantity

_LEAST_HEAD = 8 * 2.0**30
_SHM_SHARE = 0.5  # of a container's memory, the most that /dev/shm may take of it
_SECRET = re.compile(r"(^|_)(TOKEN|PASSWORD|SECRET|ACCESS_KEY)($|_KEY$|_ID$)", re.IGNORECASE)


def image_pinned(pod: Pod) -> Iterator[Fault]:
    """An image that changes under its name changes results, and workers that start later."""
    for path, container in pod.containers():
        tag = _tag(container)
        if "@sha256:" not in str(container.get("image")) and tag in ("", "latest"):
            yield f"{path}.image", f"{container.get('image')} may be another image tomorrow", "name a version, or a digest"


def image_version(pod: Pod) -> Iterator[Fault]:
    """Ray refuses to work with another version of itself; the image's tag tells which is in it."""
    cluster = cluster_of(pod.owner)
    version = str(cluster.spec.get("rayVersion")) if cluster else ""
    tag = _tag(pod.main)
    if cluster and tag not in ("", "latest") and not re.search(rf"(^|[^0-9.]){re.escape(version)}($|[^0-9.])", tag):
        yield f"{pod.path}.spec.containers[0].image", f"its tag {tag} does not name rayVersion {version}", f"an image of Ray {version}"


def head_without_gpu(pod: Pod) -> Iterator[Fault]:
    """A GPU of the head is paid for, and never used."""
    limits = dig(pod.main, "resources", "limits") or {}
    if pod.role == "head" and (gpus := [name for name in limits if name.endswith("/gpu")]):
        yield f"{pod.path}.spec.containers[0].resources", f"the head asks for {gpus[0]}", "GPUs belong to workers"


def head_memory(pod: Pod) -> Iterator[Fault]:
    """The head keeps the cluster's state and the job's own process: killed for memory, it takes all with it."""
    memory = dig(pod.main, "resources", "limits", "memory")
    if pod.role == "head" and not quantity(memory) >= _LEAST_HEAD:
        yield f"{pod.path}.spec.containers[0].resources.limits.memory", f"{memory} is too little for a head", "8Gi or more"


def requests_are_limits(pod: Pod) -> Iterator[Fault]:
    """Ray counts limits, Kubernetes requests: where they differ, pods are evicted, or killed for memory."""
    for path, container in pod.containers():
        yield from differing(f"{path}.resources", container.get("resources") or {})


def differing(where: str, resources: Manifest) -> Iterator[Fault]:
    """What differs between requests and limits, or is in neither."""
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in sorted({"cpu", "memory"} | set(requests) | set(limits)):
        if quantity(requests.get(name)) != quantity(limits.get(name)):  # also where one is missing
            yield where, f"{name}: requests {requests.get(name)}, limits {limits.get(name)}", "the same in both"


def shared_memory(pod: Pod) -> Iterator[Fault]:
    """/dev/shm counts against the container's memory; without a size it may take all of it."""
    if pod.role not in ("head", "worker"):
        return
    volume = _mounted(pod, "/dev/shm")
    size, memory = dig(volume, "emptyDir", "sizeLimit"), dig(pod.main, "resources", "limits", "memory")
    if dig(volume, "emptyDir", "medium") != "Memory":
        yield f"{pod.path}.spec.volumes", "/dev/shm is no emptyDir of medium Memory", "mount one, with a sizeLimit"
    elif not quantity(size) <= _SHM_SHARE * quantity(memory):
        yield f"{pod.path}.spec.volumes", f"/dev/shm may take {size} of {memory}", "a sizeLimit of half the memory at most"


def drain_before_kill(pod: Pod) -> Iterator[Fault]:
    """The hook before the stop counts against the grace period, after which all is killed."""
    if pod.role not in ("head", "worker"):
        return
    command = dig(pod.main, "lifecycle", "preStop", "exec", "command") or []
    seconds = next((float(after) for word, after in itertools.pairwise(command) if word == "--seconds"), None)
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if seconds is None:
        yield f"{pod.path}.spec.containers[0].lifecycle", "no time to save before the stop", "threephase_ray.kube.drain --seconds 90"
    elif not seconds < grace:
        yield f"{pod.path}.spec.terminationGracePeriodSeconds", f"{grace} s end before the {seconds:g} s of preStop", "120"


def no_api_token(pod: Pod) -> Iterator[Fault]:
    """Code of a job has no business with the Kubernetes API."""
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield f"{pod.path}.spec", f"each container of the {pod.role} gets a token of the API", "automountServiceAccountToken: false"


def no_plain_secrets(pod: Pod) -> Iterator[Fault]:
    """What stands in a manifest is read by all who may read manifests."""
    for path, container in pod.containers():
        for variable in container.get("env") or []:
            if _SECRET.search(str(variable.get("name"))) and variable.get("value"):
                yield f"{path}.env", f"{variable['name']} is written out", "valueFrom: {secretKeyRef: ...}"


def one_image(pods: list[Pod]) -> Iterator[Fault]:
    """Head, workers and submitter of a job are of the same build."""
    images = {str(pod.main.get("image")): pod for pod in pods if pod.main}
    if len(images) > 1:
        yield "spec", f"different images: {', '.join(sorted(images))}", "the same for head, workers and submitter"


def _tag(container: Manifest) -> str:
    """An image's tag, empty where it has none."""
    name = str(container.get("image")).partition("@")[0].rpartition("/")[2]
    return name.partition(":")[2]


def _mounted(pod: Pod, path: str) -> Manifest:
    """The volume that Ray's container has at a path."""
    names = [mount.get("name") for mount in pod.main.get("volumeMounts") or [] if mount.get("mountPath") == path]
    return next((volume for volume in pod.spec.get("volumes") or [] if volume.get("name") in names), {})


POD_RULES: dict[str, Callable[[Pod], Iterator[Fault]]] = {
    "image-pinned": image_pinned,
    "image-version": image_version,
    "head-without-gpu": head_without_gpu,
    "head-memory": head_memory,
    "requests-are-limits": requests_are_limits,
    "shared-memory": shared_memory,
    "drain-before-kill": drain_before_kill,
    "no-api-token": no_api_token,
    "no-plain-secrets": no_plain_secrets,
}
