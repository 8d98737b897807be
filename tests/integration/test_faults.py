"""A run that is hurt in several ways, one after the other, comes out the same; `make faults` does far more."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import chain, runner
from tests.faults.report import UNSEEN, Line

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def lines() -> Iterator[list[Line]]:
    """What became of the run: a line for each harm."""
    with tempfile.TemporaryDirectory(prefix="tpr", dir="/tmp") as folder, runner.open_bench(Path(folder), seed=1) as bench:  # a short path
        yield list(itertools.chain.from_iterable(runner.perform(bench, case) for case in chain.cases()))


def test_nothing_is_lost_and_the_weights_are_the_same(lines: list[Line]) -> None:
    assert [problem for line in lines for problem in line.problems] == []
    assert [line.killed.split(",")[0] for line in lines] == ["worker", "SIGTERM", "driver"]
    assert all(line.identical for line in lines)


def test_only_steps_since_the_last_whole_checkpoint_are_done_again(lines: list[Line]) -> None:
    assert lines[1].wasted == [0]
    for line in lines:
        assert line.interval is not None
        assert max(line.wasted) <= line.interval + line.in_flight + UNSEEN
