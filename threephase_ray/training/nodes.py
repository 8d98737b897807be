"""What a node says of itself: versions, storage, disk, GPUs, clock. The tasks of the preflight; they need neither ray nor torch."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import threephase_ray
from threephase_ray.errors import JobError
from threephase_ray.storage import Storage, connect

PACKAGES = ("torch", "transformers", "ray", "deepspeed")
PATIENCE = 20.0  # seconds for which a store that does not answer is asked again
DRIVER = "driver"  # the name of the driver's mark
ARRIVAL = 3.0  # seconds that a file may take from one node of a shared folder to another
_GPU_SECONDS = 90.0  # for torch to load and look
# A process of its own: Ray hides the GPUs from a task that reserves none, and a broken driver takes down who asks.
_LOOK = "import json, torch; print(json.dumps([torch.cuda.device_count() * torch.cuda.is_available(), torch.version.cuda]))"


@dataclass(frozen=True)
class Report:
    """A node in its own words."""

    versions: dict[str, str]
    store: str  # as it is resolved there
    refusal: str  # why the store cannot be used; empty: it was written and read
    sees_driver: bool  # whether the driver's mark is in the store
    disk: str  # the folder that fills up: the store's, or `scratch`
    free: int  # bytes there
    gpus: int = 0  # that torch sees; not looked at where none are wanted
    blindness: str = ""  # why torch sees none


def examine(uri: str, scratch: str, marks: str, name: str, gpus: bool) -> Report:
    """Look at this node, and leave the mark `name` in the store's folder `marks`; `gpus`: whether GPUs are wanted.

    Raises:
        ConfigError: `uri` leads to no kind of store here.
    """
    storage = connect(uri, PATIENCE)
    refusal = _tried(storage, f"{marks}/{name}", name.encode())
    disk = storage.folder if storage.folder is not None else Path(scratch).expanduser().absolute()
    count, blindness = _gpus() if gpus else (0, "")
    return Report(
        versions=versions(),
        store=storage.uri,
        refusal=refusal,
        sees_driver=not refusal and arrived(storage, f"{marks}/{DRIVER}", time.monotonic() + ARRIVAL),
        disk=str(disk),
        free=_free(disk),
        gpus=count,
        blindness=blindness,
    )


def leave(uri: str, marks: str, name: str) -> float:
    """Remove the mark, in case the driver cannot reach it, and tell the time."""
    with contextlib.suppress(JobError):
        connect(uri, 0.0).remove(f"{marks}/{name}")
    return time.time()


def versions() -> dict[str, str]:
    """Of everything whose difference between nodes breaks a run, or changes what it computes."""
    found = {"python": platform.python_version(), "threephase_ray": f"{threephase_ray.__version__} (code {_code()})"}
    return found | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    """As the installation says it, without importing anything."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _code() -> str:
    """A short hash of this library's own code, which changes without a new version, too."""
    top, digest = Path(threephase_ray.__file__).parent, hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        digest.update(f"{path.relative_to(top).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _tried(storage: Storage, name: str, content: bytes) -> str:
    """Write a small file and read it back; why that failed, in one line."""
    try:
        storage.write(name, content)
        same = storage.read(name) == content
    except JobError as error:
        return "; ".join(line.strip() for line in str(error).splitlines())
    except FileNotFoundError:
        same = False
    return "" if same else f"store: {storage.uri}/{name} reads otherwise than it was written; repair the file system"


def arrived(storage: Storage, name: str, deadline: float) -> bool:
    """Whether a file that another node wrote can be read here, now or soon.

    It is asked for by its name, for an old listing of a shared folder may lack it.
    """
    while True:
        with contextlib.suppress(FileNotFoundError, JobError):
            storage.read(name)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _free(folder: Path) -> int:
    """Bytes that may still be written below the folder, which need not be there yet; 0 where nobody may look."""
    with contextlib.suppress(OSError):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(there).free
    return 0


def _gpus() -> tuple[int, str]:
    """How many GPUs torch sees on this node, and why it sees none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES" or value}
    command = [sys.executable, "-c", _LOOK]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_GPU_SECONDS, check=True)
        count, cuda = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        return 0, f"it ends with {error.returncode}: {(error.stderr.strip().splitlines() or ['no word'])[-1][:160]}"
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        return 0, f"it cannot be asked: {type(error).__name__}"
    return int(count), "" if count else "it is built without CUDA" if cuda is None else f"it is built for CUDA {cuda} and finds no driver"
