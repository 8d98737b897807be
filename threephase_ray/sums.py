"""SHA-256 of the files of an exported model, in the format of `sha256sum`, which checks them: `sha256sum -c SHA256SUMS`."""

from pathlib import Path

from threephase_ray.digest import digest

NAME = "SHA256SUMS"


def seal(folder: Path) -> None:
    """Write the sums of all files below `folder`, again where they are written already."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    lines = [f"{digest(path).hex()}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")
