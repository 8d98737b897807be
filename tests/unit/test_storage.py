from pathlib import Path

import pytest

from tests.unit import storages
from threephase_ray.errors import ConfigError
from threephase_ray.storage import Storage, connect


@pytest.fixture(params=storages.KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return connect(storages.uri(request.param, tmp_path))


def test_what_is_written_is_read_replaced_and_removed(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("a/b")
    storage.write("a/b", b"1")
    assert storage.read("a/b") == b"1"
    storage.write("a/b", b"")
    assert storage.read("a/b") == b""
    storage.remove("a/b")
    storage.remove("a/b")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b")
    assert storage.sizes("a") == {}


def test_a_file_is_created_once(storage: Storage) -> None:
    assert storage.create("locks/a", b"1")
    assert not storage.create("locks/a", b"2")
    assert storage.create("locks/a", b"1")  # as when the answer to the first request was lost
    assert storage.sizes("locks") == {"locks/a": 1}
    assert storage.read("locks/a") == b"1"


def test_sizes_are_those_below_a_name(storage: Storage) -> None:
    for name, size in {"a/b": 1, "a/c/d": 2, "ab/c": 4}.items():
        storage.write(name, b"0" * size)
    assert storage.sizes("a") == {"a/b": 1, "a/c/d": 2}
    assert storage.sizes("a/b") == {"a/b": 1}
    assert storage.sizes("b") == {}
    storage.remove("a")
    assert (storage.sizes("a"), storage.sizes("ab")) == ({}, {"ab/c": 4})


def test_files_go_up_and_down(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"0" * 100_000)
    storage.upload(tmp_path / "up", "runs/a/file")
    storage.download("runs/a/file", tmp_path / "down" / "file")
    assert (tmp_path / "down" / "file").read_bytes() == b"0" * 100_000
    with pytest.raises(FileNotFoundError):
        storage.download("runs/a/other", tmp_path / "down" / "other")
    assert [path.name for path in (tmp_path / "down").iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "a\0"])
def test_a_name_that_leads_elsewhere_is_refused(storage: Storage, name: str, tmp_path: Path) -> None:
    for call in (
        storage.read,
        storage.sizes,
        storage.remove,
        lambda name: storage.write(name, b""),
        lambda name: storage.create(name, b""),
    ):
        with pytest.raises(ValueError, match="is no name in a store"):
            call(name)
    with pytest.raises(ValueError, match="is no name in a store"):
        storage.download(name, tmp_path / "a")


def test_a_uri_says_what_kind_of_storage_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert connect("a/store").folder == tmp_path / "a" / "store"
    assert connect("~/mine").uri == str(tmp_path / "home" / "mine")
    assert connect(f"file://{tmp_path}").folder == tmp_path
    assert connect("memory://bucket/store/").uri == "memory://bucket/store"
    assert connect("memory://bucket/store").folder is None
    assert list(tmp_path.iterdir()) == []  # nothing is made before it is needed


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nosuch://bucket/store", "Protocol not known"),
        ("oci://bucket/store", "needs a package that is not installed"),
        ("s3://key:hidden@bucket/store", "credentials do not belong"),
        ("s3://hidden@bucket/store", "credentials do not belong"),
        ("s3://bucket/store?key=hidden", "has no"),
        ("s3:///store", "has no bucket"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        connect(uri)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).startswith("store: ")
