"""The list of knobs: complete, in words, with types."""

import pytest
from pydantic import BaseModel, TypeAdapter

from threephase_ray.config import Config
from threephase_ray.knobs import catalogue, knobs, table
from threephase_ray.machine import Section
from threephase_ray.sweeping import Axis, SweepConfig


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every knob's dotted name, from the JSON schema, which pydantic makes by itself."""
    schema = model.model_json_schema()
    found: set[str] = set()

    def walk(node: dict[str, object], name: str) -> None:
        members = [node, *node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]  # type: ignore[misc, attr-defined]
        targets = [schema["$defs"][member["$ref"].split("/")[-1]] for member in members if "$ref" in member]
        for target in targets or ([node] if "properties" in node else []):
            for key, child in target["properties"].items():
                walk(child, f"{name}.{key}".lstrip("."))
        if not targets and "properties" not in node:
            found.add(name)

    walk(schema, prefix)
    return found


@pytest.mark.parametrize("kind", [Config, SweepConfig])
def test_knobs_are_all_there_and_none_twice(kind: type[BaseModel]) -> None:
    names = [knob.name for knob in knobs(kind)]
    assert len(names) > 100
    assert len(names) == len(set(names))
    assert set(names) == leaves(kind)


@pytest.mark.parametrize("kind", [Config, SweepConfig])
def test_every_knob_has_a_meaning_and_values(kind: type[BaseModel]) -> None:
    assert not [knob.name for knob in knobs(kind) if not knob.meaning or not knob.values or not knob.default]


@pytest.mark.parametrize("kind", [Config, SweepConfig])
def test_every_knobs_default_is_one_of_its_values(kind: type[BaseModel]) -> None:
    for knob in knobs(kind):
        assert knob.default == "required" or TypeAdapter(knob.type).validate_python(knob.initial) == knob.initial, knob.name


def test_knob_in_words() -> None:
    class Example(Section):
        """Not part of the configuration."""

    found = {knob.name: knob for knob in knobs()}
    assert not list(knobs(Example))
    assert found["dae.noise_ratio"].values == "number > 0, < 1"
    assert found["dae.decoder_layers"][1:3] == ("integer ≥ 1, ≤ 12", "1")
    assert found["dae.clip"].default == "1.0"
    assert found["finetune.freeze_encoder"][1:3] == ("true or false", "false")
    assert found["phases"][1:3] == ("list of dae, contrastive, joint or finetune", "[dae, contrastive, finetune]")
    assert found["contrastive.loss.name"][1:3] == ("supervised_contrastive or cosine_regression", "supervised_contrastive")
    assert found["data.max_length"][1:3] == ("integer ≥ 8", "null")
    assert found["name"].default == "required"


def test_knob_of_a_sweep_in_words() -> None:
    found = {knob.name: knob for knob in knobs(SweepConfig)}
    assert found["sweep.space"].values == "name: axis"
    assert found["sweep.space"].default.startswith("{dae.noise_ratio: {uniform: [0.2, 0.8]}, ")
    assert not [name for name in found if name.startswith("sweep.space.")]
    assert found["sweep.search.points"][1:3] == ("list of knob: value", "[]")
    assert found["sweep.retrain_seeds"][1:3] == ("list of integer", "[]")
    assert found["sweep.halving.keep"][1:3] == ("number > 0, ≤ 1", "0.3333")


def test_catalogue() -> None:
    known = catalogue(SweepConfig)
    assert known.choices == catalogue(Config).choices == {"contrastive.loss": "supervised_contrastive"}
    assert known.mappings == {"sweep.space": Axis}
    assert catalogue(Config).mappings == {}
    assert "sweep.search" in known.sections
    assert "sweep.search" not in catalogue(Config).sections
    members = {name: knob.member for name, knob in known.knobs.items() if knob.member}
    assert members == {"contrastive.loss.temperature": "supervised_contrastive", "contrastive.loss.pairs": "cosine_regression"}


def test_the_table_has_a_line_for_each_knob_and_section() -> None:
    lines = table(SweepConfig).splitlines()
    assert len(lines) == 2 + len(catalogue(SweepConfig).knobs) + len(catalogue(SweepConfig).sections)
    assert {line.count("|") for line in lines} == {5}
    assert set(table(Config).splitlines()) < set(lines)
