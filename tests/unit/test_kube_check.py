"""The command: a line for each problem, exit codes, layers that are left out; objects, quantities, selectors, defaults."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.manifests import RAY, crds, overlay
from threephase_ray.errors import ConfigError, ResourceError
from threephase_ray.kube import builtin, check, render, schema
from threephase_ray.kube.objects import parse, pods_of, quantity, selects
from threephase_ray.kube.shell import surprises

JOB = (ROOT / "cluster" / "base" / "rayjob.yaml").read_text(encoding="utf-8")


def run(path: Path, *more: str) -> int:
    return check.main([str(path), "--ray-version", RAY, *more])


def test_a_good_overlay(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ROOT / "cluster" / "overlays" / "gpu") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{ROOT}/cluster/overlays/gpu: no problem"]
    assert "not checked: schemas of custom resources, since --crds names no folder" in err


def test_a_line_for_each_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("backoffLimit: 3", "backoffLimit: -1").replace("mode: token", "mode: disabled"))
    assert run(tmp_path / "job.yaml") == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "RayJob/job spec.backoffLimit: is -1" in line and "[finite-retries]" in line]
    assert [line for line in lines if "RayJob/job spec.rayClusterSpec.authOptions: token" in line and "[token-auth]" in line]
    assert all(line.startswith(f"{tmp_path}/job.yaml: ") for line in lines)


def test_with_the_operators_schemas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(JOB.replace("backoffLimit: 3", "backOffLimit: 3"))
    assert run(tmp_path, "--crds", str(crds())) == 2
    captured = capsys.readouterr()
    assert "'backOffLimit' was unexpected" in captured.out
    assert "not checked" not in captured.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("resources: [nowhere.yaml]\n", "nowhere.yaml"),
        ("resources: [a.yaml]\npatches: [{target: {kind: Pod}, patch: '- {op: remove, path: /a}'}]\n", "remove"),
        ("resources: [\n", "yaml"),
    ],
)
def test_what_does_not_render(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: Pod, metadata: {name: a}}")
    (tmp_path / "kustomization.yaml").write_text(content)
    assert run(tmp_path) == 2
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert said in line
    assert "[renders]" in line


@pytest.mark.parametrize("content", ["a: [", "just words", "- a\n", "{metadata: {name: a}}"])
def test_what_is_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    assert run(tmp_path / "a.yaml") == 2
    assert "a.yaml: " in capsys.readouterr().out


def test_folders_without_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert run(tmp_path / "absent") == 2
    assert capsys.readouterr().out.count("is neither a YAML file, nor a kustomization") == 2
    with pytest.raises(ConfigError, match="has no CustomResourceDefinition"):
        schema.load(tmp_path)


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match="pip install"):
        render.kubectl()
    assert run(ROOT / "cluster" / "overlays" / "gpu") == 4
    assert "kubectl: not found" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problems, left_out = check.check(overlay("gpu"), crds=ROOT)
    assert not problems
    assert ["jsonschema is not installed" in left_out[0], "kubernetes_validate is not installed" in left_out[1]] == [True, True]


def test_another_kubernetes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {app.kubernetes.io/version: 0.1.0}}, data: {day: '2026-01-01'}}"
    )
    assert run(tmp_path, "--kubernetes", "1.30", "--version", "0.1.0") == 0
    for version in ("1.99", "new"):
        assert run(tmp_path, "--kubernetes", version) == 2
        assert f"Kubernetes {version}: its schemas are not known" in capsys.readouterr().out


def test_lists_are_unpacked_and_truth_values_are_those_of_kubernetes() -> None:
    objects = parse("{kind: List, items: [{kind: A, x: yes}, {kind: B}]}\n---\n---\nkind: C\n", "text")
    assert objects == [{"kind": "C"}, {"kind": "A", "x": True}, {"kind": "B"}]


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2.0), (3, 3.0), ("1.5Gi", 1.5 * 2**30), ("100M", 1e8), ("1e3", 1000.0), ("2k", 2000.0)]
)
def test_quantities(text: object, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", None, "8 Gi", "8GB", "-1", "Gi"])
def test_what_is_no_quantity(text: object) -> None:
    assert math.isnan(quantity(text))


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ({}, True),
        (None, False),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors(selector: dict[str, Any] | None, taken: bool) -> None:
    assert selects(selector, {"a": "1"}) is taken


def test_pods_of_a_job() -> None:
    assert [(pod.role, pod.path) for pod in pods_of(parse(JOB, "job")[0])] == [
        ("head", "spec.rayClusterSpec.headGroupSpec.template"),
        ("worker", "spec.rayClusterSpec.workerGroupSpecs[0].template"),
        ("submitter", "spec.submitterPodTemplate"),
    ]


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("python a.py --config 'my file.yaml' --name \"a b\"", 0),
        ("python a.py '{\"a\": [1, 2]}' a\\;b a#b a~", 0),
        ("python a.py '$HOME; `ls`'", 0),
        ("a; b", 1),
        ("a && b", 2),
        ("a > b", 1),
        ("a $B", 1),
        ('a "$B"', 1),
        ("a `b`", 2),
        ("a *.yaml", 1),
        ("a {b,c}", 2),
        ("a #b", 1),
        ("a ~/b", 1),
        ("a\nb", 1),
        ("a 'b", 1),
        ("a \\", 1),
    ],
)
def test_what_a_shell_would_make_of_it(command: str, count: int) -> None:
    assert len(list(surprises(command))) == count


def test_defaults_and_nulls() -> None:
    fields = {"a": {"default": 1}, "b": {"properties": {"c": {"default": [2]}}}, "d": {"items": {"properties": {"e": {"default": 3}}}}}
    found = schema.with_defaults(schema.without_nulls({"a": None, "b": {}, "d": [{}, {"e": 0}], "f": None}), {"properties": fields})
    assert found == {"a": 1, "b": {"c": [2]}, "d": [{"e": 3}, {"e": 0}]}


def test_rules_of_a_schema_where_they_stand() -> None:
    positive = {"x-kubernetes-validations": [{"rule": "self > 0", "message": "positive"}, {"rule": "self == oldSelf"}]}
    fields = {"properties": {"a": {"items": positive}, "b": {"additionalProperties": positive}}}
    found = list(schema.cel_faults({"a": [1, 0], "b": {"c": -1, "d": 2}}, fields))
    assert found == [("a[1]", "positive"), ("b.c", "positive")]


@pytest.mark.parametrize(
    ("version", "own"),
    [("v1", True), ("apps/v1", True), ("networking.k8s.io/v1", True), ("ray.io/v1", False), ("kueue.x-k8s.io/v1", False)],
)
def test_whose_kind_it_is(version: str, own: bool) -> None:
    assert builtin.is_builtin(version) is own
