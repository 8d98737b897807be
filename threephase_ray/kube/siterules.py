"""Rules for all objects together: what the pods of Ray need beside them, in their namespace."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from threephase_ray.kube.objects import Fault, Manifest, Pod, cluster_of, dig, kinds, pods_of, selects, title

PART = {"app.kubernetes.io/part-of": "threephase-ray"}
VERSION = "app.kubernetes.io/version"
_OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}


@dataclass(frozen=True)
class Site:
    """All objects that belong together, and the versions that they should have; a version that is None is not looked at."""

    objects: Sequence[Manifest]
    ray: str | None = None
    version: str | None = None

    def pods(self, *roles: str) -> list[Pod]:
        """The pods of these roles."""
        return [pod for manifest in self.objects for pod in pods_of(manifest) if pod.role in roles]


def pinned_ray(site: Site) -> Iterator[Fault]:
    """Jobs are tested with one version of Ray."""
    for manifest in site.objects:
        cluster = cluster_of(manifest)
        if cluster and site.ray and cluster.spec.get("rayVersion") != site.ray:
            where = f"{title(manifest)} {cluster.path}.rayVersion"
            yield where, f"is {cluster.spec.get('rayVersion')}", f"{site.ray}, the version in constraints.txt"


def same_version(site: Site) -> Iterator[Fault]:
    """Objects and pods say which release they belong to."""
    labelled = [(title(manifest), dig(manifest, "metadata", "labels") or {}) for manifest in site.objects]
    labelled += [(f"{title(pod.owner)} {pod.path}", pod.labels) for pod in site.pods("head", "worker", "submitter") if pod.template]
    for where, labels in labelled:
        if site.version and labels.get(VERSION) != site.version:
            yield f"{where} labels", f"{VERSION} is {labels.get(VERSION)}", f"{site.version}, by cluster/components/release"


def part_of(site: Site) -> Iterator[Fault]:
    """Network policies, budgets and monitors find pods by their labels."""
    for pod in site.pods("head", "worker", "submitter"):
        wanted = PART | {"app.kubernetes.io/component": pod.role}
        if pod.template and (missing := {key for key, value in wanted.items() if pod.labels.get(key) != value}):
            where = f"{title(pod.owner)} {pod.path}.metadata.labels"
            yield where, f"{min(missing)} is not {wanted[min(missing)]}", "network policies and budgets look for it"


def head_budget(site: Site) -> Iterator[Fault]:
    """The operator makes no disruption budget: a node's drain would end the job. Clusters of Ray have no scale for `maxUnavailable`."""
    budgets = kinds(site.objects, "PodDisruptionBudget")
    for pod in site.pods("head"):
        mine = [dig(budget, "spec") for budget in budgets if selects(dig(budget, "spec", "selector"), pod.labels)]
        if not any(isinstance(spec.get("minAvailable"), int) for spec in mine):
            yield f"{title(pod.owner)} {pod.path}", "no PodDisruptionBudget with a number as minAvailable holds the head", "add one"


def default_deny(site: Site) -> Iterator[Fault]:
    """What no policy speaks of would be allowed."""
    denies = [
        policy
        for policy in kinds(site.objects, "NetworkPolicy")
        if dig(policy, "spec", "podSelector") == {} and set(dig(policy, "spec", "policyTypes") or []) == {"Ingress", "Egress"}
        if not dig(policy, "spec", "ingress") and not dig(policy, "spec", "egress")
    ]
    if site.pods("head") and not denies:
        yield "NetworkPolicy", "none denies all that is not allowed", "podSelector: {}, policyTypes: [Ingress, Egress]"


def dashboard_reachable(site: Site) -> Iterator[Fault]:
    """The operator and the submitter start the job by the dashboard's port."""
    for pod in site.pods("head"):
        for who, labels in (("the operator", _OPERATOR), ("the submitter", PART | {"app.kubernetes.io/component": "submitter"})):
            if not any(_admits(policy, pod, labels, 8265) for policy in kinds(site.objects, "NetworkPolicy")):
                yield f"{title(pod.owner)} {pod.path}", f"no NetworkPolicy lets {who} in on port 8265", "the job would never start"


def dns_reachable(site: Site) -> Iterator[Fault]:
    """Workers find the head by its name."""
    for pod in site.pods("head", "worker", "submitter"):
        policies = [policy for policy in kinds(site.objects, "NetworkPolicy") if selects(dig(policy, "spec", "podSelector"), pod.labels)]
        ports = [port for policy in policies for rule in dig(policy, "spec", "egress") or [] for port in rule.get("ports") or []]
        if not {"UDP", "TCP"} <= {port.get("protocol") for port in ports if port.get("port") == 53}:
            yield f"{title(pod.owner)} {pod.path}", "no NetworkPolicy lets it ask DNS", "egress to port 53, UDP and TCP"


def _admits(policy: Manifest, pod: Pod, labels: dict[str, str], port: int) -> bool:
    """Whether a policy lets pods with these labels in, by this port."""
    if not selects(dig(policy, "spec", "podSelector"), pod.labels):
        return False
    rules = [rule for rule in dig(policy, "spec", "ingress") or [] if any(p.get("port") == port for p in rule.get("ports") or [])]
    return any(selects(peer.get("podSelector"), labels) for rule in rules for peer in rule.get("from") or [])


def claims(site: Site) -> Iterator[Fault]:
    """A pod waits for ever for a claim that nobody made; jobs may also come without what they share, and then nothing is known."""
    known = {dig(claim, "metadata", "name") for claim in kinds(site.objects, "PersistentVolumeClaim")}
    for pod in site.pods("head", "worker"):
        for volume in pod.spec.get("volumes") or []:
            name = dig(volume, "persistentVolumeClaim", "claimName")
            if name and kinds(site.objects, "Namespace") and name not in known:
                yield f"{title(pod.owner)} {pod.path}.spec.volumes", f"there is no PersistentVolumeClaim {name}", "add it"


def same_store(site: Site) -> Iterator[Fault]:
    """All of a cluster's pods see the same folder, or all a bucket."""
    for manifest in site.objects:
        stores = {_store(pod) for pod in pods_of(manifest) if pod.role in ("head", "worker")}
        if len(stores) > 1:
            yield title(manifest), "head and workers mount different claims, or at different places", "the same for all"


def _store(pod: Pod) -> frozenset[tuple[str, str]]:
    """(claim, place) of all that the pod's Ray container mounts from claims."""
    claim = {volume["name"]: dig(volume, "persistentVolumeClaim", "claimName") for volume in pod.spec.get("volumes") or []}
    mounts = pod.main.get("volumeMounts") or []
    return frozenset((claim[m["name"]], m["mountPath"]) for m in mounts if claim.get(m["name"]))


def monitored(site: Site) -> Iterator[Fault]:
    """A monitor that selects nothing says nothing, and nobody notices."""
    for monitor in kinds(site.objects, "PodMonitor"):
        for endpoint in dig(monitor, "spec", "podMetricsEndpoints") or []:
            for pod in site.pods("head", "worker"):
                ports = [port.get("name") for port in pod.main.get("ports") or []]
                if not selects(dig(monitor, "spec", "selector"), pod.labels) or endpoint.get("port") not in ports:
                    yield title(monitor), f"does not reach {title(pod.owner)} {pod.path}", "compare labels and the port's name"


def no_secrets(site: Site) -> Iterator[Fault]:
    """What stands in a file stays in the repository's history."""
    for secret in kinds(site.objects, "Secret"):
        yield title(secret), "a Secret in a file", "kubectl create secret, see cluster/README.md"


def restricted_namespace(site: Site) -> Iterator[Fault]:
    """The namespace refuses pods that could reach the node."""
    for namespace in kinds(site.objects, "Namespace"):
        if (dig(namespace, "metadata", "labels") or {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield title(namespace), "does not enforce Pod Security", "pod-security.kubernetes.io/enforce: restricted"


SITE_RULES: dict[str, Callable[[Site], Iterator[Fault]]] = {
    "pinned-ray": pinned_ray,
    "same-version": same_version,
    "part-of": part_of,
    "head-budget": head_budget,
    "default-deny": default_deny,
    "dashboard-reachable": dashboard_reachable,
    "dns-reachable": dns_reachable,
    "claims": claims,
    "same-store": same_store,
    "monitored": monitored,
    "no-secrets": no_secrets,
    "restricted-namespace": restricted_namespace,
}
