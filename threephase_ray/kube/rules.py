"""All rules of the operator and of this project, over rendered manifests.

The API server takes manifests that the operator then refuses, or that run and cost: these rules look before.
"""

from collections.abc import Iterable, Iterator, Sequence

from threephase_ray.kube.clusterrules import CLUSTER_RULES
from threephase_ray.kube.jobrules import JOB_RULES
from threephase_ray.kube.objects import Fault, Manifest, Problem, cluster_of, kinds, pods_of, title
from threephase_ray.kube.podrules import POD_RULES, one_image
from threephase_ray.kube.siterules import SITE_RULES, Site

_OF_BOTH = ("kueue-no-autoscaling", "kueue-groups")  # rules of jobs that hold for shared clusters, too
NAMES = (*JOB_RULES, *CLUSTER_RULES, *POD_RULES, "one-image", *SITE_RULES)


def check(manifests: Sequence[Manifest], ray: str | None = None, version: str | None = None) -> list[Problem]:
    """What breaks a rule. `ray`, `version`: those of Ray and of this project that the manifests should name."""
    site = Site(manifests, ray, version)
    of_one = [problem for manifest in manifests for problem in check_object(manifest)]
    of_all = [Problem(name, *fault) for name, rule in SITE_RULES.items() for fault in rule(site)]
    return of_one + of_all


def check_object(manifest: Manifest) -> Iterator[Problem]:
    """What breaks a rule that looks at one object alone, for a RayJob that is not rendered with all the rest."""
    if manifest.get("kind") == "RayJob":
        for name, job_rule in JOB_RULES.items():
            yield from _problems(name, manifest, job_rule(manifest))
    for name in _OF_BOTH if kinds([manifest], "RayCluster") else ():
        yield from _problems(name, manifest, JOB_RULES[name](manifest))
    if cluster := cluster_of(manifest):
        for name, cluster_rule in CLUSTER_RULES.items():
            yield from _problems(name, manifest, cluster_rule(cluster))
    pods = [pod for pod in pods_of(manifest) if pod.template]
    for name, pod_rule in POD_RULES.items():
        yield from _problems(name, manifest, (fault for pod in pods for fault in pod_rule(pod)))
    yield from _problems("one-image", manifest, one_image(pods))


def _problems(name: str, manifest: Manifest, faults: Iterable[Fault]) -> Iterator[Problem]:
    """The faults of one rule, with the object's name before each place."""
    for where, what, remedy in faults:
        yield Problem(name, f"{title(manifest)} {where}", what, remedy)
