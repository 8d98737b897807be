import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit import storages
from threephase_ray.errors import JobError
from threephase_ray.results import MANIFEST, Store, key
from threephase_ray.storage import StoreError

PARTS: dict[str, Any] = {"phase": "dae", "version": 1, "parent": None, "knobs": {"noise_ratio": 0.6, "names": ["a", "b"]}}
NAME = "phases/dae-1"


@pytest.fixture(params=storages.KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(storages.uri(request.param, tmp_path), str(tmp_path / "scratch"))


def made(store: Store, token: int = 1, weights: bytes = b"0123456789") -> None:
    """Commit a small result."""
    folder = store.attempt(NAME, token)
    (folder / "encoder").mkdir()
    (folder / "weights").write_bytes(weights)
    (folder / "encoder" / "config.json").write_text("{}")
    store.commit(NAME, token)


def change(store: Store, name: str, content: bytes | None) -> None:
    """Change or remove a file of the result behind the store's back."""
    path = name if name == MANIFEST else f"attempt-1/{name}"
    store.storage.remove(f"{NAME}/{path}")
    if content is not None:
        store.storage.write(f"{NAME}/{path}", content)


@pytest.mark.parametrize(
    "change", [{"phase": "joint"}, {"version": 2}, {"parent": "0"}, {"knobs": {"noise_ratio": 0.60000001, "names": ["a", "b"]}}]
)
def test_a_key_follows_every_part(change: dict[str, Any]) -> None:
    assert key(PARTS | change) != key(PARTS)


def test_a_key_does_not_depend_on_the_order_of_the_parts() -> None:
    assert key(dict(reversed(PARTS.items()))) == key(PARTS)
    assert len(key(PARTS)) == 16
    assert int(key(PARTS), 16) >= 0


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), (object(), TypeError), ({1}, TypeError)]
)
def test_what_has_no_meaningful_hash_is_refused(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        key(PARTS | {"knobs": value})


def test_a_result_is_finished_once_it_is_committed(store: Store) -> None:
    folder = store.attempt(NAME, 1)
    (folder / "weights").write_bytes(b"0")
    assert not store.is_finished(NAME)
    with pytest.raises(JobError, match=f"{NAME}: is not finished"):
        store.fetch(NAME)
    store.commit(NAME, 1)
    assert store.is_finished(NAME)
    assert store.damage(NAME) is None
    assert store.damage(NAME, deep=True) is None
    assert (store.fetch(NAME) / "weights").read_bytes() == b"0"
    manifest = json.loads(store.storage.read(f"{NAME}/{MANIFEST}"))
    assert manifest["attempt"] == "attempt-1"
    assert manifest["files"]["weights"] == {"size": 1, "sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"}


def test_an_attempt_starts_empty_and_can_be_dropped(store: Store) -> None:
    (store.attempt(NAME, 1) / "rest").write_text("of an attempt that was killed")
    assert list(store.attempt(NAME, 1).iterdir()) == []
    with pytest.raises(JobError, match="has no files"):
        store.commit(NAME, 1)
    (store.attempt(NAME, 1) / "rest").write_text("of an attempt that failed")
    store.discard(NAME, 1)
    assert store.storage.sizes("phases") == {}
    assert not store.place(f"{NAME}/attempt-1").exists()


def test_the_first_commit_counts(store: Store) -> None:
    first, second = store.attempt(NAME, 1), store.attempt(NAME, 2)
    (first / "weights").write_bytes(b"first")
    (second / "weights").write_bytes(b"second")
    store.commit(NAME, 2)
    before = store.storage.read(f"{NAME}/{MANIFEST}")
    first.mkdir(exist_ok=True)
    (first / "weights").write_bytes(b"first")
    store.commit(NAME, 1)
    assert store.storage.read(f"{NAME}/{MANIFEST}") == before
    assert store.attempts(NAME) == ["attempt-2"]
    assert (store.fetch(NAME) / "weights").read_bytes() == b"second"


def test_attempts_that_were_broken_off_go_with_the_commit(store: Store, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"part")
    for token in (1, 3):
        store.put(tmp_path / "part", f"{NAME}/attempt-{token}/part")
    made(store, token=2)
    assert store.attempts(NAME) == ["attempt-2", "attempt-3"]  # a later one is somebody's who has yet to notice


def test_a_torn_manifest_counts_as_none(store: Store) -> None:
    made(store)
    content = store.storage.read(f"{NAME}/{MANIFEST}")
    for torn in (content[:20], b"", b"[]", b"{}"):
        change(store, MANIFEST, torn)
        assert not store.is_finished(NAME)
    made(store, token=2)
    assert store.damage(NAME) is None
    assert store.attempts(NAME) == ["attempt-2"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("weights", None, "weights is missing"),
        ("weights", b"012345678", "weights has other content"),
        ("encoder/config.json", b"[", "encoder/config.json has other content"),
        (MANIFEST, None, "manifest.json is missing or cannot be read"),
        (MANIFEST, b"{", "manifest.json is missing or cannot be read"),
    ],
)
def test_damage_is_found(store: Store, tmp_path: Path, file: str, content: bytes | None, problem: str) -> None:
    made(store)
    change(store, file, content)
    found = store.damage(NAME)
    assert found is not None
    assert problem in found
    other_node = Store(store.storage.uri, str(tmp_path / "other"))
    with pytest.raises(JobError, match=NAME) as caught:
        other_node.fetch(NAME)
    assert file != MANIFEST or "is not finished" in str(caught.value)
    assert file == MANIFEST or "prune --damaged" in str(caught.value)


def test_damage_that_keeps_the_size_needs_a_deep_look_at_an_object_store(store: Store, tmp_path: Path) -> None:
    made(store)
    change(store, "weights", b"012345678X")
    local = store.storage.folder is not None
    assert (store.damage(NAME) is not None) == local
    assert store.damage(NAME, deep=True) == "weights has other content than when it was finished"
    with pytest.raises(JobError, match="weights has other content"):
        Store(store.storage.uri, str(tmp_path / "other")).fetch(NAME)


def test_a_folder_is_used_in_place_and_an_object_store_downloaded_once(store: Store, tmp_path: Path) -> None:
    made(store)
    node = Store(store.storage.uri, str(tmp_path / "other"))
    folder = node.fetch(NAME)
    if store.storage.folder is not None:
        assert folder == store.storage.folder / NAME / "attempt-1"
        assert not (tmp_path / "other").exists()
        return
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert node.fetch(NAME) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (folder / "weights").write_bytes(b"damaged here")
    assert (node.fetch(NAME) / "weights").read_bytes() == b"0123456789"


def test_scratch_keeps_stores_apart(tmp_path: Path) -> None:
    stores = [Store(storages.uri("memory", tmp_path), str(tmp_path / "scratch")) for _ in range(2)]
    for number, store in enumerate(stores):
        made(store, weights=str(number).encode())
    assert [(store.fetch(NAME) / "weights").read_bytes() for store in stores] == [b"0", b"1"]


def test_files_and_trees_of_a_run_are_brought_in(store: Store) -> None:
    path = store.place("runs/mine/predictions.parquet")
    path.write_bytes(b"1")
    store.put(path, "runs/mine/predictions.parquet")
    tree = store.place("runs/mine/model")
    (tree / "encoder").mkdir(parents=True)
    (tree / "encoder" / "weights").write_bytes(b"22")
    store.put(tree, "runs/mine/model")
    assert store.storage.sizes("runs") == {"runs/mine/model/encoder/weights": 2, "runs/mine/predictions.parquet": 1}
    with pytest.raises(ValueError, match="is no name"):
        store.place("../mine")


def test_json_is_whole_or_absent(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read_json("runs/a.json")
    store.write_json("runs/a.json", {"loss": 0.5})
    store.write_json("runs/a.json", {"loss": 0.25})
    with pytest.raises(ValueError, match="JSON"):
        store.write_json("runs/a.json", {"loss": float("nan")})
    assert store.read_json("runs/a.json") == {"loss": 0.25}
    assert list(store.storage.sizes("runs")) == ["runs/a.json"]
    store.storage.write("runs/a.json", b'{"loss"')
    with pytest.raises(StoreError, match=r"runs/a\.json: is no JSON"):
        store.read_json("runs/a.json")


@pytest.mark.parametrize("act", [lambda store: store.attempt(NAME, 1), lambda store: store.place("runs/a")])
def test_a_scratch_that_cannot_be_written_is_explained(tmp_path: Path, act: Callable[[Store], object]) -> None:
    (tmp_path / "scratch").write_text("a file")
    with pytest.raises(StoreError, match="scratch"):
        act(Store(storages.uri("memory", tmp_path), str(tmp_path / "scratch")))


def test_a_finished_result_needs_no_write_access(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), str(tmp_path / "scratch"))
    made(store)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert store.is_finished(NAME)
    assert (store.fetch(NAME) / "weights").read_bytes() == b"0123456789"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("change", [{"attempt": "../other"}, {"attempt": "/etc"}, {"files": {"../../escaped": {"size": 1, "sha256": ""}}}])
def test_a_manifest_that_leads_out_of_the_result_counts_as_none(store: Store, tmp_path: Path, change: dict[str, Any]) -> None:
    made(store)
    content = json.loads(store.storage.read(f"{NAME}/{MANIFEST}")) | change
    store.storage.write(f"{NAME}/{MANIFEST}", json.dumps(content).encode())
    with pytest.raises(JobError, match="is not finished"):
        store.fetch(NAME)
    assert not (tmp_path / "escaped").exists()
