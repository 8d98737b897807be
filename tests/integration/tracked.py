"""What trackers show, read back: an MLflow server of its own, files of Weights & Biases, event files of TensorBoard."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.faults.processes import Limit, free_port

Curves = dict[str, list[tuple[int, float]]]  # by figure: steps and values, in the order in which they are kept
_BLOCK, _HEADER = 32768, 7  # bytes of a W&B file, whose records are those of LevelDB's log


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The URL of a tracking server with a SQLite database."""
    port = free_port()
    words = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "mlflow.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        Limit(120).until(lambda: _healthy(port) or process.poll() is not None, "the MLflow server", 0.1)
        assert process.poll() is None, (folder / "mlflow.log").read_text()[-3000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
        return bool(answer.status == 200)
    return False


class Runs:
    """The runs of an experiment on a server."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.client = MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(experiment)
        assert found
        self.all: list[Run] = list(self.client.search_runs([found.experiment_id]))

    @property
    def whole(self) -> Run:
        """The only one that lies below no other."""
        (run,) = (run for run in self.all if "mlflow.parentRunId" not in run.data.tags)
        return run

    @property
    def phases(self) -> dict[str, Run]:
        """Those that lie below it; no phase has two."""
        below = [run for run in self.all if run.data.tags.get("mlflow.parentRunId") == self.whole.info.run_id]
        made = {run.info.run_name: run for run in below}
        assert len(made) == len(below) == len(self.all) - 1
        return made

    def curves(self, run: Run) -> Curves:
        """All that was ever logged of its figures."""
        names = run.data.metrics
        return {name: [(each.step, each.value) for each in self.client.get_metric_history(run.info.run_id, name)] for name in names}


def tensorboard(folder: Path) -> dict[str, Curves]:
    """The scalars in the only event file of each folder."""
    read = {}
    for path in folder.iterdir():
        assert len([*path.iterdir()]) == 1
        accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0}, purge_orphaned_data=False)
        accumulator.Reload()
        tags = accumulator.Tags()["scalars"]
        read[path.name] = {tag: [(each.step, each.value) for each in accumulator.Scalars(tag)] for tag in tags}
    return read


def wandb(folder: Path) -> dict[str, list[Any]]:
    """The records of each run by its id; no run has two files."""
    read: dict[str, list[Any]] = {}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        records = [wandb_internal_pb2.Record.FromString(record) for record in _records(path.read_bytes())]
        (number,) = (record.run.run_id for record in records if record.HasField("run"))
        assert number not in read
        read[number] = records
    return read


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a W&B file."""
    assert content[:4] == b":W&B"
    place, record = _HEADER, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def history(records: list[Any]) -> Curves:
    """The rows of a run as curves."""
    curves: Curves = {}
    for record in records:
        if record.HasField("history"):
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name in row.keys() - {"_step", "_timestamp", "_runtime"}:
                curves.setdefault(name, []).append((row["_step"], row[name]))
    return curves
