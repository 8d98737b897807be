import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threephase_ray import store
from threephase_ray.config import ConfigError, JobError

PARTS: dict[str, Any] = {"phase": "dae", "version": 1, "parent": None, "knobs": {"noise_ratio": 0.6, "names": ["a", "b"]}}
NOBODY = 65534


def finished(folder: Path) -> Path:
    """A finished folder with two files."""
    store.begin(folder)
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text("{}")
    store.commit(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [{"phase": "joint"}, {"version": 2}, {"parent": "0"}, {"knobs": {"noise_ratio": 0.61, "names": ["a", "b"]}}, {"more": None}],
)
def test_a_key_follows_every_part(change: dict[str, Any]) -> None:
    assert store.key(PARTS | change) != store.key(PARTS)


def test_a_key_is_short_and_knows_no_order() -> None:
    assert store.key(dict(reversed(PARTS.items()))) == store.key(PARTS)
    assert len(store.key(PARTS)) == 16
    assert int(store.key(PARTS), 16) >= 0


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), (object(), TypeError), ({1}, TypeError)]
)
def test_what_has_no_meaningful_hash_is_refused(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.key(PARTS | {"knobs": value})


def test_a_folder_is_finished_once_it_is_committed(tmp_path: Path) -> None:
    folder = store.begin(tmp_path / "phases" / "dae")
    (folder / "weights").write_bytes(b"0")
    assert not store.is_finished(folder)
    store.commit(folder)
    assert store.is_finished(folder)
    assert store.damage(folder) is None


def test_an_unfinished_attempt_is_cleared_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    folder = store.begin(tmp_path / "dae")
    (folder / "rest").write_text("of an attempt that was killed")
    assert list(store.begin(folder).iterdir()) == []
    finished(folder)
    with pytest.raises(JobError, match="is finished"):
        store.begin(folder)
    assert store.damage(folder) is None


def test_damage_is_found(tmp_path: Path) -> None:
    changes = {
        "weights is missing": lambda folder: (folder / "weights").unlink(),
        "weights has other content": lambda folder: os.truncate(folder / "weights", 9),
        "encoder/config.json has other content": lambda folder: (folder / "encoder" / "config.json").write_text("[]"),
        "manifest.json cannot be read": lambda folder: os.truncate(folder / store.MANIFEST, 20),
    }
    for number, (problem, change) in enumerate(changes.items()):
        folder = finished(tmp_path / str(number))
        change(folder)
        found = store.damage(folder)
        assert found is not None
        assert problem in found


def test_json_is_written_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    store.write_json(tmp_path / "a.json", {"loss": 0.5})
    store.write_json(tmp_path / "a.json", {"loss": 0.25})
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n "loss": 0.25\n}'


def test_the_root_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.root("a/store") == tmp_path / "a" / "store"
    assert (tmp_path / "a" / "store").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.root("~/mine") == tmp_path / "mine"


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="store: cannot make the folder"):
            store.root(str(path))
    with pytest.raises(ConfigError, match="is a URI"):
        store.root("s3://bucket/store")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Rights that a user has, also where the tests run as root."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that nobody may write into, outside of pytest's own, which other users cannot enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        yield Path(folder)
        Path(folder).chmod(0o755)


@pytest.mark.usefixtures("unprivileged")
def test_a_root_without_permission_is_refused(read_only: Path) -> None:
    with pytest.raises(ConfigError, match="no permission to write"):
        store.root(str(read_only))
    with pytest.raises(ConfigError, match="cannot make the folder"):
        store.root(str(read_only / "store"))
