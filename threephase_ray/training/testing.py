"""The test split: read once, at the end, by finished classifiers; or the validation split in its place."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray import models, phases
from threephase_ray.evidence import temperature
from threephase_ray.evidence.temperature import Temperature
from threephase_ray.loader import DataSet
from threephase_ray.models import Classifier
from threephase_ray.phases.spec import Batch
from threephase_ray.training import evaluate
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.plan import Desk, Prediction
from threephase_ray.training.together import first

CALIBRATION = "calibration"  # where the file's metadata tell of the temperature
VALIDATION = "validation"  # the split that it is fitted on

Logits = dict[str, NDArray[np.float32]]  # [n, k] of each split


def predict_test(job: Prediction, desk: Desk) -> None:
    """Class probabilities for the job's split, as Parquet: row, label, predicted, probabilities; see `calibrated` for its metadata."""
    config, data, device = desk.config, desk.data, desk.device
    phase = phases.build(job.phase, config, data)
    model = models.restore(desk.store.fetch(job.model)).to(device)
    assert isinstance(model, Classifier)
    desk.report({"event": "test", "phase": job.phase, "split": job.split, "rows": len(data.split(job.split))})
    settings = Settings(stage=0, precision=config.compute.precision, clip=1.0, epsilon=1e-8, micros=1)
    engine, micro = PlainEngine(model, [], device, settings), config.compute.micro_batch
    splits = {VALIDATION, job.split} if config.calibrate else {job.split}
    logits = {name: evaluate.per_row(_logits, phase, engine, device, data.split(name), micro) for name in sorted(splits, reverse=True)}
    first(lambda: desk.store.storage.write(job.predictions, _file(job.split, logits, data, calibrated(logits, data, config.calibrate))))


def calibrated(logits: Logits, data: DataSet, calibrate: bool) -> dict[str, Any]:
    """The temperature that fits validation, or why it is 1; rows of each split, and their errors before and after."""
    labels = {name: data.split(name).labels[:, -1] for name in logits}
    found = temperature.fit(logits[VALIDATION], labels[VALIDATION]) if calibrate else Temperature(1.0, "calibrate is false")
    splits = {
        name: {
            "rows": len(labels[name]),
            "before": temperature.errors(each, labels[name], 1.0),
            "after": temperature.errors(each, labels[name], found.value),
        }
        for name, each in logits.items()
    }
    return {"temperature": found.value, "reason": found.reason, "splits": splits}


def _file(name: str, logits: Logits, data: DataSet, calibration: dict[str, Any]) -> bytes:
    """The predictions of a split, with calibrated probabilities."""
    split, names = data.split(name), np.array(data.label_names, dtype=object)
    sure = temperature.probabilities(logits[name], calibration["temperature"]).astype(np.float32)
    columns = {"row": split.ids, "label": names[split.labels[:, -1]], "predicted": names[logits[name].argmax(axis=1)]}
    table = pa.table({**columns, "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(sure.ravel()), data.classes)})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({CALIBRATION: json.dumps(calibration)}), buffer)
    return buffer.getvalue()


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits [b, k]."""
    return model(batch["ids"], batch["mask"]).float()  # type: ignore[no-any-return]
