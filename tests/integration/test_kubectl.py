"""`submit.py --to kube` with the real kubectl, against a server that answers it like Kubernetes with KubeRay's operator."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.kubernetes import Server

HERE = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("kubectl", path=HERE) is None, reason="needs kubectl"),
]
JOB = "/apis/ray.io/v1/namespaces/team/rayjobs/mine"
SOUND = ("--name", "mine", "--store", "/store", "--data.source", "/texts", "--encoder.path", "x/y")


def submit(server: Server, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/submit.py", "--to", "kube", *SOUND, *flags]
    environment = os.environ | {"PATH": HERE, "KUBECONFIG": str(server.config(folder / "kubeconfig")), "HOME": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("end", "code"), [("Complete", 0), ("Failed", 4)])
def test_a_job_is_sent_and_followed_to_its_own_exit_code(end: str, code: int, tmp_path: Path) -> None:
    with Server(["Initializing", "Running", end], "step 1\nstep 2\n") as server:
        done = submit(server, tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.count("step 1\nstep 2\n") == 1  # though the log was asked for twice
    files = "--config /etc/threephase-ray/config.yaml --config /etc/threephase/site.yaml"
    assert server.objects[JOB]["spec"]["entrypoint"] == f"python /app/jobs/train.py {files}"
    assert "name: mine" in server.objects["/api/v1/namespaces/team/configmaps/mine"]["data"]["config.yaml"]


def test_the_same_name_follows_a_job_at_work_and_replaces_one_that_has_ended(tmp_path: Path) -> None:
    with Server(["Initializing"], "") as server:
        assert submit(server, tmp_path, "--no-follow").returncode == 0
        server.states = ["Running", "Running", "Complete"]
        server.requests.clear()
        done = submit(server, tmp_path)
        assert (done.returncode, server.requests) == (0, [])
        assert "rayjob/mine is at work already" in done.stdout
        assert submit(server, tmp_path, "--no-follow").returncode == 0
    assert ("DELETE", JOB) in server.requests
    assert ("POST", JOB.removesuffix("/mine")) in server.requests


def test_a_cluster_that_is_not_there_is_a_short_error(tmp_path: Path) -> None:
    with Server([], "") as server:
        pass
    done = submit(server, tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith("ResourceError: kubectl get: ")
    assert len(done.stderr.splitlines()) == 2
