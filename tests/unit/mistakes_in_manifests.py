"""Planted mistakes: from a correct overlay, what is broken, and by which rule it must be found."""

from typing import Any

from tests.unit.manifests import GONE, Edit

JOB, SHARED = "RayJob/train", "RayCluster/threephase"
CLUSTER = "spec/rayClusterSpec"
HEAD, GROUP = f"{CLUSTER}/headGroupSpec", f"{CLUSTER}/workerGroupSpecs/0"
HEAD_POD, WORKER_POD, SUBMITTER_POD = f"{HEAD}/template/spec", f"{GROUP}/template/spec", "spec/submitterPodTemplate/spec"
RAY_HEAD, RAY_WORKER = f"{HEAD_POD}/containers/0", f"{WORKER_POD}/containers/0"
RULE = {"condition": {"jobStatus": "SUCCEEDED"}, "policy": "DeleteCluster"}


def job(path: str, value: Any) -> list[Edit]:
    """One field of the job `train` is wrong."""
    return [(JOB, path, value)]


def both(resource: str, value: str, container: str = RAY_HEAD) -> list[Edit]:
    """A container's request and limit."""
    return [(JOB, f"{container}/resources/{kind}/{resource}", value) for kind in ("requests", "limits")]


def images(name: str) -> list[Edit]:
    """The image of all of a job's pods."""
    return [(JOB, f"{container}/image", name) for container in (RAY_HEAD, RAY_WORKER, f"{SUBMITTER_POD}/containers/0")]


# rule: (what, overlay, edits); the rules of jobs, clusters and pods
RULES: dict[str, list[tuple[str, str, list[Edit]]]] = {
    "job-name": [
        ("too long", "gpu", job("metadata/name", "a" * 48)),
        ("a digit first", "gpu", job("metadata/name", "3phase")),
        ("capitals", "gpu", job("metadata/name", "Train")),
    ],
    "entrypoint-quoting": [
        ("a second command", "gpu", job("spec/entrypoint", "python a.py --config a.yaml; rm -r /store")),
        ("a variable", "gpu", job("spec/entrypoint", 'python a.py --name "$NAME"')),
        ("JSON", "gpu", job("spec/entrypoint", "python a.py --phases [dae]")),
        ("an open quote", "gpu", job("spec/entrypoint", "python a.py --name 'x")),
        ("empty", "gpu", job("spec/entrypoint", " ")),
    ],
    "runtime-env": [
        ("a list", "gpu", job("spec/runtimeEnvYAML", "[a, b]")),
        ("no YAML", "gpu", job("spec/runtimeEnvYAML", "env_vars: {a")),
        ("a number", "gpu", job("spec/runtimeEnvYAML", "env_vars: {RAY_JOB_STOP_WAIT_TIME_S: 90}")),
    ],
    "own-cluster": [
        ("two clusters", "gpu", job("spec/clusterSelector", {"ray.io/cluster": "threephase"})),
        ("no cluster", "gpu", job("spec/rayClusterSpec", GONE)),
    ],
    "ttl-needs-shutdown": [
        ("no shutdown", "gpu", [*job("spec/shutdownAfterJobFinishes", GONE), *job("spec/deletionStrategy", {"deletionRules": [RULE]})]),
        ("negative", "gpu", job("spec/ttlSecondsAfterFinished", -1)),
    ],
    "deletion-rules": [("with shutdown", "gpu", job("spec/deletionStrategy", {"deletionRules": [RULE]}))],
    "clean-up": [("none", "gpu", [*job("spec/shutdownAfterJobFinishes", False), *job("spec/ttlSecondsAfterFinished", GONE)])],
    "pre-running-deadline": [("none", "gpu", job("spec/preRunningDeadlineSeconds", GONE))],
    "active-deadline": [("none", "gpu", job("spec/activeDeadlineSeconds", GONE)), ("zero", "gpu", job("spec/activeDeadlineSeconds", 0))],
    "finite-retries": [("none", "gpu", job("spec/backoffLimit", GONE)), ("endless", "gpu", job("spec/backoffLimit", 2147483647))],
    "submission-mode": [("sidecar", "gpu", [*job("spec/submissionMode", "SidecarMode"), *job("spec/submitterPodTemplate", GONE)])],
    "submitter-restart": [
        ("always", "gpu", job(f"{SUBMITTER_POD}/restartPolicy", "Always")),
        ("by default", "gpu", job(f"{SUBMITTER_POD}/restartPolicy", GONE)),
    ],
    "suspension": [
        ("no shutdown", "gpu", [*job("spec/suspend", True), *job("spec/shutdownAfterJobFinishes", False),
                                *job("spec/ttlSecondsAfterFinished", 0), *job("spec/deletionStrategy", {"deletionRules": [RULE]})]),
    ],
    "kueue-shutdown": [
        ("none", "kueue", [*job("spec/shutdownAfterJobFinishes", GONE), *job("spec/ttlSecondsAfterFinished", 0), *job("spec/suspend", GONE),
                           *job("spec/deletionStrategy", {"deletionRules": [RULE]})]),
    ],
    "kueue-own-cluster": [
        ("another's", "kueue", [*job("spec/rayClusterSpec", GONE), *job("spec/clusterSelector", {"ray.io/cluster": "a"}),
                                *job("spec/suspend", GONE)]),
    ],
    "kueue-no-autoscaling": [
        ("a queue", "gpu", job("metadata/labels/kueue.x-k8s.io~queue-name", "threephase")),
        ("a queue for the shared cluster", "gpu", [(SHARED, "metadata/labels/kueue.x-k8s.io~queue-name", "threephase")]),
    ],
    "token-auth": [
        ("off", "gpu", job(f"{CLUSTER}/authOptions", GONE)),
        ("disabled", "gpu", job(f"{CLUSTER}/authOptions/mode", "disabled")),
        ("a token each", "gpu", job(f"{CLUSTER}/authOptions/secretName", GONE)),
    ],
    "head-works-not": [
        ("by default", "gpu", job(f"{HEAD}/rayStartParams", {})),
        ("four", "gpu", job(f"{HEAD}/rayStartParams/num-cpus", "4")),
    ],
    "one-source-of-resources": [("two", "gpu", job(f"{HEAD}/resources", {"CPU": "0"}))],
    "autoscaler-version": [
        ("old", "gpu", job(f"{CLUSTER}/autoscalerOptions/version", "v1")),
        ("by default", "gpu", job(f"{CLUSTER}/autoscalerOptions/version", GONE)),
        ("twice", "gpu", job(f"{RAY_HEAD}/env", [{"name": "RAY_enable_autoscaler_v2", "value": "1"}])),
    ],
    "restart-policy": [
        ("head", "gpu", job(f"{HEAD_POD}/restartPolicy", "Always")),
        ("worker", "gpu", job(f"{WORKER_POD}/restartPolicy", "OnFailure")),
    ],
    "autoscaler-resources": [
        ("none", "gpu", job(f"{CLUSTER}/autoscalerOptions/resources", GONE)),
        ("differ", "gpu", job(f"{CLUSTER}/autoscalerOptions/resources/requests/memory", "256Mi")),
    ],
    "autoscaler-token": [
        ("not mounted", "gpu", job(f"{CLUSTER}/autoscalerOptions/volumeMounts", GONE)),
        ("the job has it", "gpu", job(f"{RAY_HEAD}/volumeMounts/-", {"name": "kubernetes-api", "mountPath": "/api"})),
    ],
    "replicas": [
        ("least above most", "gpu", job(f"{GROUP}/maxReplicas", -1)),
        ("wanted above most", "gpu", job(f"{GROUP}/replicas", 9)),
    ],
    "from-zero": [("idle GPUs", "gpu", [(SHARED, f"spec/workerGroupSpecs/0/{name}", 2) for name in ("minReplicas", "replicas")])],
    "no-gated-feature": [
        ("network policy", "gpu", job(f"{CLUSTER}/networkPolicy", {"mode": "DenyAll"})),
        ("TLS", "gpu", job(f"{CLUSTER}/tlsOptions", {"enabled": True})),
        ("RocksDB", "gpu", job(f"{CLUSTER}/gcsFaultToleranceOptions", {"backend": "rocksdb"})),
    ],
    "private-dashboard": [
        ("a load balancer", "gpu", job(f"{HEAD}/serviceType", "LoadBalancer")),
        ("an ingress", "gpu", job(f"{HEAD}/enableIngress", True)),
    ],
    "head-on-demand": [
        ("on spot", "spot", job(f"{HEAD_POD}/nodeSelector/karpenter.sh~capacity-type", "spot")),
        ("anywhere", "spot", job(f"{HEAD_POD}/nodeSelector", GONE)),
    ],
    "image-pinned": [("latest", "gpu", images("threephase-ray:latest")), ("no tag", "gpu", images("registry:5000/threephase-ray"))],
    "image-version": [
        ("another Ray", "gpu", images("threephase-ray:0.1.0-ray2.59.0")),
        ("a longer number", "gpu", images("threephase-ray:0.1.0-ray2.60.01")),
    ],
    "one-image": [("worker", "gpu", job(f"{RAY_WORKER}/image", "threephase-ray:0.1.1-ray2.60.0"))],
    "head-without-gpu": [("one", "gpu", both("nvidia.com~gpu", "1"))],
    "head-memory": [("little", "gpu", [*both("memory", "8191Mi"), *job(f"{HEAD_POD}/volumes/1/emptyDir/sizeLimit", "2Gi")])],
    "requests-are-limits": [
        ("memory", "gpu", job(f"{RAY_WORKER}/resources/requests/memory", "32Gi")),
        ("no limit", "gpu", job(f"{SUBMITTER_POD}/containers/0/resources/limits/cpu", GONE)),
        ("no resources", "gpu", job(f"{SUBMITTER_POD}/containers/0/resources", GONE)),
    ],
    "shared-memory": [
        ("without size", "gpu", job(f"{WORKER_POD}/volumes/1/emptyDir/sizeLimit", GONE)),
        ("too large", "gpu", job(f"{WORKER_POD}/volumes/1/emptyDir/sizeLimit", "48Gi")),
        ("on disk", "gpu", job(f"{HEAD_POD}/volumes/1/emptyDir/medium", GONE)),
        ("not mounted", "gpu", job(f"{RAY_WORKER}/volumeMounts/1", GONE)),
    ],
    "drain-before-kill": [
        ("short grace", "gpu", job(f"{WORKER_POD}/terminationGracePeriodSeconds", 60)),
        ("grace by default", "gpu", job(f"{HEAD_POD}/terminationGracePeriodSeconds", GONE)),
        ("no hook", "gpu", job(f"{RAY_HEAD}/lifecycle", GONE)),
    ],
    "no-api-token": [
        ("by default", "gpu", job(f"{WORKER_POD}/automountServiceAccountToken", GONE)),
        ("submitter", "gpu", job(f"{SUBMITTER_POD}/automountServiceAccountToken", True)),
    ],
    "no-plain-secrets": [("a key", "s3", job(f"{RAY_WORKER}/env/-", {"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}))],
    "kueue-groups": [],  # eight groups, see below
    "group-names": [],
    "auth-needs-version": [],
    "start-parameters": [],
}  # fmt: skip

# Mistakes that more than one rule or layer finds: (what, overlay, edits, all that find it)
BY_SEVERAL: list[tuple[str, str, list[Edit], set[str]]] = [
    ("no version", "gpu", job(f"{CLUSTER}/rayVersion", GONE), {"auth-needs-version", "pinned-ray", "image-version"}),
    ("an old Ray", "gpu", [*job(f"{CLUSTER}/rayVersion", "2.51.1"), *images("threephase-ray:0.1.0-ray2.51.1")],
     {"auth-needs-version", "pinned-ray"}),
    ("a number as parameter", "gpu", job(f"{HEAD}/rayStartParams/num-gpus", 0), {"start-parameters", "schema"}),
]  # fmt: skip

# Changes that are no mistakes, close to those that are: (what, overlay, edits)
HARMLESS: list[tuple[str, str, list[Edit]]] = [
    ("the longest name", "gpu", job("metadata/name", "a" * 47)),
    ("quoted words", "gpu", job("spec/entrypoint", "python a.py --phases '[dae]' --name 'a; b' --note \"it's\"")),
    ("Ray's own image", "gpu", images("rayproject/ray:2.60.0-py312-gpu")),
    ("a digest alone", "gpu", images("registry:5000/team/threephase-ray@sha256:" + "0" * 64)),
    ("a tag and a digest", "gpu", images("registry:5000/threephase-ray:2.60.0@sha256:" + "0" * 64)),
    ("no time to live", "gpu", job("spec/ttlSecondsAfterFinished", 0)),
    ("rules of deletion", "gpu", [*job("spec/deletionStrategy", {"deletionRules": [RULE]}), *job("spec/shutdownAfterJobFinishes", False),
                                  *job("spec/ttlSecondsAfterFinished", GONE)]),
    ("suspended", "gpu", job("spec/suspend", True)),
    ("a submitter that is tried again", "gpu", job(f"{SUBMITTER_POD}/restartPolicy", "OnFailure")),
    ("no environment", "gpu", job("spec/runtimeEnvYAML", GONE)),
    ("a variable that sounds like a secret", "gpu", job(f"{RAY_HEAD}/env", [{"name": "TOKENIZERS_PARALLELISM", "value": "false"}])),
    ("a secret from a Secret", "gpu", job(f"{RAY_HEAD}/env", [
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}])),
    ("8 GiB in other words", "gpu", [*both("memory", "8192Mi"), *job(f"{HEAD_POD}/volumes/1/emptyDir/sizeLimit", "4096Mi")]),
    ("half a core in other words", "gpu", job(f"{SUBMITTER_POD}/containers/0/resources/limits/cpu", 0.5)),
    ("as many workers as there are", "gpu", job(f"{GROUP}/maxReplicas", GONE)),
    ("workers on demand beside spot", "spot", job(f"{WORKER_POD}/nodeSelector/karpenter.sh~capacity-type", "on-demand")),
    ("Redis", "gpu", job(f"{CLUSTER}/gcsFaultToleranceOptions", {"redisAddress": "redis:6379"})),
    ("idle GPUs in a cluster that ends", "gpu", [*job(f"{GROUP}/minReplicas", 2), *job(f"{GROUP}/replicas", 2)]),
    ("a port below 1024", "gpu", job(f"{RAY_WORKER}/securityContext/capabilities/add", ["NET_BIND_SERVICE"])),
    ("a profile of the node's", "gpu", job(f"{RAY_WORKER}/securityContext/seccompProfile", {"type": "Localhost", "localhostProfile": "a"})),
]  # fmt: skip
