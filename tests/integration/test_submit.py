"""`submit.py` against a running cluster with token authentication: what is sent, what is refused, whose exit code comes back."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.places import Place

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ONE = ("--phases", "finetune", "--probe", "false", "--baseline", "null")
SHORT = (*ONE, "--compute.workers", "1")
GREEDY = (*ONE, "--name", "greedy", "--seed", "5", "--compute.workers", "64", "--compute.start_timeout_s", "10")


@pytest.fixture(scope="module")
def sent(cluster: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The cluster with a store of its own, known by the address of its dashboard alone."""
    environment = {name: value for name, value in cluster.environment.items() if name != "RAY_ADDRESS"}
    return replace(cluster, store=tmp_path_factory.mktemp("submit") / "store", environment=environment)


def jobs(place: Place) -> list[dict[str, Any]]:
    """All submissions, as the cluster tells them to whoever has its token."""
    address = f"{place.environment['RAY_API_SERVER_ADDRESS']}/api/jobs/"
    headers = {"Authorization": f"Bearer {place.environment['RAY_AUTH_TOKEN']}"}
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:  # noqa: S310
        return [job for job in json.load(answer) if job["submission_id"]]


def losses(store: Path) -> list[float]:
    (path,) = store.glob("phases/finetune-*/attempt-*/metrics.json")
    return list(json.loads(path.read_text())["losses"])


@pytest.fixture(scope="module")
def trained(sent: Place, place: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a submitted run printed, and the store of the same run on this machine."""
    here = replace(place, store=tmp_path_factory.mktemp("here") / "store")
    done, local = sent.submit(*SHORT), here.train(*SHORT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert local.returncode == 0, local.stderr[-3000:]
    return done.stdout, here.store


def test_a_submitted_run_gives_the_losses_of_a_local_one(sent: Place, trained: tuple[str, Path]) -> None:
    output, store = trained
    assert losses(sent.store) == losses(store)
    assert len(losses(store)) == 6
    assert "macro F1" in output  # the job's own output
    assert "exit code 0" in output


def test_neither_environment_nor_credentials_travel(sent: Place, trained: tuple[str, Path]) -> None:
    (job,) = [job for job in jobs(sent) if job["submission_id"] in trained[0]]
    assert job["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "300"}
    assert set(job["metadata"]) == {"job", "run", "config"}
    assert job["entrypoint"] == "python jobs/train.py --config .threephase-ray.yaml"
    assert sent.environment["RAY_AUTH_TOKEN"] not in json.dumps(job) + trained[0]


def test_the_same_name_again_goes_on_from_the_store(sent: Place, trained: tuple[str, Path]) -> None:
    before = (sent.run / "events.jsonl").read_text()
    done = sent.submit(*SHORT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (sent.run / "events.jsonl").read_text() == before  # nothing is trained again
    assert len({job["submission_id"] for job in jobs(sent) if job["metadata"].get("run") == "tiny"}) == 2


def test_what_is_wrong_here_is_never_sent(sent: Place) -> None:
    before = len(jobs(sent))
    assert sent.submit(*SHORT, "--dae.noise_ratoi", "0.4").returncode == 2
    assert sent.job("submit", *SHORT).returncode == 2  # a relative store
    assert sent.submit(*SHORT, "--data.test", "s3://key:secret@bucket/test.csv").returncode == 2
    assert len(jobs(sent)) == before


@pytest.mark.parametrize(
    ("token", "word"),
    [({"RAY_AUTH_TOKEN": "f" * 32}, "Invalid authentication token"), ({"RAY_AUTH_MODE": "disabled"}, "Missing authentication token")],
)
def test_nothing_is_accepted_without_the_right_token(sent: Place, token: dict[str, str], word: str) -> None:
    before = len(jobs(sent))
    done = replace(sent, environment=sent.environment | token).submit(*SHORT)
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("ResourceError: ")]
    assert word in lines[start]
    assert "RAY_AUTH_TOKEN" in lines[start + 1]
    assert len(lines) == start + 2
    assert len(jobs(sent)) == before


def test_a_job_at_work_is_followed_and_its_own_exit_code_given(sent: Place) -> None:
    first = sent.submit(*GREEDY, "--no-follow")
    assert first.returncode == 0
    (number,) = re.findall(r"greedy-[0-9a-f]{6}(?=: sent)", first.stdout)
    second = sent.submit(*GREEDY)
    assert second.returncode == 4, second.stdout[-3000:]
    assert f"{number} is at work already" in second.stdout
    assert "64 workers" in second.stdout
    assert [job["driver_exit_code"] for job in jobs(sent) if job["metadata"].get("run") == "greedy"] == [4]


@pytest.fixture
def follower(sent: Place) -> Iterator[subprocess.Popen[str]]:
    """`submit.py` that follows a job which trains for long."""
    long = ("--name", "long", "--seed", "6", "--finetune.steps", "100000", "--finetune.validations", "1")
    command = [sys.executable, "jobs/submit.py", "--config", str(sent.config), "--store", str(sent.store), *SHORT, *long]
    process = subprocess.Popen(command, cwd=sent.root, env=sent.environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_at_work_and_a_stop_ends_it_orderly(sent: Place, follower: subprocess.Popen[str]) -> None:
    assert follower.stdout is not None
    for line in follower.stdout:
        if "finetune: step" in line:
            break
    follower.send_signal(signal.SIGINT)
    output, _ = follower.communicate()
    assert follower.returncode == 130
    (number,) = re.findall(r"ray job stop .*(long-[0-9a-f]{6})", output)
    (job,) = [job for job in jobs(sent) if job["submission_id"] == number]
    assert job["status"] == "RUNNING"
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(subprocess.run, follower.args, cwd=sent.root, env=sent.environment, capture_output=True, text=True, check=False)
        time.sleep(5.0)
        ray = str(Path(sys.executable).parent / "ray")
        subprocess.run([ray, "job", "stop", number], env=sent.environment, check=True, capture_output=True)
        assert again.result().returncode == 143, again.result().stdout[-3000:]
    assert "finetune is saved at step" in again.result().stdout
