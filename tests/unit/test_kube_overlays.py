"""All overlays pass all layers; what they promise stands in them."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.unit.manifests import JOBS, OVERLAYS, RAY, crds, found_by_rules, found_by_schemas, overlay
from threephase_ray import __version__, command
from threephase_ray.kube.objects import Manifest, dig, kinds, pods_of, title
from threephase_ray.submitting import asking

EVERY = pytest.mark.parametrize("name", OVERLAYS)


def test_there_are_overlays() -> None:
    assert OVERLAYS == ["cpu-dev", "efa", "gpu", "kueue", "s3", "spot"]


@EVERY
def test_brings_a_shared_cluster_and_all_jobs(name: str) -> None:
    assert [title(manifest) for manifest in kinds(overlay(name), "RayCluster")] == ["RayCluster/threephase"]
    assert {title(manifest) for manifest in kinds(overlay(name), "RayJob")} == {f"RayJob/{job}" for job in JOBS}


@EVERY
def test_breaks_no_rule_and_is_restricted(name: str) -> None:
    assert [str(problem) for problem in found_by_rules(overlay(name))] == []


@EVERY
def test_fits_kubernetes_schemas(name: str) -> None:
    assert [str(problem) for problem in found_by_schemas(overlay(name), None)] == []


@EVERY
def test_fits_the_operators_schemas(name: str) -> None:
    assert [str(problem) for problem in found_by_schemas(kinds(overlay(name), "RayJob", "RayCluster"), crds())] == []


@EVERY
def test_the_shared_cluster_is_the_jobs_own(name: str) -> None:
    shared, train = (next(m for m in overlay(name) if title(m) == wanted) for wanted in ("RayCluster/threephase", "RayJob/train"))
    differing = {key for key, value in shared["spec"].items() if train["spec"]["rayClusterSpec"].get(key) != value}
    assert differing == ({"suspend"} if name == "kueue" else set())
    assert set(train["spec"]["rayClusterSpec"]) <= set(shared["spec"])


def site(name: str) -> str:
    """The overlay's site.yaml, as its jobs read it."""
    return next(str(m["data"]["site.yaml"]) for m in kinds(overlay(name), "ConfigMap") if "site.yaml" in m["data"])


@EVERY
@pytest.mark.parametrize("job", JOBS)
def test_entrypoints_are_commands_of_this_project(name: str, job: str, tmp_path: Path) -> None:
    words = shlex.split(next(m for m in overlay(name) if title(m) == f"RayJob/{job}")["spec"]["entrypoint"])
    (tmp_path / "site.yaml").write_text(site(name), encoding="utf-8")
    places = {"/app": str(ROOT), "/etc/threephase": str(tmp_path)}
    python, script, *rest = [re.sub(r"^(/app|/etc/threephase)", lambda match: places[match[1]], word) for word in words]
    assert python == "python"
    assert Path(script) == ROOT / "jobs" / f"{job}.py"
    assert Path(script).is_file()
    assert rest[::2] == ["--config"] * 2
    config = command.read(rest[1::2], (), asking.JOBS[job])
    assert config.store == ("s3://example-bucket/threephase" if name == "s3" else "/store")
    assert config.compute.use_gpu is (name != "cpu-dev")


@EVERY
def test_workers_are_waited_for_as_long_as_a_job_may_take_to_start(name: str) -> None:
    seconds = yaml.safe_load(site(name))["compute"]["start_timeout_s"]
    assert all(300 < seconds < job["spec"]["preRunningDeadlineSeconds"] for job in kinds(overlay(name), "RayJob"))


def gpus(manifest: Manifest) -> str | None:
    """GPUs of a worker."""
    return next(dig(pod.main, "resources", "limits", "nvidia.com/gpu") for pod in pods_of(manifest) if pod.role == "worker")


def test_what_each_overlay_is_for() -> None:
    train = {name: next(m for m in overlay(name) if title(m) == "RayJob/train") for name in OVERLAYS}
    assert {name: gpus(job) for name, job in train.items()} == dict.fromkeys(OVERLAYS, "1") | {"cpu-dev": None, "efa": "8"}
    assert train["kueue"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "threephase"
    assert [dig(group, "template", "spec", "nodeSelector") for group in train["spot"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == [
        {"karpenter.sh/capacity-type": "spot"}
    ]
    assert dig(train["efa"], "spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "affinity", "podAffinity")
    assert not kinds(overlay("s3"), "PersistentVolumeClaim")
    assert "persistentVolumeClaim" not in json.dumps(train["s3"])
    accounts = kinds(overlay("s3"), "ServiceAccount")
    assert len(accounts) == 2
    assert all("eks.amazonaws.com/role-arn" in account["metadata"]["annotations"] for account in accounts)


def test_the_template_is_a_whole_job_by_itself() -> None:
    template = yaml.safe_load((ROOT / "cluster" / "base" / "rayjob.yaml").read_text(encoding="utf-8"))
    images = {pod.main["image"] for pod in pods_of(template)}
    assert images == {f"threephase-ray:{__version__}-ray{RAY}"}
    assert not [problem for problem in found_by_rules([template]) if problem.rule not in SITE_WIDE]


SITE_WIDE = {"same-version", "head-budget", "default-deny", "dashboard-reachable", "dns-reachable"}  # of what stands in platform/


def test_names_no_host_and_no_secret() -> None:
    for path in (path for path in (ROOT / "cluster").rglob("*") if path.is_file() and path.name != "requirements.txt"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"\b\w+://(?!example-bucket|bucket)\S*|(?:docker|ghcr|quay|gcr)\.io", text), path
        assert not re.findall(r"(?i)(?:password|token|secret)\w*: *[\"']?[A-Za-z0-9+/]{16,}", text), path
