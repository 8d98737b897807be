"""What goes to a running cluster: the project's files without data, and the configuration as one more file."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pathspec import GitIgnoreSpec
from rich.filesize import decimal

from threephase_ray.errors import ConfigError

CONFIG = ".threephase-ray.yaml"  # in the upload; hidden files are not uploaded, so it meets no other
LIMIT = 100 * 2**20  # bytes: more than that Ray does not take
_IGNORES = (".gitignore", ".rayignore")
_MOMENT = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same content is the same upload, which Ray keeps
_NAMED = 5  # files that a message names


def files(root: Path) -> dict[str, Path]:
    """The files below `root` by their names in the upload, but for those that .gitignore or .rayignore name, and hidden ones."""
    found: dict[str, Path] = {}
    rules: dict[Path, list[GitIgnoreSpec]] = {}
    for top, folders, names in os.walk(root):
        here = Path(top)
        rules[here] = [_rules(here / name) for name in _IGNORES]
        above = {folder: rules[folder] for folder in (here, *here.parents) if folder in rules}
        folders[:] = sorted(name for name in folders if not _is_left_out(here / name, above, "/"))
        found |= {(here / name).relative_to(root).as_posix(): here / name for name in sorted(names) if not _is_left_out(here / name, above)}
    return found


def _rules(path: Path) -> GitIgnoreSpec:
    """What a file of patterns says; nothing where there is none."""
    return GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [])


def _is_left_out(path: Path, rules: dict[Path, list[GitIgnoreSpec]], end: str = "") -> bool:
    """Whether a file, or with `end` a folder, stays here: hidden ones hold settings and secrets, never code."""
    if path.name.startswith(".") or not (path.is_file() or end):
        return True
    return any(each.match_file(path.relative_to(folder).as_posix() + end) for folder, some in rules.items() for each in some)


def refuse_if_large(found: dict[str, Path]) -> None:
    """Refuse more than Ray takes, before anything is packed or sent.

    Raises:
        ConfigError: names the largest files.
    """
    if (size := _size(found.values())) > LIMIT:
        advice = "name what is no code in .gitignore, and give texts and stores by an absolute path or a URI"
        raise ConfigError(f"{decimal(size)} would be uploaded, Ray takes {decimal(LIMIT)}: {_largest(found)}\n  {advice}")


def described(found: dict[str, Path]) -> str:
    """The upload in words."""
    return f"{len(found)} files, {decimal(_size(found.values()))}; the largest: {_largest(found)}"


def _largest(found: dict[str, Path]) -> str:
    """The largest files with their sizes."""
    sizes = sorted(((path.stat().st_size, name) for name, path in found.items()), reverse=True)[:_NAMED]
    return ", ".join(f"{name} {decimal(size)}" for size, name in sizes)


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def pack(found: dict[str, Path], config: str, archive: Path) -> Path:
    """Write the files and the configuration into a zip archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        contents = {name: path.read_bytes() for name, path in found.items()} | {CONFIG: config.encode()}
        for name in sorted(contents):
            packed.writestr(zipfile.ZipInfo(name, _MOMENT), contents[name], zipfile.ZIP_DEFLATED)
    return archive
