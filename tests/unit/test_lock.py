import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.unit import storages
from threephase_ray.folder import Folder
from threephase_ray.lock import Lock, LockLost
from threephase_ray.storage import Storage, StoreError, connect

SHORT = 0.6  # seconds of a lease
LONG = 60.0
HOLDER = """
import sys, time
from threephase_ray.lock import Lock
from threephase_ray.storage import connect
assert Lock(connect(sys.argv[1]), "phases/a", float(sys.argv[2])).try_acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=storages.KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return connect(storages.uri(request.param, tmp_path))


def holder(folder: Path, lease: float) -> subprocess.Popen[str]:
    """A process that holds the lock phases/a."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-c", HOLDER, str(folder), str(lease)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def move_away(storage: Storage, token: int) -> None:
    """Make the holder of a token one of another machine, about which nothing is known but its beats."""
    name = f"locks/phases/a/{token:08d}.json"
    storage.write(name, json.dumps(json.loads(storage.read(name)) | {"machine": "another"}).encode())


def test_one_holds_it_at_a_time_and_tokens_grow(storage: Storage) -> None:
    first, second = Lock(storage, "phases/a"), Lock(storage, "phases/a")
    assert first.free()
    assert first.try_acquire()
    assert first.try_acquire()  # has it already
    assert not second.free()
    assert not second.try_acquire()
    assert f"process {os.getpid()} on " in second.holder
    first.check()
    first.release()
    assert second.try_acquire()
    assert (first.token, second.token) == (1, 2)
    with pytest.raises(LockLost):
        first.check()
    second.check()


def test_a_block_releases_it_whatever_happens(storage: Storage) -> None:
    def fail() -> None:
        with Lock(storage, "phases/a") as lock:
            assert lock.try_acquire()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert Lock(storage, "phases/a").try_acquire()


def test_locks_of_other_names_are_others(storage: Storage) -> None:
    locks = [Lock(storage, name) for name in ("phases", "phases/a", "phases/a/b", "data/a")]
    assert [lock.try_acquire() for lock in locks] == [True] * 4
    assert [lock.token for lock in locks] == [1] * 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path: Path, number: signal.Signals) -> None:
    process, lock = holder(tmp_path, LONG), Lock(connect(str(tmp_path)), "phases/a", LONG)
    assert not lock.try_acquire()
    process.send_signal(number)
    while process.poll() is None:
        time.sleep(0.01)
    started = time.monotonic()
    assert lock.try_acquire()
    assert time.monotonic() - started < 1
    assert lock.token == 2


def test_a_process_elsewhere_is_replaced_after_its_lease_without_a_beat(tmp_path: Path) -> None:
    storage = connect(str(tmp_path))
    process, lock = holder(tmp_path, SHORT), Lock(storage, "phases/a", LONG)  # the holder's own lease counts
    move_away(storage, 1)
    deadline = time.monotonic() + 3 * SHORT
    while time.monotonic() < deadline:
        assert not lock.try_acquire()  # for it lives
        time.sleep(0.05)
    process.kill()
    process.wait()
    started = time.monotonic()
    while not lock.try_acquire():
        time.sleep(0.02)
    assert SHORT * 0.7 < time.monotonic() - started < 5 * SHORT
    assert lock.token == 2


def test_a_holder_that_slept_finds_itself_replaced(tmp_path: Path) -> None:
    storage = connect(str(tmp_path))
    asleep, other = Lock(storage, "phases/a", SHORT), Lock(storage, "phases/a", SHORT)
    assert asleep.try_acquire()
    asleep._stop.set()  # no beats any more, as in a process that was stopped
    move_away(storage, 1)
    other.acquire(lambda words: None, every=0.05)
    with pytest.raises(LockLost, match="another run took over phases/a"):
        asleep.check()
    asleep.release()  # must not release what another one holds
    other.check()
    assert not Lock(storage, "phases/a").free()


def test_a_lock_that_was_pruned_is_lost(storage: Storage) -> None:
    lock, other = Lock(storage, "phases/a"), Lock(storage, "phases/a")
    assert lock.try_acquire()
    storage.remove("locks/phases/a")
    with pytest.raises(LockLost):
        lock.check()
    assert other.try_acquire()


def test_the_same_token_of_another_is_not_ones_own(storage: Storage) -> None:
    lock, other = Lock(storage, "phases/a"), Lock(storage, "phases/a")
    assert lock.try_acquire()
    storage.remove("locks/phases/a")
    assert other.try_acquire()
    assert lock.token == other.token == 1
    with pytest.raises(LockLost):
        lock.check()
    other.check()


class Late(Folder):
    """A folder of which one listing is old."""

    old: dict[str, int] | None = None

    def sizes(self, prefix: str) -> dict[str, int]:
        found, self.old = self.old, None
        return super().sizes(prefix) if found is None else found


def test_who_comes_with_an_old_listing_backs_off(tmp_path: Path) -> None:
    late, storage = Late(tmp_path), Folder(tmp_path)
    for _ in range(2):
        with Lock(storage, "phases/a") as earlier:
            assert earlier.try_acquire()
    old = storage.sizes("locks/phases/a")
    with Lock(storage, "phases/a") as third:
        assert third.try_acquire()
    fourth = Lock(storage, "phases/a")
    assert fourth.try_acquire()  # removes the files of the third token, which is free again to create
    late.old = old
    newcomer = Lock(late, "phases/a")
    assert not newcomer.try_acquire()
    fourth.check()
    assert not newcomer.try_acquire()
    assert fourth.token == 4


class Away(Folder):
    """A folder that cannot be written while it is away."""

    away = False

    def write(self, name: str, content: bytes) -> None:
        if self.away:
            raise StoreError("the store is away")
        super().write(name, content)


def test_a_beat_that_cannot_be_written_kills_nobody(tmp_path: Path) -> None:
    storage = Away(tmp_path)
    lock = Lock(storage, "phases/a", SHORT)
    assert lock.try_acquire()
    storage.away = True
    time.sleep(SHORT)
    lock.check()
    storage.away = False
    before = storage.sizes("locks/phases/a")
    time.sleep(SHORT)
    assert storage.read("locks/phases/a/00000001.beat") > b"1"
    assert before.keys() <= storage.sizes("locks/phases/a").keys()
    storage.away = True
    lock.release()  # the others will have it after the lease
    storage.away = False
    assert "locks/phases/a/00000001.released" not in storage.sizes("locks")


def test_waiting_tells_for_whom_and_ends_when_it_is_free(storage: Storage) -> None:
    lock, told = Lock(storage, "phases/a"), list[str]()
    assert lock.try_acquire()
    threading.Timer(0.3, lock.release).start()
    with Lock(storage, "phases/a") as other:
        other.acquire(told.append, every=0.02)
        assert other.token == 2
    assert len(told) == 1
    assert "process" in told[0]


def test_two_are_never_inside_and_few_files_remain(tmp_path: Path) -> None:
    storage, inside, tokens = connect(str(tmp_path)), list[int](), list[int]()

    def work() -> None:
        for _ in range(5):
            with Lock(storage, "phases/a") as lock:
                lock.acquire(lambda words: None, every=0.001)
                inside.append(1)
                assert len(inside) == 1
                tokens.append(lock.token)
                lock.check()
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 30
    assert len(storage.sizes("locks")) < 10
