"""The test split: read once, at the end, by finished classifiers; or the validation split in its place."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from threephase_ray import models, phases
from threephase_ray.models import Classifier
from threephase_ray.phases.spec import Batch
from threephase_ray.training import evaluate
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.plan import Desk, Prediction
from threephase_ray.training.together import first


def predict_test(job: Prediction, desk: Desk) -> None:
    """Class probabilities for the job's split, as Parquet: row, label, predicted, probabilities."""
    config, data, device = desk.config, desk.data, desk.device
    split, phase = data.split(job.split), phases.build(job.phase, config, data)
    model = models.restore(desk.store.fetch(job.model)).to(device)
    assert isinstance(model, Classifier)
    desk.report({"event": "test", "phase": job.phase, "split": job.split, "rows": len(split)})
    settings = Settings(stage=0, precision=config.compute.precision, clip=1.0, epsilon=1e-8, micros=1)
    engine = PlainEngine(model, [], device, settings)
    probabilities = evaluate.per_row(_probabilities, phase, engine, device, split, config.compute.micro_batch)

    def write() -> None:
        names = np.array(data.label_names, dtype=object)
        columns = {"row": split.ids, "label": names[split.labels[:, -1]], "predicted": names[probabilities.argmax(axis=1)]}
        table = pa.table({**columns, "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), data.classes)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        desk.store.storage.write(job.predictions, buffer.getvalue())

    first(write)


def _probabilities(model: nn.Module, batch: Batch) -> Tensor:
    """Class probabilities [b, k]."""
    return torch.softmax(model(batch["ids"], batch["mask"]).float(), dim=-1)
