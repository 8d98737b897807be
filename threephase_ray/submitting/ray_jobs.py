"""Jobs on a running Ray cluster, through Ray's Jobs API: sent, found again, followed to their own exit code."""

import asyncio
import contextlib
import hashlib
import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from threephase_ray.command import dump
from threephase_ray.config import Job
from threephase_ray.console import console
from threephase_ray.errors import ResourceError
from threephase_ray.submitting import upload
from threephase_ray.submitting.printing import Printer
from threephase_ray.training.cluster import reach

STOP_SECONDS = "300"  # between the stop and the kill of a job: its last checkpoint must fit in
_PATIENCE = 60.0  # seconds for which a cluster may be away while it is followed
_LOST = (aiohttp.ClientError, RuntimeError, OSError)
STOPPED, KILLED = 143, 128  # exit codes: of a job that was stopped; of one that a signal ended, plus its number


class Jobs:
    """The jobs of a cluster."""

    def __init__(self, address: str | None) -> None:
        """`address`: None for that in the environment.

        Raises:
            ResourceError: it cannot be reached, or refuses.
        """
        if address is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # else RAY_ADDRESS would win over what was asked
        self._address = next(os.environ[name] for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS") if os.environ.get(name))
        with self._explained():
            reach(self._address)
            self._client = JobSubmissionClient()

    def running(self, job: str, config: Job) -> str | None:
        """The submission of the same job and name that waits or runs; None if there is none."""
        with self._explained():
            found = [each for each in self._client.list_jobs() if _is_same(each, job, config) and not each.status.is_terminal()]
        if not found:
            return None
        console.print(f"{found[0].submission_id} is at work already: following it", highlight=False)
        if (found[0].metadata or {}).get("config") != _digest(config):
            console.print("its configuration is another one; stop it to send this one", highlight=False)
        return str(found[0].submission_id)

    def send(self, job: str, config: Job, code: dict[str, Path]) -> str:
        """Upload code and configuration, and start the job; its submission id."""
        number = f"{config.name}-{uuid.uuid4().hex[:6]}"
        with self._explained(), tempfile.TemporaryDirectory() as folder:
            archive = upload.pack(code, dump(config), Path(folder) / "job.zip")
            self._client.submit_job(
                entrypoint=shlex.join(["python", f"jobs/{job}.py", "--config", upload.CONFIG]),
                submission_id=number,
                runtime_env={"working_dir": str(archive), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS}},
                metadata={"job": job, "run": config.name, "config": _digest(config)},
            )
        console.print(f"{number}: sent to {self._shown}, {upload.described(code)}", highlight=False, soft_wrap=True)
        return number

    def follow(self, number: str) -> int:
        """Print what the job prints until it ends; its exit code. Ctrl-C leaves it at work."""
        try:
            return self._follow(number)
        except KeyboardInterrupt:
            self.left(number)
            return 130

    def left(self, number: str) -> int:
        """Say how to come back to a job that goes on."""
        where = "" if os.environ.get("RAY_ADDRESS") == self._address else f"--address {self._shown} "
        console.print(f"{number} goes on. Give the same command again to follow it", highlight=False)
        console.print(f"  ray job logs {where}--follow {number}\n  ray job stop {where}{number}", highlight=False, soft_wrap=True)
        return 0

    def _follow(self, number: str) -> int:
        printer, seen = Printer(), time.monotonic()
        while True:
            with contextlib.suppress(*_LOST):
                asyncio.run(self._print(number, printer))
            with contextlib.suppress(*_LOST, RayError):
                found, seen = self._client.get_job_info(number), time.monotonic()
                if found.status.is_terminal():
                    return _ended(found)
            if time.monotonic() - seen > _PATIENCE:
                advice = "the job may go on; give the same command again to follow it, or to go on from its last checkpoint"
                raise ResourceError(f"{self._shown}: has not answered for {_PATIENCE:.0f} s\n  {advice}")
            time.sleep(1.0)

    async def _print(self, number: str, printer: Printer) -> None:
        """Print the log from where it was left, until the job ends or the connection does."""
        printer.begin()
        async for text in self._client.tail_job_logs(number):
            printer.add(text)

    @property
    def _shown(self) -> str:
        """The address without what may be secret in it."""
        return self._address.rpartition("@")[2]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what goes wrong on the way to the cluster into a few lines."""
        try:
            yield
        except AuthenticationError as error:
            reason = str(error.message).splitlines()[0].rstrip(".")
            advice = "set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN or in the file of RAY_AUTH_TOKEN_PATH"
            raise ResourceError(f"{self._shown}: {reason}\n  {advice}") from error
        except OSError as error:
            advice = "is the cluster up, and its dashboard's port (8265) open to this machine? `kubectl port-forward` makes a way to it"
            raise ResourceError(f"{self._shown}: cannot be reached: {_short(error)}\n  {advice}") from error
        except (RuntimeError, RayError) as error:
            raise ResourceError(f"{self._shown}: does not take the job: {_short(error)}") from error


def _is_same(found: JobDetails, job: str, config: Job) -> bool:
    """Whether it is a submission of this job and name."""
    metadata: dict[str, Any] = found.metadata or {}
    return bool(found.submission_id) and (metadata.get("job"), metadata.get("run")) == (job, config.name)


def _digest(config: Job) -> str:
    """A short hash of the configuration."""
    return hashlib.sha256(dump(config).encode()).hexdigest()[:12]


def _ended(found: JobDetails) -> int:
    """The exit code of a job that has ended, which is printed."""
    code = found.driver_exit_code
    if code is None:
        code = STOPPED if found.status == JobStatus.STOPPED else int(found.status != JobStatus.SUCCEEDED)
    code = KILLED - code if code < 0 else code
    reason = f": {_short(found.message)}" if found.driver_exit_code is None and found.message else ""
    console.print(f"{found.submission_id}: {found.status.lower()}, exit code {code}{reason}", highlight=False, soft_wrap=True)
    return code


def _short(error: object) -> str:
    """The beginning of an error's text, or its name."""
    return " ".join(str(error).split())[:300] or type(error).__name__
