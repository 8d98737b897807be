"""What is said of a worker group that failed."""

from pathlib import Path

import pytest
import torch
from ray.exceptions import OutOfMemoryError

from tests.unit import tiny
from threephase_ray.errors import DataError, JobError, ResourceError
from threephase_ray.training.fit import TrainingError, explained
from threephase_ray.training.whereabouts import Leaving


class GroupFailed(Exception):
    """As Ray Train raises it: what each worker raised, by its rank."""

    def __init__(self, **failures: Exception) -> None:
        super().__init__("the group failed\nand this is the last line")
        self.worker_failures = failures


SHORT = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.\nmore\nRefer to the documentation")


@pytest.mark.parametrize(
    ("error", "kind", "words", "lasting"),
    [
        (SHORT, ResourceError, "running low on memory.\n  give it more", False),
        (GroupFailed(a=SHORT), ResourceError, "a node ran short of memory: 1 worker(s) were killed", False),
        (GroupFailed(a=torch.OutOfMemoryError("CUDA out of memory")), TrainingError, "lower compute.micro_batch", True),
        (GroupFailed(a=DataError("row 3 is bad")), DataError, "row 3 is bad", True),
        (GroupFailed(a=Leaving("drained")), Leaving, "drained", False),
        (GroupFailed(a=ValueError("no\nsuch thing")), TrainingError, "ValueError: such thing", False),
        (GroupFailed(), TrainingError, "and this is the last line", False),
    ],
)
def test_a_failure_is_told_in_a_few_lines(error: Exception, kind: type[JobError], words: str, lasting: bool, tmp_path: Path) -> None:
    store = tiny.opened(tmp_path)
    told, no_use = explained(error, store, "runs/x")
    assert type(told) is kind
    assert words in str(told)
    assert no_use is lasting
    assert (tmp_path / "runs/x/error.txt").read_text() == str(error)
