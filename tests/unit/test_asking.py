"""The command line of `submit.py`, in processes of its own: what it refuses and shows before anything is sent."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from threephase_ray.errors import ConfigError
from threephase_ray.submitting import asking

SOUND = ["--name", "mine", "--store", "/shared/store", "--data.source", "/texts", "--encoder.path", "x/y"]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def submitted(capfd: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    code = asking.main(ROOT, [*SOUND, *flags])
    return code, *capfd.readouterr()


def test_own_flags_and_knobs_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "--config",
        "a.yaml",
        "--job",
        "sweep",
        "--dae.noise_ratio",
        "0.4",
        "--to=kube",
        "--no-follow",
        "--image",
        "i:1",
        "--name",
        "n",
        "--dry-run",
    ]
    wish, files, flags = asking.understood(ROOT, words)
    assert (wish.job, wish.to, wish.follow, wish.image, wish.dry_run) == ("sweep", "kube", False, "i:1", True)
    assert wish.template == ROOT / asking.TEMPLATE
    assert (files, flags) == (["a.yaml"], ["--dae.noise_ratio", "0.4", "--name", "n"])
    assert asking.understood(ROOT, ["--address", "http://head:8265"])[0].to == "ray"
    for words in ([], ["--to", "ray"]):
        with pytest.raises(ConfigError, match="where to"):
            asking.understood(ROOT, words)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert asking.understood(ROOT, [])[0].to == "ray"


def test_a_misspelt_knob_or_flag_is_refused_before_anything_is_sent(capfd: pytest.CaptureFixture[str]) -> None:
    nowhere = ["--address", "http://127.0.0.1:9"]  # nobody listens there, and nobody is asked
    code, _, error = submitted(capfd, *nowhere, "--dae.noise_ratoi", "0.4")
    assert (code, "did you mean dae.noise_ratio?" in error) == (2, True)
    code, _, error = submitted(capfd, *nowhere, "--job", "trian")
    assert (code, "invalid choice: 'trian'" in error) == (2, True)


def test_dry_run_shows_the_upload_and_the_configuration(capfd: pytest.CaptureFixture[str]) -> None:
    code, output, _ = submitted(capfd, "--to", "ray", "--dry-run", "--dae.noise_ratio", "0.45")
    assert code == 0
    assert "would be uploaded: " in output
    assert "noise_ratio: 0.45" in output


def test_dry_run_prints_the_rayjob(capfd: pytest.CaptureFixture[str]) -> None:
    code, output, _ = submitted(capfd, "--to", "kube", "--dry-run", "--job", "study")
    assert code == 0
    assert "entrypoint: python /app/jobs/study.py --config /etc/threephase-ray/config.yaml --config /etc/threephase/site.yaml" in " ".join(
        output.split()
    )


def test_a_cluster_that_is_not_there_is_a_short_error(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, error = submitted(capfd, "--to", "ray", "--address", "http://127.0.0.1:9")
    assert code == 4
    assert error.splitlines()[-2].startswith("ResourceError: http://127.0.0.1:9: cannot be reached: ")
    assert len(error.splitlines()) <= 3


def test_without_kubectl_it_says_so(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, error = submitted(capfd, "--to", "kube")
    assert code == 4
    assert "kubectl: is not installed" in error


def test_help_lists_own_flags_and_knobs_at_once() -> None:
    program = (
        "import sys; from threephase_ray.submitting.asking import main; main(None, ['--help']); print(*{'ray', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--no-follow" in done.stdout
    assert "--dae.noise_ratio" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
