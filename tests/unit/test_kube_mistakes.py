"""Each planted mistake is found, by the rule that it breaks and by no other; every rule has its mistake."""

import copy

import pytest

from tests.unit.manifests import Edit, crds, edited, found_by_rules, found_by_schemas, without
from tests.unit.mistakes_around_manifests import AUTOSCALER, RESTRICTED, SCHEMAS, SITE
from tests.unit.mistakes_in_manifests import BY_SEVERAL, CLUSTER, GROUP, HARMLESS, JOB, RULES, job
from threephase_ray.kube import rules
from threephase_ray.kube.objects import Problem

TABLE = [
    *[(rule, *mistake) for table in (RULES, SITE) for rule, mistakes in table.items() for mistake in mistakes],
    *[(f"restricted-{rule}", *mistake) for rule, mistakes in RESTRICTED.items() for mistake in mistakes],
]


OTHERS = ("prepare", "sweep", "study", "predict")


def named(problems: list[Problem]) -> set[str]:
    """The rules that found something. What each says is a line with a place and a remedy."""
    assert all(problem.where and problem.what and problem.remedy and "\n" not in str(problem) for problem in problems)
    return {problem.rule for problem in problems}


def broken(overlay: str, edits: list[Edit]) -> set[str]:
    """What the rules find in an overlay with these edits."""
    return named(found_by_rules(edited(without(overlay, *OTHERS), edits)))


@pytest.mark.parametrize(("rule", "what", "overlay", "edits"), TABLE, ids=[f"{rule}: {what}" for rule, what, *_ in TABLE])
def test_is_found_by_its_rule_alone(rule: str, what: str, overlay: str, edits: list[Edit]) -> None:
    assert broken(overlay, edits) == {rule}


@pytest.mark.parametrize(("what", "overlay", "edits"), HARMLESS, ids=[what for what, *_ in HARMLESS])
def test_what_is_right_is_not_found(what: str, overlay: str, edits: list[Edit]) -> None:
    assert broken(overlay, edits) == set()


@pytest.mark.parametrize(("what", "overlay", "edits", "expected"), BY_SEVERAL, ids=[what for what, *_ in BY_SEVERAL])
def test_is_found_by_several(what: str, overlay: str, edits: list[Edit], expected: set[str]) -> None:
    assert broken(overlay, edits) == expected - {"schema"}


@pytest.mark.parametrize(("what", "edits", "rule"), SCHEMAS, ids=[what for what, *_ in SCHEMAS])
def test_is_found_by_schemas(what: str, edits: list[Edit], rule: str) -> None:
    folder = crds() if rule in ("schema", "cel") else None
    changed = edited(without("gpu", *OTHERS), edits)
    assert named(found_by_schemas(changed, folder)) == {rule}


def test_a_pod_is_looked_at_without_the_operators_schemas() -> None:
    changed = edited(without("gpu", *OTHERS), job(f"{GROUP}/template/spec/containers/0/imagePullPolicies", "Always"))
    assert named(found_by_schemas(changed, None)) == {"pod"}


@pytest.mark.parametrize(("what", "edits", "expected"), AUTOSCALER, ids=[what for what, *_ in AUTOSCALER])
def test_the_autoscalers_container_is_looked_at_too(what: str, edits: list[Edit], expected: str) -> None:
    assert broken("gpu", edits) == {f"restricted-{rule}" for rule in expected.split()}


@pytest.mark.parametrize(("count", "found"), [(7, set()), (8, {"kueue-groups"})])
def test_kueue_counts_groups(count: int, found: set[str]) -> None:
    first = next(m for m in without("kueue") if m["metadata"]["name"] == "train")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    groups = [{**copy.deepcopy(first), "groupName": f"gpu-{number}"} for number in range(count)]
    assert broken("kueue", job(f"{CLUSTER}/workerGroupSpecs", groups)) == found


def test_two_groups_of_one_name() -> None:
    first = next(m for m in without("gpu") if m["metadata"]["name"] == "train")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert broken("gpu", job(f"{CLUSTER}/workerGroupSpecs/-", first)) == {"group-names"}


def test_labels_that_policies_look_for() -> None:
    missing = broken("gpu", [(JOB, f"{GROUP}/template/metadata/labels/app.kubernetes.io~component", "gpu")])
    assert missing == {"part-of", "monitored"}


def test_every_rule_has_a_mistake() -> None:
    elsewhere = {"kueue-groups", "group-names", "part-of", "auth-needs-version", "start-parameters"}
    assert {rule for rule, *_ in TABLE} - {f"restricted-{rule}" for rule in RESTRICTED} | elsewhere == set(rules.NAMES)
    assert len(rules.NAMES) >= 22
    assert len(TABLE) >= 25
