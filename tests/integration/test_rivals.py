"""Processes that want the same result, of which some are killed or stopped: on a folder, and on a real S3 server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from threephase_ray.lock import Lock
from threephase_ray.results import MANIFEST, Store
from threephase_ray.storage import connect
from threephase_ray.store import main

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SHORT = 1.5  # seconds of a lease
NAME = "phases/dae-1"
WORKER = """
import sys
from threephase_ray.lock import Lock, LockLost
from threephase_ray.results import Store

def make(store, name, lock, how):
    folder = store.attempt(name, lock.token)
    for part in range(2):
        (folder / str(part)).write_text(f"{sys.argv[2]} {lock.token} {part}")
    if how != "at-once":
        print("made", flush=True)
        sys.stdin.readline()
    if how != "careless":
        lock.check()
    store.commit(name, lock.token)
    return "committed"

store = Store(sys.argv[1], sys.argv[2])
for line in iter(sys.stdin.readline, ""):
    name, how = line.split()
    with Lock(store.storage, name, float(sys.argv[3])) as lock:
        lock.acquire(lambda holder: None, every=0.25)
        try:
            print("there" if store.is_finished(name) else make(store, name, lock, how), flush=True)
        except LockLost:
            print("lost", flush=True)
"""


def worker(uri: str, scratch: Path, lease: float = 30.0) -> subprocess.Popen[str]:
    """A process that makes results on demand: it reads "NAME HOW", and unless that is at-once one more line before it commits."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", WORKER, uri, str(scratch), str(lease)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Give a worker a line."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    """The next line of a worker."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.usefixtures("direct")
def test_a_killed_holder_is_replaced(uri: str, tmp_path: Path) -> None:
    held = worker(uri, tmp_path)
    tell(held, f"{NAME} careful")
    assert answer(held) == "made"
    lock = Lock(connect(uri), NAME)
    assert not lock.try_acquire()
    held.kill()
    held.wait()
    started = time.monotonic()
    assert lock.try_acquire()
    assert lock.token == 2
    assert time.monotonic() - started < 5  # far below the lease
    lock.check()
    lock.release()


@pytest.mark.usefixtures("direct")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_two_that_want_the_same_make_it_once(uri: str, tmp_path: Path, kind: str) -> None:
    place = uri if kind == "s3" else str(tmp_path / "store")
    workers = [worker(place, tmp_path / name) for name in ("one", "two")]
    for trial in range(20):
        for process in workers:
            tell(process, f"phases/dae-{trial} at-once")
        assert sorted(answer(process) for process in workers) == ["committed", "there"]
    for process in workers:
        process.kill()
        process.wait()
    sizes = connect(place).sizes("phases")
    files = [*(f"attempt-1/{part}" for part in range(2)), MANIFEST]
    assert sizes.keys() == {f"phases/dae-{trial}/{file}" for trial in range(20) for file in files}
    assert main([place, "verify"]) == 0


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("how", ["careful", "careless"])
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_holder_that_was_stopped_cannot_change_the_result(uri: str, tmp_path: Path, kind: str, how: str) -> None:
    place = uri if kind == "s3" else str(tmp_path / "store")
    asleep, store = worker(place, tmp_path / "asleep", SHORT), Store(place, str(tmp_path / "scratch"))
    tell(asleep, f"{NAME} {how}")
    assert answer(asleep) == "made"
    asleep.send_signal(signal.SIGSTOP)
    with Lock(store.storage, NAME, SHORT) as lock:
        lock.acquire(lambda holder: None, every=0.25)
        assert lock.token == 2
        (store.attempt(NAME, lock.token) / "0").write_text("mine")
        lock.check()
        store.commit(NAME, lock.token)
    before, manifest = store.storage.sizes(NAME), store.storage.read(f"{NAME}/{MANIFEST}")
    asleep.send_signal(signal.SIGCONT)
    tell(asleep, "")
    assert answer(asleep) == ("lost" if how == "careful" else "committed")  # nothing, for another was first
    asleep.kill()
    asleep.wait()
    assert store.storage.read(f"{NAME}/{MANIFEST}") == manifest
    assert store.storage.sizes(NAME) == before
    assert (store.fetch(NAME) / "0").read_text() == "mine"
