import itertools
import random
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from threephase_ray.sweeping import Axis
from threephase_ray.sweeps import coordinates
from threephase_ray.sweeps import plots as sweep_plots
from threephase_ray.sweeps.coordinates import scale
from threephase_ray.sweeps.trial import Status, Trial

SCORE = "validation accuracy"
NAMES = ("importance", "parallel", "cost")


@pytest.fixture(autouse=True)
def strict() -> Any:
    """A warning of a plot is a fault of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trial(number: int, score: float | None, status: Status = "done", cost: float = 100.0, **point: Any) -> Trial:
    return Trial(number, {"dae.noise_ratio": number / 10} | point, status=status, score=score, cost=cost)


def searched(count: int) -> list[Trial]:
    """Trials over six knobs of every kind, some of them stopped or failed."""
    draw, trials = random.Random(0), []  # noqa: S311
    for number in range(count):
        point: dict[str, Any] = {
            "dae.noise_ratio": draw.uniform(0.2, 0.8),
            "contrastive.loss.name": draw.choice(["supervised_contrastive", "cosine_regression"]),
            "contrastive.imbalance.stop_word_deletion": draw.choice([0.0, 0.25, 0.5]),
            "contrastive.learning_rate": 10 ** draw.uniform(-5, -3),
            "finetune.learning_rate": 10 ** draw.uniform(-5, -3),
        }
        if point["contrastive.loss.name"] == "supervised_contrastive":
            point["contrastive.loss.temperature"] = 10 ** draw.uniform(-1.5, -0.3)
        status: Status = draw.choice(["done", "done", "done", "stopped", "failed"])
        trials.append(Trial(number, point, status=status, score=draw.random() if status == "done" else None, cost=draw.uniform(50, 150)))
    return trials


def grid(count: int) -> list[Trial]:
    """A grid over three knobs with so many values each."""
    values = itertools.product(range(count), [0.03 * 2**i for i in range(count)], [1.5 * 2**i for i in range(count)])
    return [
        Trial(number, {"a.depth": a, "b.temperature": b, "c.max_ratio": c}, status="done", score=a + b + c / 100, cost=60.0)
        for number, (a, b, c) in enumerate(values)
    ]


def made(trials: list[Trial], importance: dict[str, float] | None = None, **space: Axis) -> dict[str, Figure]:
    """The plots that were drawn, by name."""
    figures = sweep_plots.figures(trials, {} if importance is None else importance, SCORE, space)
    return {name: figure for name, figure in figures.items() if isinstance(figure, Figure)}


def boxes(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Every text on the plot, and where it stands, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = [axis for its in figure.axes for axis in (its.xaxis, its.yaxis)]
    ticks = [(axis.get_view_interval(), tick) for axis in axes for tick in axis.get_major_ticks()]
    beyond = {label for (low, high), tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text() and text not in beyond:
            yield text.get_text(), text.get_window_extent(canvas.get_renderer())


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that touch, and texts that leave the plot."""
    placed = list(boxes(figure))
    pairs = itertools.combinations(placed, 2)
    touching = [(one, other) for (one, first), (other, second) in pairs if Bbox.intersection(first, second) is not None]
    whole = figure.bbox.padded(1.0)
    outside = [(text, "edge") for text, box in placed if not (whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1))]
    return touching + outside


def test_three_plots_are_written(tmp_path: Path) -> None:
    trials, importance = searched(40), {"dae.noise_ratio": 0.75, "finetune.learning_rate": 0.25}
    plots = sweep_plots.draw(trials, importance, "macro_f1", tmp_path / "plots")
    assert plots.files == [tmp_path / "plots" / f"{name}.svg" for name in NAMES]
    assert plots.skipped == []
    texts = {path.stem: " ".join(ElementTree.parse(path).getroot().itertext()) for path in plots.files}  # noqa: S314
    for name, words in {
        "importance": ["What validation macro f1 depends on", "noise_ratio", "0.75", "share of all knobs"],
        "parallel": ["Knobs and validation macro f1", "temperature", "cosine_regression", "stopped or failed", "none"],
        "cost": ["Validation macro f1 against cost", "worker minutes", "best so far", "stopped or failed", "trial"],
    }.items():
        assert not [word for word in words if word not in texts[name]]


def test_the_same_trials_give_the_same_files(tmp_path: Path) -> None:
    first, second = (sweep_plots.draw(searched(20), {"a": 1.0}, "accuracy", tmp_path / name).files for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize(
    ("trials", "files", "reason"),
    [
        pytest.param([], [], "needs 2 trials that are done, and there are 0", id="none"),
        pytest.param([trial(0, 0.5), trial(1, None, "stopped")], [], "needs 2 trials that are done, and there is 1", id="one"),
        pytest.param([Trial(i, {}, status="done", score=0.5) for i in range(2)], ["cost"], "no trial sets a knob", id="no knobs"),
        pytest.param([trial(0, 0.5), trial(1, 0.5, cost=0.0)], ["parallel", "cost"], "too few", id="two alike"),
    ],
)
def test_too_few_trials(trials: list[Trial], files: list[str], reason: str, tmp_path: Path) -> None:
    plots = sweep_plots.draw(trials, {}, "accuracy", tmp_path)
    assert [path.stem for path in plots.files] == files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.svg" for name in files)
    assert len(plots.skipped) == 3 - len(files)
    assert [line for line in plots.skipped if reason in line]


@pytest.mark.parametrize("trials", [grid(5), searched(27)], ids=["grid125", "six27"])
def test_no_text_hides_another(trials: list[Trial]) -> None:
    knobs = {knob: 1.0 for trial in trials for knob in trial.point}
    figures = made(trials, {knob: 1 / len(knobs) for knob in knobs})
    assert set(figures) == set(NAMES)
    assert {name: overlaps(figure) for name, figure in figures.items()} == {name: [] for name in NAMES}


def test_texts_that_overlap_are_noticed() -> None:
    figure = Figure()
    for x in (0.5, 0.51, 0.999):
        figure.text(x, 0.5, f"word at {x}")
    assert overlaps(figure) == [("word at 0.5", "word at 0.51"), ("word at 0.999", "edge")]


def test_each_trial_is_a_line_in_the_colour_of_its_score() -> None:
    trials = [trial(0, 0.9), trial(1, 0.1), trial(2, None, "stopped"), trial(3, None, "failed"), trial(4, None, "running")]
    axes = made(trials)["parallel"].axes[0]
    grey, coloured = (artist for artist in axes.collections if isinstance(artist, LineCollection))
    assert [len(path) for path in grey.get_segments()] == [1, 1]  # they end before the score
    assert [len(path) for path in coloured.get_segments()] == [2, 2]
    np.testing.assert_allclose(coloured.get_colors()[:, :3], [coordinates.COLOURS(x)[:3] for x in (0.0, 1.0)])
    assert list(coloured.get_linewidths()) == [1.0, 2.5]  # the best is last, on top and thick


def test_lines_through_the_same_value_stand_apart() -> None:
    places = coordinates.spread([0.5, 0.5, 0.5, 1.0])
    assert places == pytest.approx([0.48, 0.5, 0.52, 1.0])
    coloured = made(grid(3))["parallel"].axes[0].collections[1]
    assert isinstance(coloured, LineCollection)
    assert len({tuple(path[:, 1]) for path in coloured.get_segments()}) == 27


@pytest.mark.parametrize(
    ("values", "axis", "places", "words"),
    [
        pytest.param([0.2, 0.5, 0.8], None, [0, 0.5, 1], ["0.2", "0.5", "0.8"], id="numbers"),
        pytest.param([0.01, 0.1, 1.0], None, [0, 0.5, 1], ["0.01", "0.1", "1"], id="more than a decade: logarithms"),
        pytest.param([1.0, 2.0, 4.0], Axis(loguniform=(1.0, 4.0)), [0, 0.5, 1], ["1", "2", "4"], id="a logarithmic axis"),
        pytest.param([0.25, 0.5], Axis(uniform=(0.0, 1.0)), [0.25, 0.5], ["0.25", "0.5"], id="bounds of the axis"),
        pytest.param([0, 5, 100], None, [0, 0.05, 1], ["0", "5", "100"], id="no logarithm of 0"),
        pytest.param(["b", "a", "b"], None, [1, 0, 1], ["a", "b"], id="words"),
        pytest.param(["b", "a", "c"], Axis(choice=("c", "b", "x", "a")), [0.5, 1, 0], ["c", "b", "a"], id="words in the order of the axis"),
        pytest.param([True, False], None, [1, 0], ["no", "yes"], id="switches"),
        pytest.param([("dae", "finetune"), ["finetune"]], None, [0, 1], ["dae+finetune", "finetune"], id="lists"),
        pytest.param(["young", 10], None, [0, 1], ["young", "10"], id="several kinds"),
        pytest.param([3, 3], None, [0.5, 0.5], ["3"], id="one value"),
        pytest.param([3, None, 5], None, [0, -0.12, 1], ["none", "3", "5"], id="not always there"),
        pytest.param([1.0, 1.001, 2.0], None, [0, 0.001, 1], ["1", "2"], id="values too near to be written"),
    ],
)
def test_scales(values: list[Any], axis: Axis | None, places: list[float], words: list[str]) -> None:
    its = scale(values, axis)
    assert [its.place(value) for value in values] == pytest.approx(places, abs=1e-9)
    assert [word for _, word in its.ticks(values)] == words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param([0.2 + i / 100 for i in range(61)], ["0.2", "0.4", "0.6", "0.8"], id="linear"),
        pytest.param(
            [10 ** (-4 + i / 10) for i in range(21)], ["1e-4", "2e-4", "5e-4", "0.001", "0.002", "0.005", "0.01"], id="logarithmic"
        ),
        pytest.param(list(range(9)), ["0", "2", "4", "6", "8"], id="whole"),
    ],
)
def test_many_values_get_round_ticks(values: list[float], words: list[str]) -> None:
    assert [word for _, word in scale(values).ticks(values)] == words


def test_cost_adds_up_in_the_order_of_the_trials() -> None:
    trials = [trial(2, 0.9, cost=30), trial(0, 0.5, cost=10), trial(1, None, "stopped", cost=20), trial(3, None, "running", cost=99)]
    axes = made(trials)["cost"].axes[0]
    assert sorted(map(tuple, np.asarray(axes.collections[0].get_offsets()).tolist())) == [(10.0, 0.5), (60.0, 0.9)]
    best = next(line for line in axes.lines if line.get_label() == "best so far")
    assert np.asarray(best.get_xydata()).tolist() == [[10.0, 0.5], [60.0, 0.9], [60.0, 0.9]]
    assert axes.get_xlabel() == "cost of the sweep so far (worker seconds)"
    assert [text.get_text() for text in axes.texts] == ["trial 2: 0.9000"]


def test_seeds_count_as_their_mean_when_the_last_is_done() -> None:
    trials = [trial(number, score, seed=number % 2) for number, score in enumerate([0.9, 0.5, 0.75, 0.77])]
    for member in trials:
        member.point["dae.noise_ratio"] = member.number // 2
    axes = made(trials)["cost"].axes[0]
    best = next(line for line in axes.lines if line.get_label() == "best so far")
    np.testing.assert_allclose(np.asarray(best.get_xydata()), np.array([[200, 0.7], [400, 0.76], [400, 0.76]]) / [60, 1])
    assert [text.get_text() for text in axes.texts] == ["trial 2, mean of 2 seeds: 0.7600"]
    assert re.search("worker minutes", axes.get_xlabel())


def test_importances_are_sorted() -> None:
    axes = made([], {"a.x": 0.2, "a.y": 0.5, "b.z": 0.3})["importance"].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x", "z", "y"]  # from below
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.3, 0.5]
