"""Rules for RayJobs: what the operator refuses or ignores although the API server takes it, and what this project wants of a job."""

import re
from collections.abc import Callable, Iterator

import yaml

from threephase_ray.kube.objects import Fault, Manifest, cluster_of, dig
from threephase_ray.kube.shell import surprises

QUEUE = "kueue.x-k8s.io/queue-name"
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # DNS-1035
_LONGEST_NAME = 47  # the operator appends to it, for services and pods
_MOST_RETRIES = 10
_MOST_GROUPS = 7  # Kueue counts eight sets of pods, one is the head's


def job_name(job: Manifest) -> Iterator[Fault]:
    """The operator makes names of services and pods from the job's."""
    name = str(dig(job, "metadata", "name") or "")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        yield "metadata.name", f"{name!r} has {len(name)} characters", f"a-z, 0-9 and dashes, a letter first, at most {_LONGEST_NAME}"


def entrypoint(job: Manifest) -> Iterator[Fault]:
    """The operator pastes the entrypoint into `bash -c`."""
    command = str(dig(job, "spec", "entrypoint") or "").strip()
    if not command:
        yield "spec.entrypoint", "is empty", "give the job's command"
    for surprise in surprises(command):
        yield "spec.entrypoint", f"a shell reads it, and {surprise}", "put such words into single quotes"


def runtime_env(job: Manifest) -> Iterator[Fault]:
    """The operator gives up on a job whose environment is no YAML."""
    text = dig(job, "spec", "runtimeEnvYAML") or "{}"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        yield "spec.runtimeEnvYAML", "is not a YAML mapping", "write it as `env_vars: {NAME: value}`"
        return
    if odd := [name for name, item in (value.get("env_vars") or {}).items() if not isinstance(item, str)]:
        yield "spec.runtimeEnvYAML", f"{odd[0]} is not text", "put its value into quotes"


def own_cluster(job: Manifest) -> Iterator[Fault]:
    """A job needs a cluster; a shared one has no clean-up and no retries of its own."""
    if not cluster_of(job) and not dig(job, "spec", "clusterSelector"):
        yield "spec", "has neither rayClusterSpec nor clusterSelector", "give it rayClusterSpec"
    if cluster_of(job) and dig(job, "spec", "clusterSelector"):
        yield "spec.clusterSelector", "stands beside rayClusterSpec, which is then ignored", "keep one of them"


def ttl_needs_shutdown(job: Manifest) -> Iterator[Fault]:
    """The time to live counts only towards the deletion of the cluster."""
    ttl = dig(job, "spec", "ttlSecondsAfterFinished") or 0
    if ttl < 0:
        yield "spec.ttlSecondsAfterFinished", f"{ttl} is negative", "0 or more"
    if ttl > 0 and not dig(job, "spec", "shutdownAfterJobFinishes"):
        yield "spec.ttlSecondsAfterFinished", "needs shutdownAfterJobFinishes", "shutdownAfterJobFinishes: true"


def deletion_rules(job: Manifest) -> Iterator[Fault]:
    """Two ways to say when the cluster is deleted, of which the operator takes one."""
    if dig(job, "spec", "deletionStrategy", "deletionRules") and dig(job, "spec", "shutdownAfterJobFinishes"):
        yield "spec.deletionStrategy.deletionRules", "and shutdownAfterJobFinishes exclude each other", "keep one of them"


def clean_up(job: Manifest) -> Iterator[Fault]:
    """A cluster that outlives its job is paid for until somebody notices."""
    if dig(job, "spec", "clusterSelector"):
        return
    if not dig(job, "spec", "shutdownAfterJobFinishes") and not dig(job, "spec", "deletionStrategy"):
        yield "spec", "nothing deletes the cluster when the job is done", "shutdownAfterJobFinishes: true, ttlSecondsAfterFinished: 600"


def pre_running_deadline(job: Manifest) -> Iterator[Fault]:
    """Nothing else ends a job whose pods cannot start."""
    if not dig(job, "spec", "preRunningDeadlineSeconds"):
        yield "spec.preRunningDeadlineSeconds", "is not set: a job that cannot start waits for ever", "such as 1800"


def active_deadline(job: Manifest) -> Iterator[Fault]:
    """The most that a job may cost."""
    if (dig(job, "spec", "activeDeadlineSeconds") or 0) <= 0:
        yield "spec.activeDeadlineSeconds", "is not set: a job that hangs is paid for without end", "such as 86400"


def retries(job: Manifest) -> Iterator[Fault]:
    """Each retry is a new cluster; none means that a lost head ends the job."""
    limit = dig(job, "spec", "backoffLimit")
    if not isinstance(limit, int) or not 1 <= limit <= _MOST_RETRIES:
        yield "spec.backoffLimit", f"is {limit}: a lost head ends the job, or retries cost without end", f"1 to {_MOST_RETRIES}"


def submission_mode(job: Manifest) -> Iterator[Fault]:
    """A sidecar cannot be given a security context, HTTP shows no logs, and an interactive job waits for somebody."""
    mode = dig(job, "spec", "submissionMode") or "K8sJobMode"
    if mode != "K8sJobMode":
        yield "spec.submissionMode", f"{mode} cannot run under Pod Security `restricted` with retries and logs", "K8sJobMode"


def submitter(job: Manifest) -> Iterator[Fault]:
    """The submitter is a Kubernetes Job, which allows no restart policy `Always`, the default."""
    policy = dig(job, "spec", "submitterPodTemplate", "spec", "restartPolicy")
    if dig(job, "spec", "submitterPodTemplate") and policy not in ("Never", "OnFailure"):
        yield "spec.submitterPodTemplate.spec.restartPolicy", f"is {policy or 'Always by default'}, which a Job refuses", "Never"


def suspension(job: Manifest) -> Iterator[Fault]:
    """A job is suspended by deleting its cluster."""
    if dig(job, "spec", "suspend") and dig(job, "spec", "clusterSelector"):
        yield "spec.suspend", "is impossible with clusterSelector", "give the job a cluster of its own"
    if dig(job, "spec", "suspend") and not dig(job, "spec", "shutdownAfterJobFinishes"):
        yield "spec.suspend", "needs shutdownAfterJobFinishes", "shutdownAfterJobFinishes: true"


def kueue_shutdown(job: Manifest) -> Iterator[Fault]:
    """Quota is given back when the cluster is deleted."""
    if queued(job) and not dig(job, "spec", "shutdownAfterJobFinishes"):
        yield "spec.shutdownAfterJobFinishes", "is not true, and Kueue admits no such job", "true"


def kueue_own_cluster(job: Manifest) -> Iterator[Fault]:
    """Kueue counts the pods of the job's own cluster."""
    if queued(job) and dig(job, "spec", "clusterSelector"):
        yield "spec.clusterSelector", "is nothing that Kueue could count", "give the job a cluster of its own"


def kueue_no_autoscaling(manifest: Manifest) -> Iterator[Fault]:
    """Kueue admits all pods at once, or none."""
    cluster = cluster_of(manifest)
    if queued(manifest) and cluster and cluster.autoscaled:
        yield f"{cluster.path}.enableInTreeAutoscaling", "is true, and Kueue cannot count pods that come later", "false"


def kueue_groups(manifest: Manifest) -> Iterator[Fault]:
    """Kueue knows a limited number of sets of pods."""
    cluster = cluster_of(manifest)
    if queued(manifest) and cluster and len(cluster.groups) > _MOST_GROUPS:
        yield f"{cluster.path}.workerGroupSpecs", f"has {len(cluster.groups)} groups", f"at most {_MOST_GROUPS} under Kueue"


def queued(manifest: Manifest) -> bool:
    """Whether Kueue decides when it starts."""
    return bool((dig(manifest, "metadata", "labels") or {}).get(QUEUE))


JOB_RULES: dict[str, Callable[[Manifest], Iterator[Fault]]] = {
    "job-name": job_name,
    "entrypoint-quoting": entrypoint,
    "runtime-env": runtime_env,
    "own-cluster": own_cluster,
    "ttl-needs-shutdown": ttl_needs_shutdown,
    "deletion-rules": deletion_rules,
    "clean-up": clean_up,
    "pre-running-deadline": pre_running_deadline,
    "active-deadline": active_deadline,
    "finite-retries": retries,
    "submission-mode": submission_mode,
    "submitter-restart": submitter,
    "suspension": suspension,
    "kueue-shutdown": kueue_shutdown,
    "kueue-own-cluster": kueue_own_cluster,
    "kueue-no-autoscaling": kueue_no_autoscaling,
    "kueue-groups": kueue_groups,
}
