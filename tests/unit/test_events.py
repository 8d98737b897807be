import json
import time
from pathlib import Path
from uuid import uuid4

import pytest

from threephase_ray.results import Store
from threephase_ray.training import accounting, events, stop

NAME = "runs/a/events.jsonl"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in a folder, and one that cannot append to a file."""
    monkeypatch.setattr(events, "_SECONDS", 0.05)
    monkeypatch.setattr(stop, "_SECONDS", 0.02)
    return Store(str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid4().hex}", str(tmp_path / "scratch"))


def steps(content: bytes) -> list[int]:
    return [event["step"] for event in accounting.parse(content)]


def test_events_are_appended_and_followed(store: Store) -> None:
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 1})
    news = events.tail(store, NAME)
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 2})
        assert steps(log.past()) == [1, 2]
        seen, deadline = b"", time.monotonic() + 10
        while b"\n" not in seen and time.monotonic() < deadline:
            seen += news()
        assert steps(seen) == [2]  # while the writer is at work
        log.add({"event": "step", "step": 3})
    time.sleep(0.1)
    assert steps(news()) == [3]
    assert news() == b""
    found = [json.loads(line) for line in events.read(store, NAME).splitlines()]
    assert [event["step"] for event in found] == [1, 2, 3]
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)


def test_a_line_that_was_cut_off_does_not_spoil_the_next(store: Store) -> None:
    store.storage.write(NAME, b'{"time": 1, "event": "step", "step": 1}\n{"time": 2, "eve')
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 2})
    assert steps(events.read(store, NAME)) == [1, 2]


def test_what_a_killed_writer_could_not_copy_is_still_there(store: Store) -> None:
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 1})
    with store.place(NAME).open("ab") as file:  # the machine's own file, ahead of an object store's
        file.write(b'{"time": 2, "event": "step", "step": 2}\n')
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 3})
    assert steps(events.read(store, NAME)) == [1, 2, 3]


def test_another_machines_events_replace_old_ones_of_this_machine(store: Store) -> None:
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 1})
    store.storage.write(NAME, b'{"time": 2, "event": "step", "step": 2}\n')
    with events.Log(store, NAME) as log:
        log.add({"event": "step", "step": 3})
    assert steps(events.read(store, NAME)) == [2, 3]


def test_no_file_holds_no_events(store: Store) -> None:
    assert events.read(store, NAME) == b""
    assert events.tail(store, NAME)() == b""


def test_a_wish_to_stop_arrives_and_can_be_taken_back(store: Store) -> None:
    with stop.Stop(lambda: stop.asked(store, "runs/a")) as other, stop.Stop(lambda: stop.asked(store, "runs/b")) as wish:
        time.sleep(0.1)
        assert not wish.wanted()
        stop.ask(store, "runs/b")
        deadline = time.monotonic() + 10
        while not wish.wanted() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert wish.wanted()
        assert not other.wanted()
    stop.forget(store, "runs/b")
    with stop.Stop(lambda: stop.asked(store, "runs/b")) as wish:
        time.sleep(0.1)
        assert not wish.wanted()
