"""Runs on an MLflow tracking server: one for the whole, and below it one for each phase.

The server keeps each (run, figure, step, time, value) once, and runs are found by a tag that they are created with; so everything may be
sent again from the beginning, whenever this process was killed. Credentials are in the environment (MLFLOW_TRACKING_TOKEN, ...).
"""

import os
import time
from collections.abc import Sequence

# Unless the user says otherwise: nobody but the server is told anything. And no request is repeated without a look at what the server has,
# since it may have made a run though its answer was lost.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from threephase_ray.trackers.histories import Outcome, Row
from threephase_ray.trackers.subject import Ending, Subject, flat

_IDENTITY = "threephase.identity"  # the tag by which runs are found
_METRICS, _PARAMS = 1000, 100  # in one request at most


class MLflow:
    """The runs of a subject in an experiment, which is made where it is missing."""

    def __init__(self, uri: str, experiment: str, subject: Subject) -> None:
        """Find or make the run of the whole."""
        self._client, self._subject = MlflowClient(tracking_uri=uri), subject
        known = self._client.get_experiment_by_name(experiment)
        self._experiment: str = known.experiment_id if known else self._client.create_experiment(experiment)
        self._ids: dict[str | None, str] = {}
        self.place = f"{uri.rstrip('/')}/#/experiments/{self._experiment}/runs/{self._run(None)}"

    def write(self, phase: str, rows: Sequence[Row]) -> None:
        """Send the rows."""
        self._send(self._run(phase, rows[0].time), rows)

    def finish(self, outcome: Outcome, reused: frozenset[str]) -> None:
        """Final figures that the server does not have yet."""
        for phase, figures in [(None, outcome.run), *outcome.phases.items()]:
            number = self._run(phase)
            known = self._client.get_run(number).data.metrics
            self._send(number, [Row(0, time.time(), {name: value for name, value in figures.items() if known.get(name) != value})])
            if phase is not None:
                self._client.set_tag(number, "reused", str(phase in reused).lower())

    def close(self, ending: Ending) -> None:
        """End all runs, the whole one last."""
        for number in reversed(self._ids.values()):
            self._client.set_terminated(number, ending)

    def _send(self, number: str, rows: Sequence[Row]) -> None:
        metrics = [Metric(name, value, round(1000 * row.time), row.step) for row in rows for name, value in row.figures.items()]
        for start in range(0, len(metrics), _METRICS):
            self._client.log_batch(number, metrics=metrics[start : start + _METRICS])

    def _run(self, phase: str | None, started: float | None = None) -> str:
        """The id of a phase's run, or of the whole one."""
        if phase not in self._ids:
            identity = self._subject.identity_of(phase)
            found = self._client.search_runs([self._experiment], f"tags.`{_IDENTITY}` = '{identity}'", max_results=1)
            run = found[0] if found else self._create(phase, identity, started)
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._describe(run, phase)
            self._ids[phase] = run.info.run_id
        return self._ids[phase]

    def _create(self, phase: str | None, identity: str, started: float | None) -> Run:
        above = {} if phase is None else {"mlflow.parentRunId": self._run(None), "phase": phase}
        start = None if started is None else round(1000 * started)
        return self._client.create_run(self._experiment, start, {_IDENTITY: identity, **above}, phase or self._subject.name)

    def _describe(self, run: Run, phase: str | None) -> None:
        """Send the knobs that the run has not; the server takes each once, so those of the machine stay as they were at first."""
        missing = [Param(name, value) for name, value in flat(self._subject.knobs_of(phase)) if name not in run.data.params]
        for start in range(0, len(missing), _PARAMS):
            self._client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS])
