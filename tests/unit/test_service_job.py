"""The service's job up to where Ray starts: its knobs, its plan, what is refused."""

import importlib.util
import socket
from pathlib import Path

import pytest

from threephase_ray import command
from threephase_ray.errors import ConfigError, JobError, ResourceError
from threephase_ray.service import job
from threephase_ray.serving import ServeConfig


def settings(store: Path, *flags: str) -> ServeConfig:
    return command.read([], ["--name", "api", "--model", "mine", "--store", str(store), *flags], ServeConfig)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limits.ongoing", "8"], "limits.ongoing: must be at least batch.requests"),
        (["--limits.text", "8"], "did you mean limits.texts"),
        (["--port", "70000"], "port: Input should be less than or equal to 65535"),
        (["--limits.body_bytes", "0"], "limits.body_bytes: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_knobs_are_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, *flags)


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000")])
def test_a_plan_says_what_is_served_where(tmp_path: Path, host: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    job.serve(settings(tmp_path, "--host", host, "--compute.workers", "1,3"), dry_run=True)
    told = capsys.readouterr().out
    assert address in told
    assert "1 to 3" in told
    assert "runs/mine/model" in told


def test_a_model_that_is_not_there_is_told_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no folder classifier"):
        job.serve(settings(tmp_path))


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"threephase-ray\[serve\]"):
        job.serve(settings(tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_where_nothing_can_listen_is_told(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ResourceError, match="nothing can listen"):
        job.bindable(host, taken.getsockname()[1])


def test_a_free_address_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job.bindable("127.0.0.1", port)
    job.bindable("127.0.0.1", port)
