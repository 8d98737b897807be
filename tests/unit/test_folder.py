import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from threephase_ray.storage import StoreError, connect

NOBODY = 65534


def test_of_many_that_create_at_once_one_wins(tmp_path: Path) -> None:
    storage = connect(str(tmp_path))
    with ThreadPoolExecutor(20) as pool:
        for attempt in range(10):
            gate = threading.Barrier(20)

            def create(number: int, name: str = f"a/{attempt}", gate: threading.Barrier = gate) -> bool:
                gate.wait()
                return storage.create(name, str(number).encode())

            winners = [number for number, won in enumerate(pool.map(create, range(20))) if won]
            assert [storage.read(f"a/{attempt}")] == [str(number).encode() for number in winners]


def test_a_reader_sees_a_whole_file_or_none(tmp_path: Path) -> None:
    storage, contents = connect(str(tmp_path)), {bytes([letter]) * 300_000 for letter in b"abc"}
    storage.write("a/file", min(contents))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                storage.write("a/file", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(storage.read("a/file") in contents and set(storage.sizes("a")) == {"a/file"} for _ in range(200))
    finally:
        stop.set()
        writer.join()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_exclusive_creation_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "link", link)
    storage = connect(str(tmp_path))
    assert storage.create("locks/a", b"1")
    assert not storage.create("locks/a", b"2")
    assert storage.create("locks/a", b"1")
    assert storage.sizes("locks") == {"locks/a": 1}


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EIO, "cannot be")])
def test_what_a_disk_refuses_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    storage = connect(str(tmp_path))
    for call in (storage.write, storage.create):
        with pytest.raises(StoreError, match=words) as caught:
            call("a/b", b"1")
        assert str(tmp_path / "a/b") in str(caught.value)
    assert caught.value.code == 4
    assert storage.sizes("a") == {}


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
def test_a_folder_without_permission_is_explained(read_only: Path) -> None:
    for folder in (read_only, read_only / "store"):
        with pytest.raises(StoreError, match="no permission for"):
            connect(str(folder)).write("a", b"1")
    assert connect(str(read_only)).sizes("a") == {}


def test_a_file_in_the_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be read or written"):
        connect(str(tmp_path / "file")).write("a/b", b"1")
