"""A RayJob of KubeRay: a template, filled in from the configuration, which travels beside it in a ConfigMap."""

import io
import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from threephase_ray.command import dump
from threephase_ray.config import Job
from threephase_ray.errors import ConfigError
from threephase_ray.kube import podsecurity, rules

MOUNT, FILE = "/etc/threephase-ray", "config.yaml"  # where the head finds the configuration
_VOLUME = "submitted-configuration"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")  # DNS-1035, and short enough for what KubeRay appends
_GPU = "nvidia.com/gpu"
_INSTANCE = "app.kubernetes.io/instance"  # the label that repeats the name
Document = dict[str, Any]


def load(path: Path) -> Document:
    """The template.

    Raises:
        ConfigError: it cannot be read, or is no RayJob.
    """
    try:
        found = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}\n  name a RayJob with --template") from error
    if not isinstance(found, dict) or found.get("kind") != "RayJob":
        raise ConfigError(f"{path}: holds no RayJob\n  name one with --template")
    return found


def filled(template: Document, job: str, config: Job, namespace: str | None, image: str | None) -> list[Document]:
    """The ConfigMap with the configuration, and the RayJob that runs `job` with it.

    Raises:
        ConfigError: the name is none for a RayJob, or the template lacks a part.
    """
    if not _NAME.fullmatch(config.name):
        raise ConfigError(f"name: {config.name} is none for a RayJob: small letters, digits and dashes, a letter first, at most 47")
    made = json.loads(json.dumps(template))  # what YAML's anchors made one object is several again
    try:
        _fill(made, job, config, image)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"the template lacks a part that is filled in: {error}\n  compare it with the RayJob of the project") from error
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config.name}, "data": {FILE: dump(config)}}
    documents = [settings, made]
    for document in documents:
        document["metadata"] |= {"name": config.name} | ({"namespace": namespace} if namespace else {})
    if _INSTANCE in made["metadata"].get("labels", {}):
        made["metadata"]["labels"][_INSTANCE] = config.name
    return documents


def check(job: Document) -> None:
    """Look at a RayJob as `make manifests` does, before it is sent.

    Raises:
        ConfigError: all that breaks a rule of the operator, of this project, or of Pod Security.
    """
    if problems := [*rules.check_object(job), *podsecurity.check([job])]:
        raise ConfigError("\n  ".join(["the RayJob would be refused, or fail:", *map(str, problems)]))


def text(documents: list[Document]) -> str:
    """The documents as `kubectl apply -f -` takes them."""
    buffer = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output, yaml.explicit_start = False, False, True
    yaml.dump_all(documents, buffer)
    return buffer.getvalue()


def _fill(made: Document, job: str, config: Job, image: str | None) -> None:
    """Set what depends on the job."""
    made.setdefault("metadata", {})
    spec = made["spec"]
    spec["entrypoint"] = _entrypoint(spec["entrypoint"], job)
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    head.setdefault("volumes", []).append({"name": _VOLUME, "configMap": {"name": config.name}})
    head["containers"][0].setdefault("volumeMounts", []).append({"name": _VOLUME, "mountPath": MOUNT, "readOnly": True})
    _size(spec["rayClusterSpec"], config)
    for container in _containers(spec):
        container["image"] = container["image"] if image is None else image


def _entrypoint(template: str, job: str) -> str:
    """The template's command with this job's script, and the configuration as its first file; what comes after it there stays, and wins."""
    words = shlex.split(template)
    words[1] = str(PurePosixPath(words[1]).with_name(f"{job}.py"))
    words[words.index("--config") + 1] = f"{MOUNT}/{FILE}"
    return shlex.join(words)


def _size(cluster: Document, config: Job) -> None:
    """As many of the template's pods as the workers need; a pod that one worker does not fit into gets more CPUs, or a GPU.

    A sweep or a study takes as many groups of workers as it says, else one. What an autoscaler brings it brings when it is asked for.
    """
    compute, groups = config.compute, getattr(getattr(config, "sweep", getattr(config, "study", None)), "groups", None)
    group = _group(cluster["workerGroupSpecs"], compute.use_gpu)
    resources = _container(group).setdefault("resources", {})
    amounts = resources.setdefault("limits", resources.get("requests", {}).copy())
    cpus = max(_amount(amounts.get("cpu", 0)), math.ceil(compute.cpus_per_worker))
    gpus = max(int(amounts.get(_GPU, 0)), 1) if compute.use_gpu else 0
    for each in (amounts, resources.setdefault("requests", {})):
        each.pop(_GPU, None)
        each |= {"cpu": f"{cpus:g}"} | ({_GPU: str(gpus)} if gpus else {})
    held = int(min(cpus / compute.cpus_per_worker, gpus / compute.gpu_share if gpus else math.inf))
    least, most = (math.ceil(workers * (groups if groups is not None else 1) / held) for workers in (compute.least, compute.most))
    group |= (
        {"maxReplicas": most} if cluster.get("enableInTreeAutoscaling") else {"replicas": most, "minReplicas": least, "maxReplicas": most}
    )


def _group(groups: list[Document], use_gpu: bool) -> Document:
    """The group of pods with GPUs, or the one without, if there is a choice."""
    return next((group for group in groups if (_GPU in _container(group).get("resources", {}).get("limits", {})) == use_gpu), groups[0])


def _container(group: Document) -> Document:
    """Ray's container of a group: the first one."""
    return group["template"]["spec"]["containers"][0]  # type: ignore[no-any-return]


def _amount(quantity: object) -> float:
    """CPUs as Kubernetes writes them: 8, "8", "500m"."""
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _containers(spec: Document) -> Iterator[Document]:
    """Ray's container of every pod."""
    submitter = [{"template": spec["submitterPodTemplate"]}] if "submitterPodTemplate" in spec else []
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"], *submitter]
    return (_container(group) for group in groups)
