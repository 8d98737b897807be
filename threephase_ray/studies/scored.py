"""A run that was tested, as its files tell: predictions beside labels, figures, cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from threephase_ray import scoring
from threephase_ray.evidence.calibration import calibration
from threephase_ray.results import Store
from threephase_ray.studies.work import Planned

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """One run."""

    split: str  # that was predicted
    seed: int
    rows: Ints  # [m], ids of the test rows
    labels: list[str]  # [m]
    predicted: list[str]  # [m]
    truth: Ints  # [m], the labels' places in `probabilities`
    probabilities: NDArray[np.float64]  # [m, k], a class that was not trained has 0
    results: dict[str, Any]

    @property
    def scores(self) -> dict[str, Any]:
        """Figures of its predictions."""
        return dict(self.results[self.split])

    @property
    def calibration(self) -> dict[str, Any]:
        """Of its probabilities, see `calibrated`."""
        return calibrated(self.truth, self.probabilities)

    @property
    def cost(self) -> dict[str, float]:
        """Of all its phases, as if it had trained them alone."""
        phases = self.results["phases"]
        sums = {name: sum(phase[name] for phase in phases) for name in ("cpu_seconds", "worker_seconds")}
        return sums | {"peak_memory": max(phase["peak_memory"] for phase in phases), "parameters": phases[-1]["parameters"]}

    @property
    def phases(self) -> list[str]:
        """Names of its phases."""
        return [phase["phase"] for phase in self.results["phases"]]

    def validation(self, phase: str) -> dict[str, float]:
        """A phase's figures on validation."""
        return dict(next(each["scores"] for each in self.results["phases"] if each["phase"] == phase))


def read(planned: Planned, store: Store) -> Scored:
    """A run from its folder."""
    (job,) = scoring.tests(planned.outline, planned.folder).values()
    table = pq.read_table(pa.BufferReader(store.storage.read(job.predictions)))
    labels, names = table["label"].to_pylist(), sorted(set(planned.outline.data.label_names))
    trained = planned.outline.data.label_names[: planned.outline.data.classes]
    probabilities = np.zeros((len(labels), len(names)))
    places = {name: i for i, name in enumerate(names)}
    probabilities[:, [places[name] for name in trained]] = np.asarray(table["probabilities"].to_pylist())
    return Scored(
        split=planned.outline.config.predict,
        seed=planned.run.seed,
        rows=table["row"].to_numpy(),
        labels=labels,
        predicted=table["predicted"].to_pylist(),
        truth=np.array([places[label] for label in labels]),
        probabilities=probabilities,
        results=store.read_json(f"{planned.folder}/results.json"),
    )


def calibrated(truth: Ints, probabilities: NDArray[np.float64]) -> dict[str, Any]:
    """Errors of probabilities [m, k], and the reliability diagram as bins."""
    found = calibration(truth, probabilities[None])
    bins = [asdict(point) for point in found.points]
    return {"ece": found.error, "brier": found.brier, "log_loss": found.log_loss, "bins": bins}


def together(runs: Sequence[Scored]) -> tuple[Ints | list[Ints], Ints | list[Ints], int]:
    """Labels [m] and predictions [n, m] as numbers, and how many classes there are; a list for each run where their test rows differ."""
    names = sorted({name for each in runs for side in (each.labels, each.predicted) for name in side})
    places = {name: i for i, name in enumerate(names)}
    labels, predicted = [_numbers(each.labels, places) for each in runs], [_numbers(each.predicted, places) for each in runs]
    same = all(np.array_equal(each.rows, runs[0].rows) and each.labels == runs[0].labels for each in runs)
    return (labels[0], np.stack(predicted), len(names)) if same else (labels, predicted, len(names))


def _numbers(names: Sequence[str], places: dict[str, int]) -> Ints:
    """Names as their places."""
    return np.array([places[name] for name in names])
