"""Exported models sent to a hub. `huggingface_hub` finds token and address by itself: HF_TOKEN or `hf auth login`, HF_ENDPOINT."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from threephase_ray import sums
from threephase_ray.errors import JobError, ResourceError
from threephase_ray.exporting import Push

MESSAGE = "Upload by threephase-ray"


@dataclass(frozen=True)
class Parcel:
    """A folder, and the repository that it is for."""

    folder: Path
    repo: str


def parcels(push: Push | None, model: Path) -> list[Parcel]:
    """What is to be sent of a `model` folder, each file compared with its sum.

    Raises:
        JobError: a folder is missing, or does not fit its sums.
    """
    wishes = {"classifier": push.repo, "encoder": push.encoder_repo} if push else {}
    found = [Parcel(model / part, repo) for part, repo in wishes.items() if repo]
    for parcel in found:
        if not parcel.folder.is_dir():
            raise JobError(f"push: {model} has no folder {parcel.folder.name}\n  name a run that trained one, or leave its repository out")
        sums.verify(parcel.folder)
    return found


def send(parcel: Parcel, *, private: bool) -> str:
    """Bring the folder into its repository, which is made if there is none, and return the address of the commit.

    What the repository holds already is not sent again.

    Raises:
        ResourceError: the hub does not take it.
    """
    from huggingface_hub import HfApi  # here, so that ONNX alone needs no hub; it reads HF_ENDPOINT when it is imported

    hub = HfApi()
    with _explained(parcel.repo, hub.endpoint):
        hub.create_repo(parcel.repo, private=private, exist_ok=True)
        is_private = hub.model_info(parcel.repo).private
    if private and not is_private:
        raise ResourceError(f"push: {parcel.repo} is public, so nothing was sent\n  make it private, or set push.private to false")
    with _explained(parcel.repo, hub.endpoint):
        return str(hub.upload_folder(repo_id=parcel.repo, folder_path=parcel.folder, commit_message=MESSAGE).commit_url)


@contextlib.contextmanager
def _explained(repo: str, endpoint: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error that says what to do."""
    try:
        yield
    except Exception as error:  # of the client's many kinds
        raise ResourceError(
            f"push: {repo} was not sent to {endpoint}: {_reason(error)}\n"
            "  the token comes from HF_TOKEN or `hf auth login`, and must be allowed to write there;\n"
            "  the same command again sends what is missing"
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong in a line, without the token, which a client names when it cannot be sent."""
    return re.sub(r"Bearer.*", "Bearer ...", f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]
