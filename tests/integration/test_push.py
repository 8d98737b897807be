"""Exported models sent to a hub, a FAKE one: what arrives, what is never sent, and what is told of a token."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.fake_hub import TOKEN, FakeHub, Repo
from tests.unit import test_export
from threephase_ray import export, sums

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
BOTH = ("--push.repo", "us/classifier", "--push.encoder_repo", "us/encoder")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's `model` folder, with sums."""
    folder = tmp_path_factory.mktemp("run")
    finished = test_export.finished(folder, "bert", "cls", "tanh")
    export.export_classifier(finished, folder / "checkpoint", test_export.LABELS, 16, folder / "model" / "classifier")
    export.export_encoder(finished, folder / "checkpoint", 16, folder / "model" / "encoder")
    for part in ("classifier", "encoder"):
        sums.seal(folder / "model" / part)
    return folder / "model"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


def job(hub: FakeHub, model: Path, folder: Path, *flags: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """The job, as a process of its own, since the client reads its environment when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [
        sys.executable,
        "jobs/export.py",
        "--name",
        "sent",
        "--store",
        str(folder / "store"),
        "--model",
        str(model),
        "--onnx",
        "null",
    ]
    return subprocess.run([*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_arrive_byte_for_byte_and_the_second_time_nothing_is_sent(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    done = job(hub, model, tmp_path, *BOTH)
    assert done.returncode == 0, done.stderr[-3000:]
    for part in ("classifier", "encoder"):
        repo = hub.repos[f"us/{part}"]
        assert repo.files == content(model / part)
        assert repo.private
        assert repo.large.keys() == {name for name in repo.files if name.endswith(".safetensors")} != set()
        assert f"sent: {hub.endpoint}/us/{part}/commit/{repo.commits[-1]}" in done.stdout
    assert len(hub.sent("PUT", "/lfs/.*")) == sum(len(repo.large) for repo in hub.repos.values())
    hub.requests.clear()
    again = job(hub, model, tmp_path, *BOTH)
    assert again.returncode == 0, again.stderr[-3000:]
    assert hub.sent("POST", ".*/preupload/main")
    assert not hub.sent("PUT", ".*") + hub.sent("POST", ".*/commit/main")
    assert re.findall("sent: .*", again.stdout) == re.findall("sent: .*", done.stdout)


@pytest.mark.parametrize("token", ["hf_wrong", "hf_wrong\x0bthat no header takes"])
def test_a_wrong_token_is_told_and_never_shown(token: str, hub: FakeHub, model: Path, tmp_path: Path) -> None:
    done = job(hub, model, tmp_path, *BOTH, token=token)
    assert done.returncode == 4
    assert "ResourceError: push: us/classifier was not sent" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "hf_wrong" not in done.stdout + done.stderr
    assert not hub.repos


def test_what_is_private_is_not_sent_to_a_public_repository(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    hub.repos["us/classifier"] = Repo(private=False)
    done = job(hub, model, tmp_path, "--push.repo", "us/classifier")
    assert (done.returncode, hub.repos["us/classifier"].files) == (4, {})
    assert "is public, so nothing was sent" in done.stderr
    done = job(hub, model, tmp_path, "--push.repo", "us/classifier", "--push.private", "false")
    assert (done.returncode, hub.repos["us/classifier"].files) == (0, content(model / "classifier")), done.stderr[-3000:]


def test_a_dry_run_and_a_job_without_push_send_nothing(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    assert "us/classifier (private if it is new)" in job(hub, model, tmp_path, *BOTH, "--dry-run").stdout
    done = job(hub, model, tmp_path, "--onnx", "{}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "store/exports/sent/onnx/model.onnx").is_file()
    assert hub.requests == []
