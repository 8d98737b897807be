"""Planted mistakes in what stands beside the jobs, against Pod Security, and against schemas; see mistakes_in_manifests."""

from tests.unit.manifests import GONE, Edit
from tests.unit.mistakes_in_manifests import (
    CLUSTER,
    GROUP,
    HEAD_POD,
    JOB,
    RAY_HEAD,
    RAY_WORKER,
    RULE,
    SHARED,
    SUBMITTER_POD,
    WORKER_POD,
    job,
)

PART, COMPONENT, VERSION = (f"app.kubernetes.io~{name}" for name in ("part-of", "component", "version"))
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"app.kubernetes.io/version": "0.1.0"}}}
NAMESPACE = "metadata/labels/pod-security.kubernetes.io~enforce"
CONTEXT = f"{RAY_WORKER}/securityContext"

SITE: dict[str, list[tuple[str, str, list[Edit]]]] = {
    "pinned-ray": [("another", "gpu", [*job(f"{CLUSTER}/rayVersion", "2.60.1"), *[
        (JOB, f"{path}/image", "threephase-ray:0.1.0-ray2.60.1") for path in (RAY_HEAD, RAY_WORKER, f"{SUBMITTER_POD}/containers/0")]])],
    "same-version": [
        ("an object", "gpu", [("PodMonitor/threephase", f"metadata/labels/{VERSION}", "0.0.9")]),
        ("a pod", "gpu", job(f"{GROUP}/template/metadata/labels/{VERSION}", GONE)),
    ],
    "head-budget": [
        ("none", "gpu", [("PodDisruptionBudget/threephase-heads", "", GONE)]),
        ("of others", "gpu", [("PodDisruptionBudget/threephase-heads", f"spec/selector/matchLabels/{COMPONENT}", "worker")]),
        ("a share", "gpu", [("PodDisruptionBudget/threephase-heads", "spec/minAvailable", "100%")]),
        ("maxUnavailable", "gpu", [("PodDisruptionBudget/threephase-heads", "spec/minAvailable", GONE),
                                   ("PodDisruptionBudget/threephase-heads", "spec/maxUnavailable", 0)]),
    ],
    "default-deny": [
        ("none", "gpu", [("NetworkPolicy/default-deny", "", GONE)]),
        ("ingress only", "gpu", [("NetworkPolicy/default-deny", "spec/policyTypes", ["Ingress"])]),
        ("all allowed", "gpu", [("NetworkPolicy/default-deny", "spec/ingress", [{}])]),
    ],
    "dashboard-reachable": [
        ("no policy", "gpu", [("NetworkPolicy/dashboard", "", GONE)]),
        ("not the operator", "gpu", [("NetworkPolicy/dashboard", "spec/ingress/0/from/0", GONE)]),
        ("another port", "gpu", [("NetworkPolicy/dashboard", "spec/ingress/0/ports/0/port", 8266)]),
    ],
    "dns-reachable": [
        ("no policy", "gpu", [("NetworkPolicy/dns", "", GONE)]),
        ("UDP only", "gpu", [("NetworkPolicy/dns", "spec/egress/0/ports/1", GONE)]),
    ],
    "claims": [
        ("none", "gpu", [("PersistentVolumeClaim/threephase-store", "", GONE)]),
        ("misspelt", "gpu", [(JOB, f"{pod}/volumes/0/persistentVolumeClaim/claimName", "store") for pod in (HEAD_POD, WORKER_POD)]),
    ],
    "same-store": [
        ("elsewhere", "gpu", job(f"{RAY_WORKER}/volumeMounts/0/mountPath", "/data")),
        ("not for workers", "gpu", job(f"{RAY_WORKER}/volumeMounts/0", GONE)),
    ],
    "monitored": [
        ("another port", "gpu", [("PodMonitor/threephase", "spec/podMetricsEndpoints/0/port", "http")]),
        ("other pods", "gpu", [("PodMonitor/threephase", "spec/selector/matchExpressions/0/values", ["head"])]),
    ],
    "no-secrets": [("one", "gpu", [("", "", SECRET)])],
    "restricted-namespace": [("baseline", "gpu", [("Namespace/threephase", NAMESPACE, "baseline")])],
}  # fmt: skip

RESTRICTED: dict[str, list[tuple[str, str, list[Edit]]]] = {
    "template": [("default submitter", "gpu", job("spec/submitterPodTemplate", GONE))],
    "host-namespaces": [("network", "efa", job(f"{WORKER_POD}/hostNetwork", True)), ("IPC", "gpu", job(f"{WORKER_POD}/hostIPC", True))],
    "volume-types": [("the node's disk", "gpu", job(f"{WORKER_POD}/volumes/-", {"name": "disk", "hostPath": {"path": "/mnt"}}))],
    "sysctls": [("kernel", "gpu", job(f"{WORKER_POD}/securityContext/sysctls", [{"name": "kernel.msgmax", "value": "1"}]))],
    "run-as-user": [("root", "gpu", job(f"{HEAD_POD}/securityContext/runAsUser", 0))],
    "selinux": [("a type", "gpu", job(f"{CONTEXT}/seLinuxOptions", {"type": "spc_t"}))],
    "apparmor": [("off", "gpu", job(f"{CONTEXT}/appArmorProfile", {"type": "Unconfined"}))],
    "host-process": [("Windows", "gpu", job(f"{CONTEXT}/windowsOptions", {"hostProcess": True}))],
    "privileged": [("worker", "gpu", job(f"{CONTEXT}/privileged", True))],
    "privilege-escalation": [
        ("by default", "gpu", job(f"{CONTEXT}/allowPrivilegeEscalation", GONE)),
        ("submitter", "gpu", job(f"{SUBMITTER_POD}/containers/0/securityContext/allowPrivilegeEscalation", True)),
        ("an init container", "gpu", job(f"{WORKER_POD}/initContainers", [{
            "name": "a", "image": "a:1", "securityContext": {"capabilities": {"drop": ["ALL"]}},
            "resources": {kind: {"cpu": "1", "memory": "1Gi"} for kind in ("requests", "limits")}}])),
    ],
    "run-as-non-root": [
        ("pod", "gpu", job(f"{HEAD_POD}/securityContext/runAsNonRoot", GONE)),
        ("container", "gpu", job(f"{CONTEXT}/runAsNonRoot", False)),
    ],
    "seccomp": [("none", "gpu", job(f"{SUBMITTER_POD}/securityContext/seccompProfile", GONE)),
                ("off", "gpu", job(f"{CONTEXT}/seccompProfile", {"type": "Unconfined"}))],
    "capabilities": [
        ("kept", "gpu", job(f"{CONTEXT}/capabilities", GONE)),
        ("locked memory", "efa", job(f"{CONTEXT}/capabilities/add", ["IPC_LOCK"])),
    ],
    "proc-mount": [("unmasked", "gpu", job(f"{CONTEXT}/procMount", "Unmasked"))],
    "host-ports": [("metrics", "gpu", job(f"{RAY_WORKER}/ports/0/hostPort", 8080))],
    "probe-hosts": [("elsewhere", "gpu", job(f"{RAY_WORKER}/livenessProbe", {"httpGet": {"host": "a", "port": 80}}))],
}  # fmt: skip

# Found by schemas alone: (what, edits, the layer's rule); `schema` and `cel` need the operator's definitions
SCHEMAS: list[tuple[str, list[Edit], str]] = [
    ("a misspelt field", job("spec/backOffLimit", 3), "schema"),
    ("text for a number", job("spec/ttlSecondsAfterFinished", "600"), "schema"),
    ("a number too large", job("spec/activeDeadlineSeconds", 2**31), "schema"),
    ("a value that is no choice", job(f"{CLUSTER}/autoscalerOptions/upscalingMode", "Fast"), "schema"),
    ("a group without a name", job(f"{GROUP}/groupName", GONE), "schema"),
    ("a foreign manager", job("spec/managedBy", "somebody"), "cel"),
    ("two conditions in one", job("spec/deletionStrategy", {"deletionRules": [
        {**RULE, "condition": {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}}]}), "cel"),
    ("half a strategy", job("spec/deletionStrategy", {"onSuccess": {"policy": "DeleteCluster"}}), "cel"),
    ("a misspelt field of Kubernetes", [("PersistentVolumeClaim/threephase-store", "spec/accessMode", "ReadWriteMany")], "kind"),
    ("a port that is no number", [("NetworkPolicy/dns", "spec/egress/0/ports/0/endPort", "54")], "kind"),
    ("a misspelt kind", [("PodDisruptionBudget/threephase-heads", "kind", "PodDisruptionBudgets")], "kind"),
]  # fmt: skip

AUTOSCALER: list[tuple[str, list[Edit], str]] = [
    ("no context", job(f"{CLUSTER}/autoscalerOptions/securityContext", GONE), "privilege-escalation capabilities"),
    ("capabilities", [(SHARED, "spec/autoscalerOptions/securityContext/capabilities/drop", ["NET_RAW"])], "capabilities"),
]
