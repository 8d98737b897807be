"""A store on a real S3 server, over good and bad networks."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3fs

from tests.integration import s3
from threephase_ray import bucket
from threephase_ray.bucket import Bucket
from threephase_ray.lock import Lock
from threephase_ray.results import MANIFEST, Store
from threephase_ray.storage import StoreError, connect
from threephase_ray.store import main

pytestmark = pytest.mark.integration

NAME = "phases/dae-1"


def random_file(path: Path, megabytes: float) -> Path:
    path.write_bytes(os.urandom(int(megabytes * 2**20)))
    return path


def test_an_upload_outlives_the_server(server: s3.Server, proxy: s3.Proxy, uri: str, tmp_path: Path) -> None:
    storage, path = connect(uri), random_file(tmp_path / "up", 2)
    storage.write("before", b"kept")
    proxy.rate = 2**20
    upload = threading.Thread(target=storage.upload, args=(path, "file"))
    upload.start()
    time.sleep(0.7)
    server.kill()
    assert upload.is_alive()
    time.sleep(0.5)
    server.start()
    proxy.rate = None
    upload.join(30)
    assert not upload.is_alive()
    storage.download("file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == path.read_bytes()
    assert storage.read("before") == b"kept"


@pytest.mark.usefixtures("direct")
def test_of_many_that_create_at_once_one_wins(uri: str) -> None:
    storage = connect(uri)
    assert storage.create("warm", b"")
    for attempt in range(2):
        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(lambda number: storage.create(f"locks/{attempt}", str(number).encode()), range(20)))  # noqa: B023
        assert sum(won) == 1
        assert storage.read(f"locks/{attempt}") == str(won.index(True)).encode()


@pytest.mark.usefixtures("direct")
def test_a_result_comes_back_as_it_was(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, lock = Store(uri, str(tmp_path / "here")), Lock(connect(uri), NAME)
    assert lock.try_acquire()
    folder = store.attempt(NAME, lock.token)
    (folder / "encoder").mkdir()
    weights = random_file(folder / "encoder" / "weights", 1).read_bytes()
    (folder / "empty").write_bytes(b"")
    lock.check()
    store.commit(NAME, lock.token)
    lock.release()
    other = Store(uri, str(tmp_path / "there"))
    assert (other.fetch(NAME) / "encoder" / "weights").read_bytes() == weights
    assert (other.fetch(NAME) / "empty").read_bytes() == b""
    assert store.fetch(NAME) == folder  # this node has it already
    assert other.damage(NAME, deep=True) is None
    assert main([uri, "verify"]) == 0
    assert main([uri, "prune"]) == 0
    assert "sound" in capsys.readouterr().out
    assert set(store.storage.sizes("phases")) == {f"{NAME}/{MANIFEST}", f"{NAME}/attempt-1/encoder/weights", f"{NAME}/attempt-1/empty"}
    store.storage.write(f"{NAME}/attempt-1/empty", b"1")
    assert "empty has other content" in str(other.damage(NAME))
    assert main([uri, "verify"]) == 1


def test_a_slow_network_only_takes_longer(proxy: s3.Proxy, uri: str, tmp_path: Path) -> None:
    storage, path = connect(uri), random_file(tmp_path / "up", 2)
    proxy.rate = 2**20
    started = time.monotonic()
    storage.upload(path, "file")
    storage.download("file", tmp_path / "down")
    assert time.monotonic() - started > 3
    assert (tmp_path / "down").read_bytes() == path.read_bytes()


def test_failing_requests_are_repeated(proxy: s3.Proxy, uri: str, tmp_path: Path) -> None:
    storage = connect(uri)
    proxy.failing = 0.05
    for number in range(25):
        assert storage.create(f"locks/{number}", str(number).encode())
        assert not storage.create(f"locks/{number}", b"another")
        storage.write("count", str(number).encode())
        assert storage.read("count") == str(number).encode()
        assert len(storage.sizes("locks")) == number + 1
    assert proxy.failures > 1


def test_a_network_that_is_cut_is_waited_for_and_then_explained(proxy: s3.Proxy, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Bucket(uri, patience=20.0)
    storage.write("a", b"1")
    proxy.cut = True
    back = threading.Timer(2.0, lambda: setattr(proxy, "cut", False))
    back.start()
    assert storage.read("a") == b"1"
    back.join()
    proxy.cut = True
    monkeypatch.setattr(bucket, "ATTEMPTS", 1)
    impatient = Bucket(uri, patience=1.0)
    with pytest.raises(StoreError, match="could not be reached for 1 s"):
        impatient.read("a")


def test_a_bucket_that_vanished_and_wrong_credentials_are_explained(
    direct: s3.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    direct.request("PUT", "vanishing")
    store = Store("s3://vanishing/store", str(tmp_path / "scratch"))
    (store.attempt(NAME, 1) / "file").write_bytes(b"1")
    assert not store.is_finished(NAME)
    direct.request("DELETE", "vanishing")
    calls = [lambda: store.commit(NAME, 1), lambda: store.fetch(NAME), lambda: store.attempts(NAME), Lock(store.storage, NAME).try_acquire]
    for call in calls:
        with pytest.raises(StoreError, match="bucket of s3://vanishing/store does not exist"):
            call()
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    with pytest.raises(StoreError, match=r"no permission for s3://bucket/store/a[^$]*check the credentials") as caught:
        connect("s3://bucket/store").write("a", b"1")
    assert "secret" not in str(caught.value)
