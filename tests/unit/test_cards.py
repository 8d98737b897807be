"""Model cards: what hubs and readers of Markdown make of them, whatever labels and files are called."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tests.unit import reported
from threephase_ray.reports import cards, reading, words
from threephase_ray.results import Store


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a run whose labels need escaping."""
    return reported.run(tmp_path_factory.mktemp("cards"))


def made(kept: Store, kind: str = "classifier", base: str = "", gone: str = "", checks: Any = None, **changes: Any) -> str:
    """The run's card without a part of its results; `changes` are sections of results or configuration, whose values win."""
    results = kept.read_json("runs/mine/results.json")
    config = reading.yaml(kept.storage.read("runs/mine/config.yaml"))
    facts = json.loads((Path(results["data"]["folder"]) / "dataset.json").read_text())
    for name, change in changes.items():
        place = config if name in config else results
        place[name] = place[name] | change if isinstance(place.get(name), dict) else change
    results.pop(gone, None)
    results["data"]["checks"] |= checks or {}
    return cards.card(kind, "transformers", results, facts, config, base)


def rows(card: str) -> list[list[str]]:
    """The cells of all tables, as a reader of Markdown shows them."""
    found: list[list[str]] = []
    cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text):
        assert token.type != "html_block"
        if token.type == "tr_open":
            found.append([])
        elif token.type in ("th_open", "td_open", "th_close", "td_close"):
            cell = token.nesting == 1
        elif cell:
            assert {each.type for each in token.children} <= {"text", "code_inline"}
            found[-1].append("".join(each.content for each in token.children))
    return found


def test_labels_stay_what_they_are_in_tables_of_as_many_columns(kept: Store) -> None:
    test = kept.read_json("runs/mine/results.json")["test"]
    shown = {row[0]: row[1:] for row in rows(made(kept)) if len(row) == 6}
    assert set(reported.LABELS) <= shown.keys()
    for k, name in enumerate(test["per_class"]["names"]):
        each = [words.percent(test["per_class"][figure][k]) for figure in ("precision", "recall", "f1")]
        assert shown[name][1:] == [*each, str(test["per_class"]["support"][k])]
    assert set(reported.LABELS) <= {row[0] for row in rows(made(kept, "encoder")) if len(row) == 2}


def test_hubs_read_the_front_matter(kept: Store) -> None:
    results = kept.read_json("runs/mine/results.json")
    found = ModelCard(made(kept, base="---\nlicense: apache-2.0\n---\n# Base", encoder={"path": "some/base-model"})).data
    assert (found.library_name, found.pipeline_tag, found.license) == ("transformers", "text-classification", "apache-2.0")
    assert found.base_model == "some/base-model"
    assert {each.metric_name or each.metric_type: each.metric_value for each in found.eval_results} == {
        "accuracy": results["test"]["accuracy"],
        "macro F1": results["test"]["macro_f1"],
    }
    assert {each.dataset_split for each in found.eval_results} == {"test"}
    plain = ModelCard(made(kept, "encoder", encoder={"path": "demo:all-minilm-l6-v2"})).data.to_dict()
    assert plain["pipeline_tag"] == "feature-extraction"
    assert not {"license", "base_model", "model-index"} & plain.keys()


def test_names_of_files_break_nothing_and_do_not_tell_where_they_were(kept: Store) -> None:
    name = "a: [b]\n---\n| no `x` <b>"
    card = made(kept, data={"source": f"/home/somebody/{name}"}, encoder={"path": "/home/somebody/yes"})
    assert ModelCard(card).data.eval_results[0].dataset_name == name
    assert rows(card) == rows(made(kept))
    assert "base_model" not in ModelCard(card).data.to_dict()
    assert "somebody" not in card


def test_with_a_baseline_both_are_shown_and_without_it_is_said(kept: Store) -> None:
    results = kept.read_json("runs/mine/results.json")
    figures = [row[1] for row in rows(made(kept)) if row[0] in ("this classifier", "plain fine-tuning of the base model")]
    assert figures == [words.percent(results[split]["accuracy"]) for split in ("test", "baseline_test")]
    alone = made(kept, gone="baseline_test")
    assert "is not compared with anything" in alone
    assert "is not compared with anything" not in made(kept)


def test_limits_are_told(kept: Store) -> None:
    assert "1 label has fewer than 10 training texts" in made(kept)
    assert "not read" not in made(kept)
    assert "What the checks found: nothing." in made(kept)
    doubtful = {kind: {"policy": "keep", "count": 3, "unit": unit} for kind, unit in (("duplicate", "rows"), ("overlap", "texts"))}
    assert "What the checks found: duplicate 3 rows (keep), overlap 3 texts (keep)." in made(kept, checks=doubtful)
    unread = made(kept, validation=kept.read_json("runs/mine/results.json")["test"], predict="validation")
    assert "The test split was not read" in unread
    assert "Figures on the validation split" in unread


def test_calibration_is_told_or_why_there_is_none(kept: Store) -> None:
    card = made(kept)
    assert "divided by the temperature 1.750" in card
    assert ["validation", "60", "0.500", "0.375", "25.0", "12.5"] in [
        [cell.split("\N{NARROW NO-BREAK SPACE}")[0] for cell in row] for row in rows(card)
    ]
    none = reported.calibration("test", 160) | {"temperature": 1.0, "reason": "there were no errors"}
    assert "as they came from training: there were no errors." in made(kept, test={"calibration": none})


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n# Model", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("", None),
        ("# Model\nlicense: mit", None),
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [mit\n---\n", None),  # no YAML
        ("---\n- license\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
    ],
)
def test_the_licence_is_what_the_base_models_card_states(text: str, stated: str | None) -> None:
    assert cards.licence(text) == stated
