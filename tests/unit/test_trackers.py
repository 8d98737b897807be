"""A tracker that follows a log: it may fail or be started anew at any moment; in the end everything is there once."""

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.unit.killed import DAE, FINAL, KILLED, LOG, PHASES, RUN, SUBJECT, TUNE, append, whole
from threephase_ray.config import Config
from threephase_ray.errors import ConfigError, ResourceError
from threephase_ray.results import Store
from threephase_ray.trackers import choosing, feed, following
from threephase_ray.trackers.book import Book
from threephase_ray.trackers.feed import Feed
from threephase_ray.trackers.histories import Outcome
from threephase_ray.trackers.subject import flat
from threephase_ray.trackers.tensorboard import TensorBoard


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid4().hex}", str(tmp_path / "scratch"))


def config(**tracking: Any) -> Config:
    return Config(name="mine", data={"source": "x"}, encoder={"path": "x"}, tracking=tracking)


def scalars(store: Store, phase: str, tmp_path: Path) -> dict[str, list[tuple[int, float]]]:
    """What an event file in the store holds."""
    (name,) = store.storage.sizes(f"{RUN}/tensorboard/{phase}")
    store.storage.download(name, tmp_path / "read" / uuid4().hex / Path(name).name)
    (folder,) = (tmp_path / "read").iterdir()
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
    folder.rename(tmp_path / uuid4().hex)
    return {tag: [(each.step, each.value) for each in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def single(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """As 32 bits hold them."""
    return [(step, float(np.float32(value))) for step, value in values]


def test_event_files_hold_each_step_once_after_drivers_that_were_killed(store: Store, tmp_path: Path) -> None:
    for stop in (9, 17, 30):  # each driver leaves its files as they are
        append(store, stop)
        killed = Feed("TensorBoard", lambda: TensorBoard(store, f"{RUN}/tensorboard"), SUBJECT, store, LOG)
        killed.pump()
    append(store, len(KILLED))
    last = Feed("TensorBoard", lambda: TensorBoard(store, f"{RUN}/tensorboard"), SUBJECT, store, LOG)
    last.pump()
    assert last.finish(FINAL)
    for phase, key in (("dae", DAE), ("finetune", TUNE)):
        read = scalars(store, phase, tmp_path)
        for name in ("loss", "validation/accuracy", "steps_per_second"):
            assert read[name] == single([(row.step, row.figures[name]) for row in whole(KILLED)[key] if name in row.figures])
    assert scalars(store, "contrastive", tmp_path) == {"cost/steps": [(4, 4.0)], "best/accuracy": [(4, 0.5)]}
    assert scalars(store, "run", tmp_path) == {"test/accuracy": [(0, 0.75)]}


class Shaky:
    """A tracker that keeps what it is told by step, as servers do, and is away while `away`."""

    place = "nowhere"

    def __init__(self) -> None:
        self.away, self.started, self.ending = False, 0, ""
        self.rows: dict[str, dict[int, Any]] = {}
        self.reused = frozenset[str]()

    def make(self) -> "Shaky":
        self.started += 1
        self._answer()
        return self

    def write(self, phase: str, rows: Any) -> None:
        for row in rows:
            self._answer()
            assert self.rows.setdefault(phase, {}).setdefault(row.step, row) == row
            assert [*self.rows[phase]] == sorted(self.rows[phase])

    def finish(self, outcome: Outcome, reused: frozenset[str]) -> None:
        self._answer()
        self.reused = reused

    def close(self, ending: str) -> None:
        self._answer()
        self.ending = ending

    def _answer(self) -> None:
        if self.away:
            raise ConnectionError("gone\nfor now")


def test_a_tracker_that_was_away_is_told_what_it_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(feed, "_PAUSE", 0.0)
    monkeypatch.setattr("threephase_ray.training.events._SECONDS", 0.0)
    tracker = Shaky()
    fed = Feed("Shaky", tracker.make, SUBJECT, store, LOG)
    for stop in range(1, len(KILLED) + 1):
        tracker.away = stop % 7 in (3, 4)
        append(store, stop)
        fed.pump()
    assert tracker.started > 3
    tracker.away = True
    before = tracker.started
    assert not fed.finish(FINAL)
    assert tracker.started == before + 2  # anew after the first failure, and after the second one
    tracker.away = False
    assert Feed("Shaky", tracker.make, SUBJECT, store, LOG).finish(FINAL)
    assert tracker.rows == {phase: {row.step: row for row in whole(KILLED)[key]} for phase, key in PHASES.items() if key != "cc"}
    assert (tracker.reused, tracker.ending) == ({"contrastive"}, "FINISHED")
    assert "tracking: Shaky failed: ConnectionError: gone; it is tried again every minute" in capsys.readouterr().out


def test_an_outage_is_said_once(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(feed, "_PAUSE", 0.0)
    tracker = Shaky()
    fed = Feed("Shaky", tracker.make, SUBJECT, store, LOG)
    fed.pump()
    tracker.away = True
    append(store, 20)
    for _ in range(5):
        fed.pump()
    assert capsys.readouterr().out.count("tracking: Shaky failed") == 1


def test_a_tracker_is_not_asked_again_at_once(store: Store) -> None:
    tracker = Shaky()
    tracker.away = True
    fed = Feed("Shaky", tracker.make, SUBJECT, store, LOG)
    for _ in range(5):
        fed.pump()
    assert tracker.started == 1


def followed(
    store: Store, tracker: Shaky, monkeypatch: pytest.MonkeyPatch, *, finished: bool = False, phases: dict[str, str] = PHASES
) -> Any:
    monkeypatch.setattr(following, "makers", lambda *_: {"Shaky": tracker.make})
    return following.following(config(), phases, store, RUN, finished=finished)


RESULTS: dict[str, Any] = {"phases": [], "baseline": None, "goodput": 1.0}


def test_who_cannot_be_reached_at_first_is_an_error_and_later_is_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Shaky()
    tracker.away = True
    with (
        pytest.raises(ResourceError, match=r"^tracking: Shaky cannot be used: ConnectionError: gone\n"),
        followed(store, tracker, monkeypatch),
    ):
        raise AssertionError("nothing may start")
    tracker.away = False
    with pytest.raises(KeyError), followed(store, tracker, monkeypatch):
        raise KeyError
    assert tracker.ending == "FAILED"
    tracker.away = True
    with followed(store, tracker, monkeypatch) as finish:
        finish(RESULTS)
    with (
        pytest.raises(ResourceError),
        followed(store, tracker, monkeypatch, phases={"dae": "other"}),
    ):  # another run, of which it never heard
        raise AssertionError("nothing may start")


def test_a_finished_run_is_told_again_only_to_those_who_miss_something(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Shaky()
    append(store, len(KILLED))
    with followed(store, tracker, monkeypatch) as finish:
        tracker.away = True
        finish(RESULTS)
    tracker.away = False
    for started in (4, 4):  # the first call sends what was missing, the second one nothing
        with followed(store, tracker, monkeypatch, finished=True) as finish:
            finish(RESULTS)
        assert (tracker.started, tracker.ending) == (started, "FINISHED")
    assert set(tracker.rows) == {"dae", "finetune"}


def test_a_run_has_one_identity_and_another_chain_of_phases_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Book(store, RUN).identity == Book(store, RUN).identity
    assert Book(store, RUN).identity != Book(store, "runs/other").identity
    seen = []
    monkeypatch.setattr(following, "makers", lambda config, subject, *_: seen.append(subject.identity) or {})
    for phases in (PHASES, PHASES, PHASES | {"dae": "other"}):
        with following.following(config(), phases, store, RUN, finished=False) as finish:
            finish(RESULTS)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    "uri", ["https://me:hunter2@host/x", "https://token@host", "postgresql://host/db", "mlruns", "http://", "https://host/?key=hunter2"]
)
def test_only_plain_urls_are_taken_and_others_not_shown(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.mlflow: ") as caught:
        choosing.check(config(mlflow=uri))
    assert "hunter2" not in str(caught.value)


def test_a_configuration_with_credentials_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(mlflow="https://host:5000").model_copy(update={"store": "s3://me:hunter2@bucket/x"})
    with pytest.raises(ConfigError, match=r"store: looks like a password") as caught:
        choosing.check(made)
    assert "hunter2" not in str(caught.value)
    choosing.check(config(mlflow="https://host:5000/mlflow"))
    choosing.check(config())


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"threephase_ray.trackers.{name}", raising=False)
    with pytest.raises(ConfigError, match=rf'tracking\.{name}: .* pip install "threephase-ray\[{name}\]"'):
        choosing.check(config(**{name: "project"}))


def test_a_missing_key_of_wandb_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"tracking\.wandb: there is no API key"):
        choosing.check(config(wandb="team/project"))


def test_knobs_are_named_with_dots() -> None:
    assert dict(flat({"a": {"b": None, "c": "x"}, "d": [1, "y"], "e": 2e-5})) == {"a.b": "null", "a.c": "x", "d": '[1, "y"]', "e": "2e-05"}
