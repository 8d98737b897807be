import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit import storages
from threephase_ray import store as upkeep
from threephase_ray.lock import Lock
from threephase_ray.store import MANIFEST, Store, main

DAY = 86_400


@pytest.fixture(params=storages.KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(upkeep, "LEASE", 0.3)  # so long are holders watched
    return Store(storages.uri(request.param, tmp_path), str(tmp_path / "scratch"))


def made(store: Store, name: str, days: float = 0.0) -> None:
    """A finished result, made under its lock so many days ago."""
    with Lock(store.storage, name) as lock:
        assert lock.try_acquire()
        (store.attempt(name, lock.token) / "weights").write_bytes(b"0" * 1000)
        store.commit(name, lock.token)
    manifest = store.read_json(f"{name}/{MANIFEST}")
    store.write_json(f"{name}/{MANIFEST}", manifest | {"time": time.time() - days * DAY})


def begun(store: Store, name: str) -> Lock:
    """A phase that is being made: an attempt, a checkpoint, and the lock."""
    lock = Lock(store.storage, name)
    assert lock.try_acquire()
    store.storage.write(f"{name}/attempt-{lock.token}/weights", b"0" * 500)
    store.storage.write(f"progress/{name.split('/')[1]}/step-4/weights", b"0" * 500)
    return lock


def said(store: Store, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command prints."""
    capsys.readouterr()
    assert main([store.storage.uri, *arguments]) == code
    return capsys.readouterr().out


def row(text: str, name: str) -> list[str]:
    """The cells of a table's row."""
    (line,) = [line for line in text.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_list_tells_state_size_and_holder(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    made(store, "data/1", days=3)
    made(store, "phases/dae-2")
    begun(store, "phases/contrastive-3").release()
    held = begun(store, "phases/finetune-4")
    text = said(store, capsys, "list")
    assert row(text, "data/1") == ["data/1", "1.2 kB", "3 days", "finished", ""]
    assert row(text, "dae-2")[2:] == ["0 minutes", "finished", ""]
    assert row(text, "contrastive-3")[1:] == ["1.0 kB", "", "broken off", ""]
    assert row(text, "finetune-4")[3] == "in progress"
    assert f"process {os.getpid()}" in row(text, "finetune-4")[4]
    held.check()


def test_verify_finds_changed_bytes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    made(store, "data/1")
    made(store, "phases/dae-2")
    assert row(said(store, capsys, "verify"), "dae-2")[1] == "sound"
    store.storage.write("phases/dae-2/attempt-1/weights", b"1" * 1000)
    text = said(store, capsys, "verify", code=1)
    assert "weights has other content" in row(text, "dae-2")[1]
    assert row(text, "data/1")[1] == "sound"
    assert "1 of 2 damaged" in text
    assert "dae-2" in said(store, capsys, "prune", "--damaged")
    assert list(store.storage.sizes("phases")) == []
    assert store.is_finished("data/1")
    assert "dae-2" not in said(store, capsys, "verify")


def test_prune_removes_what_nobody_needs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    made(store, "phases/dae-1", days=9)
    store.storage.write("phases/dae-1/attempt-7/weights", b"0")
    store.storage.write("progress/dae-1/step-4/weights", b"0")
    begun(store, "phases/contrastive-2").release()
    before = store.storage.sizes("phases") | store.storage.sizes("progress") | store.storage.sizes("locks")
    text = said(store, capsys, "prune", "--dry-run")
    assert store.storage.sizes("phases") | store.storage.sizes("progress") | store.storage.sizes("locks") == before
    assert row(text, "phases/dae-1/attempt-7")[2] == "attempt that was broken off"
    text = said(store, capsys, "prune")
    assert row(text, "progress/dae-1")[2] == "checkpoints of a finished phase"
    assert list(store.storage.sizes("phases")) == ["phases/dae-1/attempt-1/weights", "phases/dae-1/manifest.json"]
    assert list(store.storage.sizes("progress")) == ["progress/contrastive-2/step-4/weights"]  # from here it goes on
    assert not [name for name in store.storage.sizes("locks") if "dae-1" in name]
    assert (store.fetch("phases/dae-1") / "weights").is_file()
    continued = Lock(store.storage, "phases/contrastive-2")
    assert continued.try_acquire()
    assert continued.token > 1  # tokens of what is not finished go on growing


def test_prune_removes_old_phases_only_when_asked(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name, days in {"phases/dae-1": 9, "phases/dae-2": 1, "data/3": 9}.items():
        made(store, name, days)
    assert "9 days" not in said(store, capsys, "prune")
    assert row(said(store, capsys, "prune", "--older-than", "5"), "│ phases/dae-1 ")[2] == "finished 9 days ago"
    assert [name for name in ("phases/dae-1", "phases/dae-2", "data/3") if store.is_finished(name)] == ["phases/dae-2", "data/3"]
    assert store.storage.sizes("phases/dae-1") == {}


def test_prune_leaves_alone_what_is_held(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    held, run = begun(store, "phases/dae-1"), Lock(store.storage, "runs/mine")
    store.storage.write("phases/dae-1/attempt-9/weights", b"0")
    made(store, "phases/contrastive-2", days=9)
    assert run.try_acquire()
    before = store.storage.sizes("phases") | store.storage.sizes("progress")
    text = said(store, capsys, "prune", "--older-than", "5", "--damaged")
    assert "left alone: held by process" in row(text, "phases/dae-1")[2]
    assert "left alone" in row(text, "runs/mine")[2]
    assert store.storage.sizes("phases") | store.storage.sizes("progress") == before  # the run may read contrastive-2
    held.check()
    run.check()
    run.release()
    said(store, capsys, "prune", "--older-than", "5")
    assert not store.is_finished("phases/contrastive-2")
    held.check()


def test_a_holder_that_died_elsewhere_is_watched_for_a_lease(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    lock = begun(store, "phases/dae-1")
    lock._stop.set()
    name = "locks/phases/dae-1/00000001.json"
    store.storage.write(name, json.dumps(json.loads(store.storage.read(name)) | {"machine": "another", "lease": 0.2}).encode())
    assert row(said(store, capsys, "list"), "dae-1")[3] == "in progress"  # as far as can be told at once
    text = said(store, capsys, "prune")
    assert "watching" in text
    assert row(text, "attempt-1")[2] == "attempt that was broken off"
    assert store.attempts("phases/dae-1") == []


def test_exit_codes_are_those_of_the_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent"), "list"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["nosuch://bucket/a", "verify"]) == 2
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "verify"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])


def test_it_is_a_command_that_starts_at_once(root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, "-X", "importtime", "-m", "threephase_ray.store", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "list|verify|prune" in done.stdout
    assert not [
        line for line in done.stderr.splitlines() if line.split("|")[-1].strip() in ("torch", "ray", "deepspeed", "s3fs", "pyarrow")
    ]
