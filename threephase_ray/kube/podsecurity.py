"""The profile `restricted` of Kubernetes' Pod Security Standards (as of v1.34, which looks at most), on every pod that an object brings.

The operator itself adds two containers: `wait-gcs-ready` takes over the worker container's security context, and the autoscaler's
stands in `autoscalerOptions`.
"""

from collections.abc import Iterator, Sequence

from threephase_ray.kube.objects import Fault, Manifest, Pod, Problem, cluster_of, dig, pods_of, title

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def check(manifests: Sequence[Manifest]) -> list[Problem]:
    """What the profile would forbid."""
    return [
        Problem(f"restricted-{rule}", f"{title(manifest)} {where}", what, remedy)
        for manifest in manifests
        for pod in _all_pods(manifest)
        for rule, (where, what, remedy) in restricted(pod)
    ]


def _all_pods(manifest: Manifest) -> Iterator[Pod]:
    """The object's pods, the head with the autoscaler's container in it; plain pods and templates of workloads, too."""
    cluster = cluster_of(manifest)
    for pod in pods_of(manifest):
        yield _with_autoscaler(pod) if cluster and cluster.autoscaled and pod.role == "head" else pod
    if manifest.get("kind") == "Pod":
        yield Pod(manifest, "", "pod", manifest)
    elif manifest.get("kind") in ("Job", "Deployment", "DaemonSet", "StatefulSet"):
        yield Pod(manifest, "spec.template", "pod", dig(manifest, "spec", "template") or {})
    elif manifest.get("kind") == "CronJob":
        yield Pod(manifest, "spec.jobTemplate.spec.template", "pod", dig(manifest, "spec", "jobTemplate", "spec", "template") or {})


def _with_autoscaler(pod: Pod) -> Pod:
    """The head as it will be, with the container that the operator adds."""
    cluster = cluster_of(pod.owner)
    options = (cluster.spec.get("autoscalerOptions") if cluster else None) or {}
    container = {"name": "autoscaler", "securityContext": options.get("securityContext"), "volumeMounts": options.get("volumeMounts")}
    spec = {**pod.spec, "containers": [*(pod.spec.get("containers") or []), container]}
    return Pod(pod.owner, pod.path, pod.role, {**pod.template, "spec": spec})


def restricted(pod: Pod) -> Iterator[tuple[str, Fault]]:
    """(control, what is wrong) of one pod."""
    if not pod.spec.get("containers"):
        yield "template", (pod.path, f"the {pod.role} is the operator's default, which is forbidden", "give it a template of its own")
        return
    yield from _pod_level(pod)
    for path, container in pod.containers():
        yield from _container_level(pod, path, container)


def _pod_level(pod: Pod) -> Iterator[tuple[str, Fault]]:
    """Controls on the pod as a whole."""
    where = f"{pod.path}.spec"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield "host-namespaces", (f"{where}.{name}", "the pod sees the node's own", "remove it")
    for volume in pod.spec.get("volumes") or []:
        if odd := set(volume) - _VOLUMES - {"name"}:
            yield "volume-types", (f"{where}.volumes", f"{volume.get('name')} is of type {min(odd)}", "use a claim, or an emptyDir")
    for setting in dig(pod.spec, "securityContext", "sysctls") or []:
        if setting.get("name") not in _SYSCTLS:
            yield "sysctls", (f"{where}.securityContext.sysctls", f"{setting.get('name')} is not safe", "remove it")
    yield from _identity(f"{where}.securityContext", dig(pod.spec, "securityContext") or {})


def _identity(where: str, context: Manifest) -> Iterator[tuple[str, Fault]]:
    """What a security context may say, of a pod or of a container."""
    if context.get("runAsUser") == 0:
        yield "run-as-user", (f"{where}.runAsUser", "0 is root", "1000, the user of the Ray images")
    if (dig(context, "seLinuxOptions", "type") or "") not in _SELINUX or dig(context, "seLinuxOptions", "user"):
        yield "selinux", (f"{where}.seLinuxOptions", "type or user is not allowed", "remove it")
    if (dig(context, "appArmorProfile", "type") or "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield "apparmor", (f"{where}.appArmorProfile", "the profile is switched off", "RuntimeDefault")
    if dig(context, "windowsOptions", "hostProcess"):
        yield "host-process", (f"{where}.windowsOptions", "the container runs on the node itself", "remove it")


def _container_level(pod: Pod, path: str, container: Manifest) -> Iterator[tuple[str, Fault]]:
    """Controls on one container."""
    name = container.get("name")
    context, above = container.get("securityContext") or {}, dig(pod.spec, "securityContext") or {}
    where = f"{path}.securityContext"
    yield from _identity(where, context)
    if context.get("privileged"):
        yield "privileged", (where, f"{name} is privileged", "remove it")
    if context.get("allowPrivilegeEscalation") is not False:
        yield "privilege-escalation", (where, f"{name} may gain privileges", "allowPrivilegeEscalation: false")
    if context.get("runAsNonRoot", above.get("runAsNonRoot")) is not True:
        yield "run-as-non-root", (where, f"{name} may run as root", "runAsNonRoot: true")
    if dig(context.get("seccompProfile") or above.get("seccompProfile"), "type") not in ("RuntimeDefault", "Localhost"):
        yield "seccomp", (where, f"{name} has no seccomp profile", "seccompProfile: {type: RuntimeDefault}")
    yield from _capabilities(where, name, context.get("capabilities") or {})
    if (context.get("procMount") or "Default") != "Default":
        yield "proc-mount", (where, f"{name} unmasks /proc", "remove procMount")
    yield from _host(path, name, container)


def _capabilities(where: str, name: object, capabilities: Manifest) -> Iterator[tuple[str, Fault]]:
    """All dropped, and none but one given back."""
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities", (where, f"{name} keeps capabilities", "capabilities: {drop: [ALL]}")
    if extra := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities", (where, f"{name} asks for {', '.join(sorted(extra))}", "remove it")


def _host(path: str, name: object, container: Manifest) -> Iterator[tuple[str, Fault]]:
    """Ports of the node, and probes and hooks that reach out to another host."""
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield "host-ports", (f"{path}.ports", f"{name} takes the node's port {port['hostPort']}", "remove hostPort")
    hooks = [container.get(probe) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
    hooks += [dig(container, "lifecycle", hook) for hook in ("postStart", "preStop")]
    if any(dig(hook, action, "host") for hook in hooks for action in ("httpGet", "tcpSocket")):
        yield "probe-hosts", (path, f"a probe or hook of {name} names a host", "remove host: the pod itself is meant")
