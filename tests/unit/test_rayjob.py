import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from threephase_ray.command import read
from threephase_ray.config import Config
from threephase_ray.errors import ConfigError
from threephase_ray.submitting import asking, rayjob
from threephase_ray.sweeping import SweepConfig

TEMPLATE = Path(__file__).parent / "templates" / "rayjob.yaml"
SOUND = ["--name=mine", "--store=/store", "--data.source=/texts", "--encoder.path=x/y"]


def config(*flags: str, kind: type[Config] = Config) -> Config:
    return read([], [*SOUND, *flags], kind)


def workers(job: dict[str, Any]) -> dict[str, Any]:
    return dict(job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0])


def filled(*flags: str, kind: type[Config] = Config, job: str = "train", **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the RayJob, as they are read back from the text that is sent. `cpus`: of the template's pod."""
    template = rayjob.load(TEMPLATE)
    workers(template)["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = more.get("cpus", "1")
    made = rayjob.filled(template, job, config(*flags, kind=kind), more.get("namespace"), more.get("image"))
    settings, job_ = YAML(typ="safe", pure=True).load_all(rayjob.text(made))
    return settings, job_


def test_the_configuration_arrives_as_it_was(tmp_path: Path) -> None:
    odd = "--data.text_column=a 'b' \"c\" $HOME `d`; e"
    settings, _ = filled(odd)
    (tmp_path / "config.yaml").write_text(settings["data"][rayjob.FILE])
    assert read([str(tmp_path / "config.yaml")]) == config(odd)


def test_the_head_finds_the_configuration_where_the_job_looks_for_it() -> None:
    settings, made = filled(job="study")
    command = shlex.split(made["spec"]["entrypoint"])
    assert command == ["python", "/app/jobs/study.py", "--config", f"{rayjob.MOUNT}/{rayjob.FILE}", "--config", "/etc/site.yaml"]
    head = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    volume = next(each for each in head["volumes"] if "configMap" in each)
    mount = next(each for each in head["containers"][0]["volumeMounts"] if each["name"] == volume["name"])
    assert (volume["configMap"]["name"], mount["mountPath"]) == (settings["metadata"]["name"], rayjob.MOUNT)
    assert len(head["volumes"]) == len(head["containers"][0]["volumeMounts"]) == 2  # the template's own stay


@pytest.mark.parametrize("job", asking.JOBS)
def test_the_projects_own_template_passes_all_rules_when_it_is_filled_in(job: str) -> None:
    made = rayjob.filled(rayjob.load(ROOT / asking.TEMPLATE), job, config("--compute.use_gpu=true"), "threephase", None)[1]
    rayjob.check(made)
    assert shlex.split(made["spec"]["entrypoint"])[1:] == [
        *(f"/app/jobs/{job}.py", "--config", f"{rayjob.MOUNT}/{rayjob.FILE}", "--config", "/etc/threephase/site.yaml")
    ]


def test_a_template_that_breaks_rules_is_refused() -> None:
    made = rayjob.filled(rayjob.load(TEMPLATE), "train", config(), None, None)[1]
    with pytest.raises(ConfigError, match=r"(?s)would be refused, or fail.*runAsNonRoot"):
        rayjob.check(made)


@pytest.mark.parametrize(
    ("flags", "template_cpus", "replicas", "cpus", "gpus"),
    [
        (["--compute.workers=3", "--compute.cpus_per_worker=1.5"], "1", (3, 3, 3), "2", None),  # a pod grows for one worker
        (["--compute.workers=9", "--compute.cpus_per_worker=2"], "8", (3, 3, 3), "8", None),  # four workers share a pod
        (["--compute.workers=2,8", "--compute.use_gpu=true"], "1", (8, 2, 8), "1", "1"),
        (["--compute.workers=4", "--compute.use_gpu=true"], "8", (4, 4, 4), "8", "1"),  # a pod has one GPU
        (["--compute.use_gpu=true", "--compute.gpu_share=0.25"], "2500m", (1, 1, 1), "2.5", "1"),
    ],
)
def test_pods_are_as_many_and_as_large_as_the_workers_need(
    flags: list[str], template_cpus: str, replicas: tuple[int, ...], cpus: str, gpus: str | None
) -> None:
    group = workers(filled(*flags, cpus=template_cpus)[1])
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == replicas
    for amounts in group["template"]["spec"]["containers"][0]["resources"].values():
        assert (amounts["cpu"], amounts.get("nvidia.com/gpu"), amounts["memory"]) == (cpus, gpus, "4Gi")


def test_a_sweep_has_pods_for_all_its_groups() -> None:
    assert workers(filled("--sweep.groups=4", "--compute.workers=2", kind=SweepConfig, job="sweep")[1])["replicas"] == 8


def test_an_autoscaler_starts_from_what_the_template_says() -> None:
    template = rayjob.load(TEMPLATE)
    template["spec"]["rayClusterSpec"] |= {"enableInTreeAutoscaling": True}
    template["spec"]["rayClusterSpec"]["workerGroupSpecs"][0] |= {"replicas": 0, "minReplicas": 0}
    group = workers(rayjob.filled(template, "train", config("--compute.workers=6"), None, None)[1])
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, 6)


def test_workers_go_to_the_pods_with_or_without_gpus() -> None:
    template = rayjob.load(TEMPLATE)
    groups = template["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    groups.append(json.loads(json.dumps(groups[0])))
    del groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    for use_gpu, expected in (("true", [5, 1]), ("false", [1, 5])):
        made = rayjob.filled(template, "train", config("--compute.workers=5", f"--compute.use_gpu={use_gpu}"), None, None)[1]
        assert [group["replicas"] for group in made["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == expected


def test_image_and_namespace_reach_everything() -> None:
    settings, made = filled(namespace="team", image="other:1")
    assert settings["metadata"] == {"name": "mine", "namespace": "team"}
    assert made["metadata"] == {"name": "mine", "labels": {"app.kubernetes.io/instance": "mine"}, "namespace": "team"}
    text = rayjob.text([made])
    assert text.count("other:1") == 3
    assert "threephase-ray:template" not in text
    assert "other:1" not in rayjob.text([filled()[1]])


def test_the_template_is_not_changed() -> None:
    template = rayjob.load(TEMPLATE)
    rayjob.filled(template, "train", config(), None, None)
    assert template == rayjob.load(TEMPLATE)


@pytest.mark.parametrize("name", ["7days", "a-name-of-47-characters-a-name-of-47-characters"])
def test_names_follow_kubernetes(name: str) -> None:
    if len(name) == 47:
        assert rayjob.filled(rayjob.load(TEMPLATE), "train", config(f"--name={name}"), None, None)
        return
    with pytest.raises(ConfigError, match="is none for a RayJob"):
        rayjob.filled(rayjob.load(TEMPLATE), "train", config(f"--name={name}"), None, None)


@pytest.mark.parametrize(
    ("content", "word"),
    [("kind: Deployment", "holds no RayJob"), ("a: [", "cannot be read"), (None, "No such file")],
)
def test_what_is_no_template_is_refused(content: str | None, word: str, tmp_path: Path) -> None:
    path = tmp_path / "rayjob.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=word):
        rayjob.load(path)


def test_a_template_without_workers_is_refused() -> None:
    template = rayjob.load(TEMPLATE)
    del template["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    with pytest.raises(ConfigError, match="lacks a part that is filled in: 'workerGroupSpecs'"):
        rayjob.filled(template, "train", config(), None, None)
