"""SHA-256 of the files of an exported model, in the format of `sha256sum`, which checks them: `sha256sum -c SHA256SUMS`."""

from pathlib import Path

from threephase_ray.digest import digest
from threephase_ray.errors import JobError

NAME = "SHA256SUMS"


def seal(folder: Path) -> None:
    """Write the sums of all files below `folder`, again where they are written already."""
    (folder / NAME).write_text("".join(_lines(folder)), encoding="utf-8")


def verify(folder: Path) -> None:
    """Compare the files below a folder with its sums, where it has any.

    Raises:
        JobError: a file is missing, is not named there, or has other content.
    """
    if not (folder / NAME).is_file():
        return
    expected = (folder / NAME).read_text(encoding="utf-8").splitlines(keepends=True)
    if wrong := {line.rstrip("\n").partition("  ")[2] for line in set(expected) ^ set(_lines(folder))}:
        names = ", ".join(sorted(wrong))[:300]
        raise JobError(f"{folder}: does not fit its {NAME}: {names}\n  it changed after it was exported: export it again")


def _lines(folder: Path) -> list[str]:
    """A line for each file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return [f"{digest(path).hex()}  {path.relative_to(folder).as_posix()}\n" for path in files]
