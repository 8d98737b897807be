"""Every command, configuration and program of README and the guides, run as it is written, in the order of the pages.

A command that comes later may need what one before it made, so this file runs as a whole. What stands for what a test cannot have, and
which commands are not run, is in `standins`.
"""

from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.integration import documents, stage, standins
from tests.integration.documents import Piece
from tests.integration.stage import Stage
from threephase_ray.errors import ConfigError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
PIECES = [piece for page, text in documents.pages(ROOT).items() for piece in documents.in_order(page, text)]
TRAIN = ".venv/bin/python jobs/train.py --config mine.yaml"
FILES = [piece for piece in standins.to_run(PIECES) if piece.kind == "yaml" or "<<" in piece.text]
LONG = [piece for piece in standins.to_run(PIECES) if standins.changed(piece, {}, long=True) != standins.changed(piece, {})]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage.opened(tmp_path_factory.mktemp("documents")) as opened:
        yield opened


@pytest.mark.parametrize("piece", standins.to_run(PIECES), ids=str)
def test_works_as_written(piece: Piece, place: Stage) -> None:
    place.run(piece)


@pytest.fixture(scope="module")
def written(place: Stage) -> Stage:
    """The stage with all files that the pages write."""
    for piece in FILES:
        place.run(piece)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("piece", LONG, ids=str)
def test_long_ones_work_in_full(piece: Piece, written: Stage) -> None:
    written.run(piece, long=True)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("sh", f"{TRAIN} --finetune.stepps 3 --dry-run", "did you mean finetune.steps"),
        ("sh", f"{TRAIN} --finetune.stepps 3", "did you mean finetune.steps"),
        ("sh", ".venv/bin/python jobs/tran.py --config mine.yaml", "ended with 2"),
        ("sh", "brew install threephase", "ended with 127"),
        ("sh", "ls no-such-file | wc -l", "ended with 2"),
        ("word", "make coffee", "coffee"),
        ("word", "kubectl get rayjob nobody -n threephase", "NotFound"),
        ("python", "import threephase_rays", "No module named"),
        ("yaml", "seed: 1\n", "the first line is no command"),
        ("yaml", "# python jobs/train.py --config other.yaml\nnam: a\n", "did you mean name"),
    ],
)
def test_what_does_not_work_is_told(kind: str, text: str, said: str, written: Stage) -> None:
    with pytest.raises((AssertionError, ConfigError), match=said):
        written.run(Piece("page", 1, kind, text))


def test_nothing_stands_for_what_is_not_documented() -> None:
    assert standins.unused(PIECES) == []
