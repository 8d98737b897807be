import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit import pages, reported_studies
from tests.unit.pages import Page
from tests.unit.reported import EVIL
from tests.unit.reported_studies import ARMS
from threephase_ray import reports
from threephase_ray.reports import studies
from threephase_ray.results import Store


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("studies")
    reported_studies.sweep(folder)
    reported_studies.study(folder, "single", {}, seeds=1)
    return reported_studies.study(folder)


@pytest.fixture(scope="module")
def page(kept: Store) -> Page:
    return pages.check(reports.study(kept, "compare"))


def test_sections_of_a_study(page: Page) -> None:
    expected = [
        "Main table",
        f"Differences from {ARMS[0]}",
        "Along the axes",
        "Classes",
        "Calibration",
        "Cost",
        "Embeddings",
        "Failed",
        "Runs",
    ]
    assert [title for level, title in page.headings if level == 2] == expected
    assert f"Does it pay {EVIL}?" in page.text


def test_main_table_has_mean_interval_and_verdict(page: Page, kept: Store) -> None:
    found = kept.read_json("studies/compare/results.json")
    cell = found["cells"][3]
    row = page.row(studies.place(cell))
    for arm, shown in zip(ARMS, row[1:4], strict=True):
        each = cell["arms"][arm]["accuracy"]
        versus = next((one for one in cell["comparisons"] if (one["arm"], one["metric"]) == (arm, "accuracy")), None)
        sign = {"win": " \N{UPWARDS ARROW}", "tie": " =", "loss": " \N{DOWNWARDS ARROW}"}[versus["verdict"]] if versus else ""
        assert shown == f"{100 * each['mean']:.1f}{100 * each['low']:.1f}\N{EN DASH}{100 * each['high']:.1f}{sign}"


def test_every_comparison_is_drawn_and_listed(page: Page, kept: Store) -> None:
    found = kept.read_json("studies/compare/results.json")
    count = sum(len(cell["comparisons"]) for cell in found["cells"])
    assert count == 24
    assert sum("reach" in str(path.get("class")) for path in page.of("path")) == count + 3 * 2 * 6  # and bars over the axis without amounts
    verdicts = [row[-1] for row in page.rows if row and row[-1] in ("▲ win", "= tie", "▼ loss")]
    assert len(verdicts) == count


def test_courses_join_amounts_and_not_names(page: Page) -> None:
    captions = [str(svg.get("aria-label")) for svg in page.of("svg")]
    assert "Accuracy over rows (texts <b> news)" in captions
    assert "Macro F1 over texts <b> (rows all)" in captions
    assert sum("band" in str(path.get("class")) for path in page.of("path")) == 2 * 2 * 3  # metrics, texts, arms


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((3, 0, 0), "better in 3 of 3 cells"),
        ((1, 2, 0), "better in 1 of 3 cells, else not told apart"),
        ((0, 3, 0), "not told apart in any of 3 cells"),
        ((1, 1, 1), "better in 1 and worse in 1 of 3 cells"),
        ((0, 0, 1), "worse"),
        ((0, 1, 0), "not told apart"),
        ((0, 0, 0), "not compared"),
    ],
)
def test_answers_are_plain(counts: tuple[int, int, int], words: str) -> None:
    assert studies.sentence(dict(zip(("win", "tie", "loss"), counts, strict=True))) == words


def test_a_study_of_one_cell_has_a_row_for_each_arm(kept: Store) -> None:
    page = pages.check(reports.study(kept, "single"))
    assert page.row("arm")[1:] == ["accuracy", "macro F1", "seeds"]
    assert "Along the axes" not in {title for _, title in page.headings}


def test_failed_runs_are_named(page: Page) -> None:
    assert [ARMS[1], "rows 10, texts <b> news", "2", "out of memory"] in page.rows
    assert "53 of 54" in page.text


def test_table_for_programs_holds_every_figure(kept: Store) -> None:
    reports.write(kept, "studies/compare")
    rows = list(csv.DictReader(io.StringIO(kept.storage.read("studies/compare/table.csv").decode())))
    found = kept.read_json("studies/compare/results.json")
    assert len(rows) == len(found["cells"]) * len(ARMS) * 2
    for row in rows:
        cell = next(cell for cell in found["cells"] if all(row[axis] == level for axis, level in cell["levels"].items()))
        assert float(row["mean"]) == cell["arms"][row["arm"]][row["metric"]]["mean"]
        assert (row["verdict"] == "") == (row["arm"] == ARMS[0])


def test_tables_for_papers(kept: Store) -> None:
    reports.write(kept, "studies/compare")
    markdown, latex = (kept.storage.read(f"studies/compare/table.{kind}").decode() for kind in ("md", "tex"))
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in lines} == {6}
    assert latex.count(r"\begin{tabular}{lrrrr}") == 2
    assert r"cl-ft \& more" in latex
    assert r"texts \textless{}b\textgreater{} news" in latex
    assert all(line.count(" & ") == 4 for line in latex.splitlines() if line.endswith(r"\\"))


def test_latex_compiles(kept: Store, tmp_path: Path) -> None:
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("no pdflatex is installed")
    reports.write(kept, "studies/compare")
    table = kept.storage.read("studies/compare/table.tex").decode()
    text = "\\documentclass{article}\\usepackage{booktabs}\\usepackage[utf8]{inputenc}\\begin{document}" + table + "\\end{document}"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    subprocess.run([program, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_report_of_a_sweep(kept: Store) -> None:
    page, best = pages.check(reports.sweep(kept, "search")), kept.read_json("sweeps/search/results.json")["best"]
    assert [title for level, title in page.headings if level == 2] == [
        "Trials",
        "Knobs",
        "Cost",
        "Test split",
        "Failed",
        "Best configuration",
    ]
    heading = page.row("trial")
    assert heading == ["trial", "status", "dae.noise_ratio", "contrastive.loss.name", "validation accuracy", "worker time", "reused"]
    assert page.rows[page.rows.index(heading) + 1][0] == str(best["trials"][0])
    assert "best accuracy on validation" in page.text
    assert EVIL in page.text  # why a trial failed
    assert page.row("mean")[2:4] == ["81.5 %", "70.0 %"]
    assert len(page.of("img")) == 1


def test_a_sweep_without_a_best_trial(tmp_path: Path) -> None:
    page = pages.check(reports.sweep(reported_studies.sweep(tmp_path, done=0), "search"))
    assert "No trial is done" in page.text
