"""What the predictions of a run say: against plain fine-tuning row by row, how sure they were, and the worst errors."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from threephase_ray.evidence.calibration import Point, diagram, expected_error
from threephase_ray.evidence.intervals import Comparison, compare

WORST = 20  # errors that are shown
Verdict = Literal["better", "worse", "open"]


class Predictions(NamedTuple):
    """Of each test row: number, true and predicted label, and the probability of each class [n, k]."""

    rows: NDArray[np.int64]
    truth: NDArray[np.object_]
    said: NDArray[np.object_]
    probabilities: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is right."""
        return np.asarray(self.truth == self.said, dtype=bool)


def predictions(table: pa.Table) -> Predictions:
    """The predictions in a file of a run."""
    truth, said = (np.array(table[name].to_pylist(), dtype=object) for name in ("label", "predicted"))
    probabilities = np.array(table["probabilities"].to_pylist(), dtype=np.float64)
    return Predictions(table["row"].to_numpy().astype(np.int64), truth, said, probabilities)


def compared(ours: Predictions, theirs: Predictions) -> dict[str, Comparison] | None:
    """Accuracy and macro F1 of the first minus the second; None unless both have the same rows."""
    here, there = np.argsort(ours.rows), np.argsort(theirs.rows)
    if not np.array_equal(ours.rows[here], theirs.rows[there]):
        return None
    sides = [ours.truth[here], ours.said[here], theirs.said[there]]
    names, numbers = np.unique(np.concatenate(sides).astype(str), return_inverse=True)
    truth, first, second = numbers.reshape(3, -1)
    return {
        "accuracy": compare("accuracy", truth, first[None], second[None], len(names)),
        "macro_f1": compare("macro_f1", truth, first[None], second[None], len(names)),
    }


def verdict(comparison: Comparison) -> Verdict:
    """What a comparison shows: only an interval without 0 tells two classifiers apart."""
    if comparison.p >= 0.05 or comparison.difference.mean == 0:
        return "open"
    return "better" if comparison.difference.mean > 0 else "worse"


def bins(made: Predictions) -> list[Point]:
    """The reliability diagram."""
    said, classes = made.probabilities.argmax(axis=1), made.probabilities.shape[1]
    return diagram(np.where(made.right, said, (said + 1) % classes), made.probabilities)


def calibration_error(points: Sequence[Point]) -> float:
    """The expected calibration error."""
    return expected_error(list(points))


def worst(made: Predictions) -> list[dict[str, Any]]:
    """The errors that the classifier was surest of."""
    wrong, confidence = np.flatnonzero(~made.right), made.probabilities.max(axis=1)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    return [{"row": int(made.rows[i]), "truth": made.truth[i], "said": made.said[i], "confidence": float(confidence[i])} for i in order]
