import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from tests.unit import pages, reported
from tests.unit.pages import Page, plain
from threephase_ray import reports
from threephase_ray.errors import ConfigError
from threephase_ray.evidence.calibration import calibration
from threephase_ray.imbalance import corrected_sizes
from threephase_ray.reports import asking, judging, maps, words
from threephase_ray.results import Store


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return reported.run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(kept: Store) -> Page:
    return pages.check(reports.run(kept, "mine"))


def results(kept: Store, name: str = "mine") -> dict[str, Any]:
    return kept.read_json(f"runs/{name}/results.json")


def change(kept: Store, name: str, changes: dict[str, Any]) -> None:
    """A run of another name with other results, and no maps, which take a while."""
    for file in ("config.yaml", "predictions.parquet", "baseline_predictions.parquet"):
        kept.storage.write(f"runs/{name}/{file}", kept.storage.read(f"runs/mine/{file}"))
    changed = results(kept) | {"probes": []} | changes
    kept.write_json(f"runs/{name}/results.json", {key: value for key, value in changed.items() if value is not ...})


def test_sections_come_in_order(page: Page) -> None:
    expected = ["Phases", "Embeddings", "Test split", "Worst errors", "Calibration", "Data", "Configuration", "Run it again"]
    assert [title for level, title in page.headings if level == 2] == expected


def test_headline_is_the_test_figure_and_the_comparison(page: Page, kept: Store) -> None:
    test = results(kept)["test"]
    assert f"{plain(words.percent(test['accuracy']))}of 160 test texts" in page.text
    assert f"interval {plain(words.percent(test['accuracy_interval'][0]))} to" in page.text
    assert "Better than plain fine-tuning." in page.text


@pytest.mark.parametrize(("ours", "theirs", "said"), [(0.6, 0.9, "Worse than"), (0.85, 0.85, "Not told apart from")])
def test_headline_does_not_flatter(ours: float, theirs: float, said: str, kept: Store) -> None:
    table = pq.read_table(kept.place("runs/mine/predictions.parquet"))
    rng = np.random.default_rng(0)
    names = sorted(set(table["label"].to_pylist()))
    change(kept, "honest", {})
    for file, skill in (("predictions", ours), ("baseline_predictions", theirs)):
        guesses = [label if rng.random() < skill else str(rng.choice(names)) for label in table["label"].to_pylist()]
        columns = {name: table[name] for name in ("row", "label", "probabilities")} | {"predicted": guesses}
        reported.parquet(kept, f"runs/honest/{file}.parquet", columns)
    assert f"{said} plain fine-tuning." in pages.check(reports.run(kept, "honest")).text


def test_class_table_equals_scikit_learn(page: Page, kept: Store) -> None:
    table = pq.read_table(kept.place("runs/mine/predictions.parquet")).to_pydict()
    names = results(kept)["test"]["per_class"]["names"]
    each = precision_recall_fscore_support(table["label"], table["predicted"], labels=names, zero_division=0)
    shown = {row[0]: row[1:] for row in page.rows if len(row) == 5 and row[0] in names and "%" in row[1]}
    for k, name in enumerate(names):
        assert shown[name] == [*(plain(words.percent(each[i][k])) for i in range(3)), str(each[3][k])]
    assert accuracy_score(table["label"], table["predicted"]) == pytest.approx(results(kept)["test"]["accuracy"])


def test_confusion_counts_are_those_of_the_results(page: Page, kept: Store) -> None:
    test = results(kept)["test"]
    heading = next(row for row in page.rows if row[0] == "true \\ said")
    order = [test["per_class"]["names"].index(name) for name in heading[1:]]
    counts = np.array(test["confusion"])[np.ix_(order, order)]
    start = page.rows.index(heading) + 1
    assert [[int(cell) for cell in row[1:]] for row in page.rows[start : start + len(order)]] == counts.tolist()


def test_many_classes_give_pairs_instead_of_a_matrix(kept: Store) -> None:
    names, rng = [f"class {k}" for k in range(40)], np.random.default_rng(0)
    truth = np.repeat(np.arange(40), 5)
    change(kept, "many", {"test": reported.scored(truth, np.where(rng.random(200) < 0.9, truth, (truth + 1) % 40), names)})
    page = pages.check(reports.run(kept, "many"))
    assert not any(row[0] == "true \\ said" for row in page.rows)
    pairs = [row for row in page.rows if len(row) == 4 and row[0].startswith("class ")]
    assert pairs
    assert all(int(said[6:]) == (int(true[6:]) + 1) % 40 for true, said, *_ in pairs)


def test_worst_errors_come_with_their_texts(page: Page, kept: Store) -> None:
    table = pq.read_table(kept.place("runs/mine/predictions.parquet")).to_pylist()
    wrong = [row for row in table if row["label"] != row["predicted"]]
    worst = max(wrong, key=lambda row: max(row["probabilities"]))
    start = page.rows.index(next(row for row in page.rows if row[:3] == ["true", "said", "confidence"]))
    truth, said, _, text, number = page.rows[start + 1]
    assert (truth, said, number.replace(",", "")) == (worst["label"], worst["predicted"], str(worst["row"]))
    source = reported.rows(160, 2)[worst["row"]][0]
    assert text.replace("##", "").replace(" ", "") == source.replace(" ", "")  # this tokenizer sets pieces and signs apart


def test_names_and_texts_of_users_stay_text(page: Page, kept: Store) -> None:
    for label in reported.LABELS:
        assert label in page.text  # also what looks like a template or a script
    assert "49" not in page.row("{{ 7 * 7 }}")[0]
    assert "< b > &" in page.text
    assert "<script" not in reports.run(kept, "mine")


def test_class_sizes_are_those_before_and_after_the_correction(page: Page, kept: Store) -> None:
    facts = json.loads((Path(results(kept)["data"]["folder"]) / "dataset.json").read_text())
    before = np.array(facts["splits"]["train"]["class_counts"][: facts["num_classes"]])
    after = corrected_sizes(before, 1.5, 4.0)
    heading = next(row for row in page.rows if row[1:3] == ["training rows", "corrected"])
    start = page.rows.index(heading) + 1
    shown = {row[0]: (int(row[1]), int(row[2])) for row in page.rows[start : start + len(before)]}
    assert shown == {name: (before[k], after[k]) for k, name in enumerate(facts["label_names"][0][: len(before)])}


def test_curves_show_every_figure_and_the_best_step(page: Page) -> None:
    labels = [str(svg.get("aria-label")) for svg in page.of("svg")]
    for name in ("Loss of dae", "Token accuracy of dae on validation", "Neighbour accuracy of contrastive on validation"):
        assert name in labels
    assert [label for label in labels if label.startswith("Macro F1 of")] == [
        f"Macro F1 of {name} on validation" for name in ("finetune", "baseline")
    ]
    assert page.text.count("120, best at 108") == 4
    assert sum("best" in str(path.get("class")) for path in page.of("path")) == 10


def test_maps_come_with_their_figures(page: Page) -> None:
    maps_ = [str(svg["aria-label"]) for svg in page.of("svg") if str(svg.get("aria-label")).startswith("Map of 60")]
    assert [each.rpartition(", ")[2] for each in maps_] == ["before any phase", "after dae", "after contrastive", "after finetune"]
    assert page.row("after dae")[1:] == ["60.0 %", "60.0 %", words.NONE]


def test_differences_from_the_defaults_are_listed(page: Page) -> None:
    assert page.row("dae.steps")[1:3] == ["3", "null"]
    assert not any(row and row[0] in ("dae.noise_ratio", "store", "name") for row in page.rows)


def test_calibration_error_is_that_of_studies(kept: Store) -> None:
    made = judging.predictions(pq.read_table(kept.place("runs/mine/predictions.parquet")))
    names = results(kept)["test"]["per_class"]["names"]
    truth = np.array([names.index(label) for label in made.truth])
    assert judging.calibration_error(judging.bins(made)) == pytest.approx(calibration(truth, made.probabilities[None]).error, abs=1e-6)


def test_calibration_before_and_after_the_temperature_is_shown(page: Page, kept: Store) -> None:
    assert "logits divided by the temperature 1.750" in page.text
    before, after = ("0.500", "25.0 %"), ("0.375", "12.5 %")
    figures = [before[0], after[0], before[1], after[1]]
    found = [row for row in page.rows if row[2:] == figures]
    assert [row[1] for row in found] == ["validation", "test"] * 2
    none = results(kept)["test"] | {"calibration": reported.calibration("test", 160) | {"temperature": 1.0, "reason": "a reason"}}
    change(kept, "uncalibrated", {"test": none})
    assert "as they came from training, for a reason." in pages.check(reports.run(kept, "uncalibrated")).text


def test_clusters_stay_together_on_a_map() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 90)
    places = maps.flat((8 * np.eye(3, 20)[kinds] + rng.normal(size=(90, 20))).astype(np.float32))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(90)
    assert (kinds[apart.argmin(axis=1)] == kinds).mean() > 0.97
    assert not maps.flat(np.ones((20, 4), dtype=np.float32)).any()  # collapsed embeddings are one point


@pytest.mark.parametrize("missing", ["baseline_test", "test", "goodput"])
def test_a_run_without_a_part_has_a_page_without_it(missing: str, kept: Store) -> None:
    gone = {missing: ..., **({"baseline": None} if missing == "baseline_test" else {})}
    change(kept, "partial", gone | ({"baseline_test": ...} if missing == "test" else {}))
    page = pages.check(reports.run(kept, "partial"))
    said = {"baseline_test": "this run has no baseline", "test": "ends without a classifier", "goodput": ""}[missing]
    assert said in page.text
    assert "Embeddings" not in {title for _, title in page.headings}


def test_files_that_are_gone_leave_the_rest(tmp_path: Path) -> None:
    kept = reported.run(tmp_path, count=40)
    for gone in ("data", "phases", "probes", "runs/mine/predictions.parquet", "runs/mine/config.yaml"):
        kept.storage.remove(gone)
    page = pages.check(reports.run(kept, "mine"))
    assert plain(words.percent(results(kept)["test"]["accuracy"])) in page.text
    assert "the rows cannot be compared" in page.text


def test_a_run_that_predicts_validation_says_so(tmp_path: Path) -> None:
    kept = reported.run(tmp_path, baseline=False, split="validation")
    kept.storage.remove("probes")
    page = pages.check(reports.run(kept, "mine"))
    assert "of 60 validation texts" in page.text
    assert "The test split stays unread" in page.text


def test_command_writes_page_and_tables(kept: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    change(kept, "asked", {})
    assert asking.main(["--store", kept.storage.uri, "--run", "asked"]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(path).name for path in written] == ["report.html", "table.md", "table.tex", "table.csv"]
    assert all(Path(path).stat().st_size for path in written)
    output = tmp_path / "page.html"
    assert asking.main(["--store", kept.storage.uri, "--run", "asked", "--output", str(output)]) == 0
    assert output.read_text(encoding="utf-8") == Path(written[0]).read_text(encoding="utf-8")


def test_wrong_names_are_refused_with_the_nearest(kept: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert asking.main(["--store", kept.storage.uri, "--run", "mnie"]) == 2
    assert "did you mean mine?" in capsys.readouterr().err
    assert asking.main(["--store", kept.storage.uri, "--study", "mine"]) == 2
    assert "there are no studies" in capsys.readouterr().err
    assert asking.main(["--store", str(tmp_path / "nowhere"), "--run", "mine"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        asking.main(["--store", kept.storage.uri])
    assert refused.value.code == 2


def test_a_run_under_way_is_refused(kept: Store) -> None:
    kept.storage.write("runs/begun/config.yaml", b"name: begun\n")
    with pytest.raises(ConfigError, match="has no results"):
        reports.run(kept, "begun")


def test_a_page_is_quick(kept: Store) -> None:
    before = time.process_time()
    reports.run(kept, "mine")
    assert time.process_time() - before < 5
