"""Finished phases as they lie in a store, a folder or a URI; and the store's own check of them."""

import json
import subprocess
import sys
from typing import Any

import fsspec
import torch
from safetensors.torch import load
from torch import Tensor

from tests.faults.job import ROOT

Environment = dict[str, str]
OPTIONS = {"endpoint_url": "AWS_ENDPOINT_URL", "key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}


def read(store: str, phase: str, name: str, environment: Environment) -> bytes:
    """A file of the phase's result; `environment` leads to a store that is no folder."""
    known = {option: environment[variable] for option, variable in OPTIONS.items()} if "://" in store else {}
    system, root = fsspec.core.url_to_fs(store, skip_instance_cache=True, **known)
    (manifest,) = system.glob(f"{root}/phases/{phase}-*/manifest.json")
    attempt = json.loads(system.cat_file(manifest))["attempt"]
    content: bytes = system.cat_file(f"{manifest.rsplit('/', 1)[0]}/{attempt}/{name}")
    return content


def weights(store: str, phase: str, environment: Environment) -> dict[str, Tensor]:
    """Tensors of the phase by their names."""
    return dict(load(read(store, phase, "weights.safetensors", environment)))


def figures(store: str, phase: str, environment: Environment) -> dict[str, Any]:
    """What the phase tells of itself, the losses of all its steps among it."""
    found: dict[str, Any] = json.loads(read(store, phase, "metrics.json", environment))
    return found


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors agree in every bit."""
    return ours.keys() == theirs.keys() and all(_same(ours[name], theirs[name]) for name in ours)


def _same(one: Tensor, other: Tensor) -> bool:
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


def verify(store: str, environment: Environment) -> list[str]:
    """What the store's own command says is wrong."""
    command = [sys.executable, "-m", "threephase_ray.store", store, "verify"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return [] if done.returncode == 0 else [f"verify ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"]
