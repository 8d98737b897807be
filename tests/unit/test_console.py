import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from threephase_ray import console
from threephase_ray.results import Store
from threephase_ray.training import events

VALIDATION: dict[str, Any] = {"event": "validation", "phase": "dae", "step": 2, "steps": 8, "loss": 1.25, "token_accuracy": 0.5}
LINE = "dae: step 2 of 8  validation loss 1.2500  token accuracy 0.5000"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed where there is no terminal."""
    shown = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=shown, width=100, markup=False, emoji=False))
    return shown


def append(path: Path, *events: dict[str, Any], end: str = "\n") -> None:
    """Write events as workers do."""
    with path.open("a") as file:
        file.write("\n".join(json.dumps(event) for event in events) + end)


def tail(path: Path) -> Callable[[], bytes]:
    """What comes after what the file holds now."""
    return events.tail(Store(str(path.parent), "unused"), path.name)


def wait_for(screen: io.StringIO, word: str) -> None:
    """Wait until `word` is shown."""
    deadline = time.monotonic() + 10
    while word not in screen.getvalue():
        assert time.monotonic() < deadline, f"{word} is not in {screen.getvalue()}"
        time.sleep(0.01)


def test_events_are_shown_as_they_come(screen: io.StringIO, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    append(log, {"event": "phase", "phase": "an earlier run"})
    with console.Follower(tail(log)).showing():
        append(log, {"event": "phase", "phase": "dae", "key": "0", "workers": 2})
        wait_for(screen, "dae: phase")
        append(log, VALIDATION)
        wait_for(screen, LINE)
        append(log, {"event": "phase_end", "phase": "dae", "seconds": 3.5, "loss": 1.25})
    assert "dae: phase end  loss 1.2500" in screen.getvalue()  # shown at the end at the latest
    assert "an earlier run" not in screen.getvalue()


def test_half_a_line_waits_for_its_end(screen: io.StringIO, tmp_path: Path) -> None:
    log, text = tmp_path / "events.jsonl", json.dumps(VALIDATION | {"phase": "joint"})
    with console.Follower(tail(log)).showing():
        append(log, {"event": "phase", "phase": "dae"})
        with log.open("a") as file:
            file.write(text[:30])
        wait_for(screen, "dae: phase")
        time.sleep(3 * console._POLL_SECONDS)
        assert "joint" not in screen.getvalue()
        with log.open("a") as file:
            file.write(text[30:] + "\n")
    assert screen.getvalue().count("joint: step 2 of 8") == 1


def test_steps_are_told_now_and_then(screen: io.StringIO, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with console.Follower(tail(log)).showing():
        append(log, *({"event": "step", "phase": "dae", "step": step, "steps": 500, "loss": 0.5} for step in range(1, 501)))
        append(log, VALIDATION | {"step": 500, "steps": 500})
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert lines[0] == "dae: step 1 of 500  loss 0.5000"
    assert lines[-1].startswith("dae: step 500 of 500  validation")
    assert len(lines) == 2


def test_a_terminal_shows_a_bar_for_each_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=shown, width=120, force_terminal=True, markup=False))
    log = tmp_path / "events.jsonl"
    with console.Follower(tail(log)).showing():
        append(log, VALIDATION, {"event": "step", "phase": "dae", "step": 3, "steps": 8, "loss": 0.75})
        append(log, {"event": "step", "phase": "finetune", "step": 5, "steps": 9, "loss": 0.25})
    last = shown.getvalue().split("dae")[-1]
    for word in ("3/8", "loss 0.7500  validation loss 1.2500", "finetune", "5/9"):
        assert word in last


def test_nothing_to_follow(screen: io.StringIO, tmp_path: Path) -> None:
    with console.Follower(tail(tmp_path / "never")).showing():
        pass
    assert screen.getvalue() == ""


def test_figures_are_the_fractions_alone() -> None:
    assert console.figures({"accuracy": 0.5, "loss": 1.23456, "step": 3, "time": 12.0, "seconds": 3.0, "phase": "dae"}) == (
        "accuracy 0.5000  loss 1.2346"
    )
    assert console.figures({}) == ""


def test_labels_in_tables_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("classes [of the data]", ["class", "rows"], [["[/b]", "3"], ["[red]ink", "4"], [":heart:", "5"]])
    printed = capsys.readouterr().out
    for word in ("classes [of the data]", "[/b]", "[red]ink", ":heart:"):
        assert word in printed


def test_counting_needs_no_terminal(screen: io.StringIO) -> None:
    with console.counting() as progress:
        progress("tokenising train", 5, 10)
        progress("reading", 5, 0)
    assert screen.getvalue() == ""
