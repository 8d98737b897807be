import subprocess
import sys

import pytest
from markupsafe import Markup

from tests.conftest import ROOT
from tests.unit import pages
from threephase_ray.command import read
from threephase_ray.reports import charts, settings, svg, tables, words
from threephase_ray.reports.charts import Axis, Series
from threephase_ray.reports.svg import Scale
from threephase_ray.reports.tables import Cell, Table


def test_text_and_attributes_of_an_element_are_escaped() -> None:
    made = svg.tag("text", "<b>", aria_label='"x" & <y>', x=1.23456)
    assert made == Markup('<text aria-label="&#34;x&#34; &amp; &lt;y&gt;" x="1.23">&lt;b&gt;</text>')


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0.0, 1.0, False), (0.9, 0.93, False), (-3.2, 11.0, False), (1e-5, 1e-1, True), (5.0, 5.0, False)]
)
def test_ticks_are_within_the_scale_and_in_order(low: float, high: float, log: bool) -> None:
    scale = Scale(low, high, 10.0, 110.0, log)
    places = [scale.at(tick) for tick in scale.ticks()]
    assert places == sorted(places)
    assert all(10 - 1e-6 <= place <= 110 + 1e-6 for place in places)
    assert len(places) >= (2 if high > low else 1)


def test_points_stay_inside_the_picture() -> None:
    points = [(float(x), 0.5 + (x % 7) / 20) for x in range(5000)]
    made = charts.lines([Series("a", points), Series("b", points[:1], 1, dots=True)], Axis("step"), Axis("score", share=True), "A caption")
    page = pages.read(str(made.svg))
    numbers = [
        float(part) for path in page.of("path") for part in str(path["d"]).replace("M", " ").replace("L", " ").replace("Z", " ").split()
    ]
    assert all(-8 <= number <= charts.WIDTH + 8 for number in numbers)
    assert max(str(path["d"]).count("L") for path in page.of("path")) <= charts.MOST
    assert page.of("svg")[0]["aria-label"] == "A caption"


def test_smoothing_keeps_a_line_and_calms_noise() -> None:
    line = [(float(x), 2.0 * x) for x in range(100)]
    assert charts.smoothed(line)[50] == pytest.approx((50.0, 100.0))
    assert charts.smoothed([(0.0, 1.0)]) == [(0.0, 1.0)]
    zigzag = [y for _, y in charts.smoothed([(float(x), float(x % 2)) for x in range(100)])]
    assert max(zigzag) - min(zigzag) < 0.3


def test_marks_differ_in_shape_not_in_colour_alone() -> None:
    drawn = {str(svg.mark(look, 0, 0, 5, "c0")) for look in range(len(svg.SHAPES))}
    assert len(drawn) == len(svg.SHAPES) == charts.COLOURS


def test_tables_escape_what_their_language_would_obey() -> None:
    table = Table(
        "A & B", ["a|b", "50 %_x"], [[Cell("=SUM(A1)"), Cell("1.0", 1.0, True, "~$^{}\\")], [Cell("<i>"), Cell("\N{MINUS SIGN}2", -2.0)]]
    )
    assert tables.markdown(table).splitlines()[2:] == [
        "| a\\|b | 50 %\\_x |",
        "| :-- | --: |",
        "| =SUM(A1) | **1.0** (\\~\\$^{}\\\\) |",
        "| \\<i\\> | \N{MINUS SIGN}2 |",
    ]
    latex = tables.latex(table)
    assert r"\caption{A \& B.}" in latex
    assert r"a\textbar{}b & 50 \%\_x \\" in latex
    assert r"\textbf{1.0} {\footnotesize (\textasciitilde{}\$\textasciicircum{}\{\}\textbackslash{})} \\" in latex
    assert tables.comma_separated(table).splitlines() == ["a|b,50 %_x", "'=SUM(A1),1.0", "<i>,-2.0"]


def test_figures_in_words() -> None:
    space = "\N{NARROW NO-BREAK SPACE}"
    assert [words.seconds(value) for value in (None, 3.21, 75, 600, 7200)] == [
        words.NONE,
        f"3.2{space}s",
        f"75{space}s",
        f"10.0{space}min",
        f"2.0{space}h",
    ]
    assert [words.points(value) for value in (0.0123, -0.0123, 0.0, -0.0001, None)] == [
        "+1.2",
        "\N{MINUS SIGN}1.2",
        "0.0",
        "0.0",
        words.NONE,
    ]
    assert [words.chance(value) for value in (0.0001, 0.0123, 0.5)] == ["< 0.001", "0.012", "0.50"]
    assert [words.large(value) for value in (999, 12_000, 22_700_000, 7e9)] == ["999", "12,000", "22.7 million", "7.0 billion"]
    assert [words.count(number, "text") for number in (1, 1200)] == ["1 text", "1,200 texts"]


def test_a_configuration_of_defaults_differs_in_what_is_required_alone() -> None:
    config = read([], ["--name", "a", "--data.train", "x.csv", "--encoder.path", "e"]).model_dump(mode="json")
    assert [name for name, *_ in settings.differences(config)] == ["data.train", "encoder.path"]
    config["dae"]["noise_ratio"] = 0.4
    assert ("dae.noise_ratio", "0.4", "0.6") in [row[:3] for row in settings.differences(config)]


def test_the_command_starts_without_what_it_may_not_need() -> None:
    program = (
        "import sys, threephase_ray.reports.asking; print(*{'torch', 'ray', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
