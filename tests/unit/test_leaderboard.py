import io
import time
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from threephase_ray import console
from threephase_ray.sweeps import leaderboard
from threephase_ray.sweeps.trial import Mark, Status, Trial

AXES = ("dae.noise_ratio", "contrastive.loss.temperature", "contrastive.imbalance.max_ratio")
SIX = (*AXES, "contrastive.loss.name", "contrastive.learning_rate", "finetune.learning_rate")


def trial(number: int, score: float | None = None, status: Status = "done", progress: int | None = None, **rest: Any) -> Trial:
    """A trial; `progress`: of its last mark."""
    phase = ("dae", "contrastive", "finetune")[0 if progress is None else (progress - 1) // 100]
    marks = [] if progress is None else [Mark(progress, phase, 0.5)]
    point = {"dae.noise_ratio": 0.6, "contrastive.loss.temperature": 0.123456, "contrastive.imbalance.max_ratio": 4 + number}
    return Trial(**{"number": number, "point": point, "status": status, "score": score, "marks": marks, **rest})


def printed(table: Table, width: int = 100) -> list[str]:
    """The lines of a table, without spaces at their ends."""
    Console(file=(shown := io.StringIO()), width=width).print(table)
    return [line.rstrip() for line in shown.getvalue().splitlines() if line.strip()]


def rows(table: Table, width: int = 100) -> list[list[str]]:
    """The words of the lines below the rule and above the caption."""
    lines = printed(table, width)
    start = next(i for i, line in enumerate(lines) if "─" in line)
    return [line.split() for line in lines[start + 1 : -2]]


def on_screen(monkeypatch: pytest.MonkeyPatch, **how: Any) -> io.StringIO:
    """What the board prints."""
    shown = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=shown, markup=False, emoji=False, **how))
    return shown


def test_best_first_and_those_under_way_below() -> None:
    trials = [
        trial(0, status="waiting"),
        trial(1, status="running", progress=234, cost=12.4),
        trial(2, 0.81236, probe=0.75, cost=99.6, reused=["dae"]),
        trial(3, status="failed", progress=40),
        trial(4, status="stopped", progress=150, probe=0.5),
        trial(5, 0.9, reused=["dae", "contrastive"]),
    ]
    assert rows(leaderboard.table(trials, "accuracy", AXES)) == [
        ["1", "5", "0.6", "0.1235", "9", "0.9000", "done", "0", "dae", "contrast"],
        ["2", "2", "0.6", "0.1235", "6", "0.7500", "0.8124", "done", "100", "dae"],
        ["4", "0.6", "0.1235", "8", "0.5000", "stopped", "contrast", "50%", "0"],
        ["3", "0.6", "0.1235", "7", "failed", "dae", "40%", "0"],
        ["1", "0.6", "0.1235", "5", "running", "finetune", "34%", "12"],
        ["0", "0.6", "0.1235", "4", "waiting", "0"],
    ]


def test_caption_counts() -> None:
    trials = [trial(0, 0.5), trial(1, 0.75), trial(2, status="running"), trial(3, status="waiting")]
    lines = printed(leaderboard.table(trials, "macro_f1", AXES, total=27))
    assert lines[-2:] == [
        "best 0.7500 (trial 1); 2 done, 1 running, 1 waiting, of 27 trials",
        "score: macro_f1 on validation; cost: worker seconds",
    ]
    assert printed(leaderboard.table([], "accuracy", AXES))[-2] == "no trial yet"


@pytest.mark.parametrize(
    ("ended", "going", "limit", "shown"),
    [
        (20, 20, 12, (8, 4)),
        (20, 2, 12, (10, 2)),
        (3, 20, 12, (3, 9)),
        (20, 0, 12, (12, 0)),
        (20, 20, None, (20, 20)),
        (0, 0, 12, (0, 0)),
    ],
)
def test_some_rows_are_kept_for_trials_under_way(ended: int, going: int, limit: int | None, shown: tuple[int, int]) -> None:
    trials = [trial(i, 0.5) for i in range(ended)] + [trial(ended + i, status="waiting") for i in range(going)]
    words = [row[-2] for row in rows(leaderboard.table(trials, "accuracy", AXES, limit))]
    assert (words.count("done"), words.count("waiting")) == shown


def test_seeds_of_a_point_share_a_rank() -> None:
    trials = [trial(i, 0.5 + i / 10, point={"a": i // 2, "seed": i % 2}) for i in range(4)]
    table = leaderboard.table(trials, "accuracy", ("a", "seed"))
    assert [row[:2] for row in rows(table)] == [["1", "3"], ["1", "2"], ["2", "1"], ["2", "0"]]
    assert printed(table)[-2].startswith("best 0.7500 (trial 2, mean of 2 seeds); 4 done")


def wide(number: int, **point: Any) -> Trial:
    """A trial with long words, of every status."""
    status, progress = (("done", None), ("stopped", 150), ("running", 299), ("waiting", None))[number % 4]
    score = 0.5 if status == "done" else None
    known = trial(number, score, status, progress, probe=0.4, cost=12345.6, reused=["dae", "contrastive"])
    known.point.update(point)
    return known


def test_a_table_of_three_knobs_fits_100_columns_with_a_line_each() -> None:
    trials = [wide(number) for number in range(100, 140)]
    lines = printed(leaderboard.table(trials, "accuracy", AXES))
    assert len(lines) == 2 + 1 + leaderboard.LIMIT + 2
    assert not [line for line in lines if "…" in line]


def test_a_table_of_six_knobs_fits_100_columns_with_all_numbers() -> None:
    point = dict.fromkeys(SIX, 1.23456e-5) | {"contrastive.loss.name": "supervised_contrastive"}
    lines = printed(leaderboard.table([wide(number, **point) for number in range(100, 140)], "accuracy", SIX))
    assert max(map(len, lines)) <= 100
    firsts = [line for line in lines if "12346" in line]
    assert len(firsts) == leaderboard.LIMIT
    assert all(line.count("1.235e-5") == 5 and line.count("0.4000") == 1 for line in firsts)
    assert sum(line.count("0.5000") for line in firsts) == 8


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        (AXES, ["noise_ratio", "temperature", "max_ratio"]),
        (("dae.steps", "finetune.steps", "seed"), ["dae.steps", "finetune.steps", "seed"]),
        (("contrastive.loss.name", "encoder.path", "dae.noise"), ["loss.name", "encoder.path", "noise"]),
        (("seed", "data.seed"), ["seed", "data.seed"]),
        (("configs",), ["configs"]),
    ],
)
def test_short_names(axes: tuple[str, ...], names: list[str]) -> None:
    short = leaderboard.short_names(axes)
    assert list(short.values()) == names
    assert list(short) == list(axes)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (2e-5, "2e-5"),
        (1.23456e-4, "1.235e-4"),
        (1234.56, "1235"),
        (123456.7, "123457"),
        (12345678, "1.235e7"),
        (-0.5, "-0.5"),
        (4.0, "4"),
        (0, "0"),
        (100000, "100000"),
        (True, "yes"),
        (False, "no"),
        (None, "none"),
        ("mlp", "mlp"),
        ("supervised_contrastive", "supervised_contra…"),
        ("jobs/configs/small.yaml", "small"),
        ("/models/bert", "bert"),
        (("dae", "finetune"), "dae+finetune"),
    ],
)
def test_short_values(value: Any, text: str) -> None:
    assert leaderboard.short(value) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (trial(0, 0.5, progress=300), "done"),
        (trial(0, status="waiting"), "waiting"),
        (trial(0, status="running", progress=1), "running dae  1%"),
        (trial(0, status="stopped", progress=200), "stopped contrast 100%"),
        (trial(0, status="paused", progress=201), "paused finetune  1%"),
    ],
)
def test_where_a_trial_stands(given: Trial, text: str) -> None:
    assert leaderboard.stand(given) == text


def test_values_with_brackets_stay_as_they_are() -> None:
    table = leaderboard.table([trial(0, 0.5, point={"encoder.path": "[red]ink:heart:"})], "accuracy", ("encoder.path",))
    assert "[red]ink:heart:" in "\n".join(printed(table))


def test_without_a_terminal_each_trial_that_ended_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch, width=100)
    trials = [trial(0, status="running"), trial(1, status="waiting")]
    with leaderboard.Board([], "accuracy", AXES, total=2) as board:
        board.update(trials)
        assert screen.getvalue() == ""
        trials[1] = trial(1, status="stopped", progress=200, probe=0.5, reason="probe among the worse half\nmore", cost=10, alone=20)
        board.update(trials)
        board.update(trials)
        trials[0] = trial(0, 0.875, cost=30, alone=30)
        board.update(trials)
        lines = screen.getvalue().splitlines()
    assert lines == [
        "trial 1 stopped contrast 100%: noise_ratio 0.6 temperature 0.1235 max_ratio 5  probe 0.5000  probe among the worse half  1 of 2",
        "trial 0 done: noise_ratio 0.6 temperature 0.1235 max_ratio 4  accuracy 0.8750  best 0.8750 (trial 0)  2 of 2",
    ]
    after = [line.rstrip() for line in screen.getvalue().splitlines()[2:]]
    assert "best 0.8750 (trial 0); 1 done, 1 stopped, of 2 trials" in after
    assert after[-1] == "0 phases trained for 0 trials; 0 reused: 40 worker seconds instead of 50 (1.2 times cheaper)"


def test_the_whole_table_comes_at_the_end_even_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch, width=100)

    def fail() -> None:
        with leaderboard.Board([], "accuracy", AXES) as board:
            board.update([trial(number, 0.5) for number in range(30)])
            raise RuntimeError("the cluster is gone")

    with pytest.raises(RuntimeError, match="gone"):
        fail()
    assert screen.getvalue().count("0.5000  done") == 30


def test_trials_of_an_earlier_call_are_counted_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch, width=100)
    before = [trial(0, 0.5), trial(1, status="failed"), trial(2, status="running")]
    with leaderboard.Board(before, "accuracy", AXES, total=3) as board:
        board.update(before)
        assert screen.getvalue() == "2 trials ended in an earlier call\n"
        board.update([*before[:2], trial(2, 0.25)])
        assert screen.getvalue().splitlines()[1:] == [
            "trial 2 done: noise_ratio 0.6 temperature 0.1235 max_ratio 6  accuracy 0.2500  best 0.5000 (trial 0)  3 of 3"
        ]


def test_nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch, width=100)
    with leaderboard.Board([], "accuracy", AXES):
        pass
    assert screen.getvalue() == ""


def test_a_terminal_shows_the_table_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = on_screen(monkeypatch, width=100, height=40, force_terminal=True)
    with leaderboard.Board([], "accuracy", AXES, total=200) as board:
        start = time.monotonic()
        for count in range(1, 201):
            board.update([trial(number, number / 1000) for number in range(count)])
        seconds = time.monotonic() - start
    frames = screen.getvalue().split("temperature")[1:]
    assert 2 <= len(frames) <= 3 + 2 * seconds  # the first, the last, and those between them
    assert "best 0.1990 (trial 199); 200 done, of 200 trials" in frames[-1]
    assert frames[-1].count(" done ") == leaderboard.LIMIT
    assert frames[-1].rstrip().endswith("0 reused: 0 worker seconds instead of 0")
