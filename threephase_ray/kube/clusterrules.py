"""Rules for Ray clusters, of a RayCluster or a RayJob: versions, authentication, autoscaling, the head."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from threephase_ray.kube.objects import Cluster, Fault, dig
from threephase_ray.kube.podrules import differing

_FIRST_WITH_TOKENS = (2, 52)
_UNLIMITED = 2**31 - 1  # the definition's default
_V2 = "RAY_enable_autoscaler_v2"
_SPOT = {"karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "SPOT", "cloud.google.com/gke-spot": "true"}


def token_auth(cluster: Cluster) -> Iterator[Fault]:
    """Without a token, whoever reaches the dashboard runs what he likes."""
    mode, secret = dig(cluster.spec, "authOptions", "mode"), dig(cluster.spec, "authOptions", "secretName")
    if mode != "token":
        yield f"{cluster.path}.authOptions", "token authentication is off", "{mode: token, secretName: threephase-ray-token}"
    elif not secret:
        yield f"{cluster.path}.authOptions.secretName", "is not set: each cluster would have a token of its own", "name your Secret"


def auth_needs_version(cluster: Cluster) -> Iterator[Fault]:
    """The operator refuses tokens unless it knows that Ray is new enough."""
    version = re.match(r"(\d+)\.(\d+)", str(cluster.spec.get("rayVersion") or ""))
    if dig(cluster.spec, "authOptions", "mode") != "token":
        return
    if not version or (int(version[1]), int(version[2])) < _FIRST_WITH_TOKENS:
        yield f"{cluster.path}.rayVersion", f"{cluster.spec.get('rayVersion')} is not known to have tokens", "2.52.0 or later"


def head_works_not(cluster: Cluster) -> Iterator[Fault]:
    """A worker on the head would starve what keeps the cluster together."""
    cpus = dig(cluster.spec, "headGroupSpec", "rayStartParams", "num-cpus")
    if cpus != "0":
        yield f"{cluster.path}.headGroupSpec.rayStartParams", f"num-cpus is {cpus}, so work may go to the head", 'num-cpus: "0"'


def start_parameters_are_text(cluster: Cluster) -> Iterator[Fault]:
    """They become words of a command; a number or truth value is refused."""
    for path, group in cluster.nodes():
        if odd := [name for name, value in (group.get("rayStartParams") or {}).items() if not isinstance(value, str)]:
            yield f"{path}.rayStartParams", f"{odd[0]} is not text", "put its value into quotes"


def one_source_of_resources(cluster: Cluster) -> Iterator[Fault]:
    """The operator refuses resources in two places."""
    for path, group in cluster.nodes():
        given = {"num-cpus", "num-gpus", "memory", "resources"} & set(group.get("rayStartParams") or {})
        if given and group.get("resources"):
            yield f"{path}.resources", f"stands beside {min(given)} in rayStartParams", "keep one of them"


def autoscaler_version(cluster: Cluster) -> Iterator[Fault]:
    """Version 2 tells why it cannot scale, and works with draining."""
    version = dig(cluster.spec, "autoscalerOptions", "version")
    head = dig(cluster.spec, "headGroupSpec", "template", "spec", "containers", 0)
    variables = [variable.get("name") for variable in dig(head, "env") or []]
    if cluster.autoscaled and version != "v2":
        yield f"{cluster.path}.autoscalerOptions.version", f"is {version}", "v2"
    if _V2 in variables:
        yield f"{cluster.path}.headGroupSpec", f"{_V2} is set, which the operator refuses", "autoscalerOptions.version alone"


def restart_policy(cluster: Cluster) -> Iterator[Fault]:
    """Version 2 replaces pods, and does not restart containers."""
    for path, group in cluster.nodes():
        policy = dig(group, "template", "spec", "restartPolicy")
        if cluster.autoscaled and policy not in (None, "Never"):
            yield f"{path}.template.spec.restartPolicy", f"is {policy}, which the autoscaler's version 2 excludes", "leave it out"


def autoscaler_resources(cluster: Cluster) -> Iterator[Fault]:
    """The autoscaler's container belongs to the head: evicted or killed for memory, it takes the head with it."""
    if cluster.autoscaled:
        yield from differing(f"{cluster.path}.autoscalerOptions.resources", dig(cluster.spec, "autoscalerOptions", "resources") or {})


def autoscaler_token(cluster: Cluster) -> Iterator[Fault]:
    """The autoscaler, and it alone, talks to the Kubernetes API."""
    pod = dig(cluster.spec, "headGroupSpec", "template", "spec") or {}
    mounted = {mount.get("name") for mount in dig(cluster.spec, "autoscalerOptions", "volumeMounts") or []}
    tokens = {
        volume.get("name")
        for volume in pod.get("volumes") or []
        if any("serviceAccountToken" in source for source in dig(volume, "projected", "sources") or [])
    }
    if cluster.autoscaled and pod.get("automountServiceAccountToken") is False and not tokens & mounted:
        yield f"{cluster.path}.autoscalerOptions.volumeMounts", "the autoscaler has no token of the API", "mount a projected one"
    job = {mount.get("name") for mount in dig(pod, "containers", 0, "volumeMounts") or []}
    if tokens & job:
        yield f"{cluster.path}.headGroupSpec", "the job's container has the token of the API", "mount it in the autoscaler only"


def replicas(cluster: Cluster) -> Iterator[Fault]:
    """Least, wanted and most, in this order."""
    for path, group in list(cluster.nodes())[1:]:
        least, wanted, most = group.get("minReplicas", 0), group.get("replicas", 0), group.get("maxReplicas", _UNLIMITED)
        if not 0 <= least <= wanted <= most:
            yield path, f"minReplicas {least}, replicas {wanted}, maxReplicas {most}", "not less than the one before"


def group_names(cluster: Cluster) -> Iterator[Fault]:
    """The autoscaler knows groups by their names."""
    for name, count in Counter(str(group.get("groupName")) for group in cluster.groups).items():
        if count > 1:
            yield f"{cluster.path}.workerGroupSpecs", f"{count} groups are named {name}", "a name for each"


def from_zero(cluster: Cluster) -> Iterator[Fault]:
    """A shared cluster stays: GPUs that nobody asked for are paid for day and night."""
    for path, group in list(cluster.nodes())[1:]:
        limits = dig(group, "template", "spec", "containers", 0, "resources", "limits") or {}
        idle = cluster.owner.get("kind") == "RayCluster" and cluster.autoscaled and group.get("minReplicas", 0) > 0
        if idle and any(name.endswith("/gpu") for name in limits):
            yield f"{path}.minReplicas", f"is {group['minReplicas']}: GPUs without work", "0"


def no_gated_feature(cluster: Cluster) -> Iterator[Fault]:
    """Off by default in the operator, which then refuses or ignores them."""
    gated = [name for name in ("networkPolicy", "tlsOptions", "historyServerOptions") if cluster.spec.get(name)]
    if dig(cluster.spec, "gcsFaultToleranceOptions", "backend") == "rocksdb":
        gated.append("gcsFaultToleranceOptions.backend")
    for name in gated:
        yield f"{cluster.path}.{name}", "needs a feature gate of the operator", "remove it; network policies are objects of their own"


def private_dashboard(cluster: Cluster) -> Iterator[Fault]:
    """The dashboard runs code for whoever has the token, which travels in clear."""
    head, path = cluster.spec.get("headGroupSpec") or {}, f"{cluster.path}.headGroupSpec"
    if head.get("serviceType") not in (None, "ClusterIP"):
        yield f"{path}.serviceType", f"{head['serviceType']} opens the dashboard", "ClusterIP, and kubectl port-forward"
    if head.get("enableIngress"):
        yield f"{path}.enableIngress", "opens the dashboard", "false, and kubectl port-forward"


def head_on_demand(cluster: Cluster) -> Iterator[Fault]:
    """A spot worker costs some steps when it goes, a spot head the attempt."""
    chosen = [dig(group, "template", "spec", "nodeSelector") or {} for _, group in cluster.nodes()]
    spots = [any(selector.get(key) == value for key, value in _SPOT.items()) for selector in chosen]
    if spots[0]:
        yield f"{cluster.path}.headGroupSpec", "is on spot nodes", "on demand"
    elif any(spots[1:]) and not set(chosen[0]) & set(_SPOT):
        yield f"{cluster.path}.headGroupSpec", "may land on the workers' spot nodes", "a nodeSelector for nodes on demand"


CLUSTER_RULES: dict[str, Callable[[Cluster], Iterator[Fault]]] = {
    "token-auth": token_auth,
    "auth-needs-version": auth_needs_version,
    "head-works-not": head_works_not,
    "start-parameters": start_parameters_are_text,
    "one-source-of-resources": one_source_of_resources,
    "autoscaler-version": autoscaler_version,
    "restart-policy": restart_policy,
    "autoscaler-resources": autoscaler_resources,
    "autoscaler-token": autoscaler_token,
    "replicas": replicas,
    "group-names": group_names,
    "from-zero": from_zero,
    "no-gated-feature": no_gated_feature,
    "private-dashboard": private_dashboard,
    "head-on-demand": head_on_demand,
}
