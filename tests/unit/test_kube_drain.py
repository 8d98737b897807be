"""A pod before its stop, with real processes that are named as Ray names them."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from threephase_ray.kube import drain

Start = Callable[..., subprocess.Popen[bytes]]

# Saves when told to, as a job does; says by files that it is there, and that it has saved.
SAVES = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.2)
    pathlib.Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("there").touch()
time.sleep(30)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process under another name; all are gone in the end."""
    started = []

    def begin(title: str, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([title, *arguments], executable="/bin/sh", cwd=tmp_path, stdin=subprocess.PIPE, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        with process:  # waits, and closes the pipe
            pass


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `ray` that writes down what it was asked."""
    asked = tmp_path / "asked"
    command = tmp_path / "bin" / "ray"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" > {asked}\nexit 1\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return asked


def appears(path: Path) -> bool:
    """Whether the file is there within some seconds."""
    deadline = time.monotonic() + 15
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.exists()


def hook(*arguments: str) -> int:
    """The hook's exit code, with this test's own processes as all that there is."""
    return drain.main([*arguments, "--root", str(os.getpid())])


def test_a_worker_waits_for_what_is_under_way(start: Start, ray: Path) -> None:
    work = start("ray::Worker.train", "-c", "read line")
    start("ray::IDLE", "-c", "read line")
    assert [process.pid for process in drain.busy(os.getpid())] == [work.pid]
    begin = time.monotonic()
    assert hook("--seconds", "1") == 1
    assert time.monotonic() - begin >= 1
    assert ray.read_text().split()[:3] == ["drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    assert ray.read_text().split()[-2:] == ["--deadline-remaining-seconds", "1"]
    work.kill()
    work.wait()
    assert hook("--seconds", "20") == 0


def test_ray_that_is_missing_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    drain.refuse_work(5)
    assert "drain: " in capfd.readouterr().err


@pytest.mark.parametrize("title", ["ray::JobSupervisor", "ray::_ray_internal_job_actor_raysubmit_1:JobSupervisor.run"])
def test_the_job_on_a_head_saves(start: Start, tmp_path: Path, title: str) -> None:
    (tmp_path / "job.py").write_text(SAVES)
    supervisor = start(title, "-c", f"/bin/sh -c '{sys.executable} job.py; exit 1'; sleep 30")
    assert appears(tmp_path / "there")
    begin = time.monotonic()
    assert hook("--job", "--seconds", "20") == 0
    assert time.monotonic() - begin < 20
    assert (tmp_path / "saved").exists()
    assert supervisor.poll() is None, "the supervisor is Ray's, and tells it how the job ended"


def test_a_job_that_takes_too_long_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SAVES.replace("time.sleep(0.2)", "time.sleep(9)"))
    start("ray::JobSupervisor", "-c", f"{sys.executable} job.py; exit 1")
    assert appears(tmp_path / "there")
    assert hook("--job", "--seconds", "0.3") == 1
    assert not (tmp_path / "saved").exists()


def test_a_head_without_a_job() -> None:
    assert hook("--job", "--seconds", "20") == 0


def test_ray_still_understands_the_words() -> None:
    command = [str(Path(sys.executable).parent / "ray"), "drain-node", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = ("--reason ", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "--deadline-remaining-seconds INTEGER")
    assert [word for word in words if word not in told] == []


def test_ray_still_gives_its_processes_these_names() -> None:
    package = Path(importlib.util.find_spec("ray").submodule_search_locations[0])  # type: ignore[union-attr,index]
    constants = (package / "_private" / "ray_constants.py").read_text(encoding="utf-8")
    assert [name for name in ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SPILL_") if name not in constants] == []
    assert "class JobSupervisor:" in (package / "dashboard" / "modules" / "job" / "job_supervisor.py").read_text(encoding="utf-8")
