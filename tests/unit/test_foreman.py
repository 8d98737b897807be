"""Who is given what to train, when, and what it cost."""

from typing import Any

import pytest

from threephase_ray.training.accounting import Event
from threephase_ray.training.foreman import Foreman
from threephase_ray.training.tasks import Item, Task, marks, seconds

DAE = {"key": "d1", "name": "dae", "progress": 0, "steps": 10, "figure": None}
CONTRASTIVE = {"key": "c1", "name": "contrastive", "progress": 100, "steps": 10, "figure": "hits"}
FINETUNE = {"key": "f1", "name": "finetune", "progress": 200, "steps": 10, "figure": "accuracy"}


def item(of: dict[str, Any], key: str = "") -> Item:
    return Item(**{**of, "key": key if key else of["key"], "plan": {"of": key if key else of["key"]}})


def chain(*keys: str) -> list[Item]:
    """Three phases with these keys."""
    return [item(of, key) for of, key in zip((DAE, CONTRASTIVE, FINETUNE), keys, strict=True)]


class Bench:
    """A foreman and all that it recorded."""

    def __init__(self, past: list[Event] | None = None, workers: int = 2) -> None:
        self.events: list[Event] = [] if past is None else past
        self.foreman = Foreman(self.events.append, list(self.events), workers, retries=1)
        for group in range(4):
            self.foreman.sent_for(group)

    def add(self, number: int, *keys: str, supervised: bool = True) -> None:
        self.foreman.enter(number, chain(*keys), {}, supervised)

    def start(self, number: int) -> None:
        self.foreman.begin(number)
        assert self.foreman.news(number) is None

    def take(self, group: int = 0) -> str:
        plan = self.foreman.take(group, ["here"])
        return "" if not plan else plan["of"]

    def finish(self, group: int = 0, **figures: Any) -> None:
        self.foreman.done(group, {"validations": [], **figures})

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


def test_a_trial_is_trained_phase_by_phase() -> None:
    bench = Bench()
    bench.add(0, "d1", "c1", "f1")
    bench.start(0)
    taken = []
    for _ in range(3):
        taken.append(bench.take())
        assert bench.take(1) == ""
        bench.finish(scores={"accuracy": 0.5})
        news = bench.foreman.news(0)
    assert taken == ["d1", "c1", "f1"]
    assert news is not None
    assert (news["kind"], news["figures"]["scores"]) == ("done", {"accuracy": 0.5})


def test_a_phase_of_two_trials_is_trained_once_and_no_group_waits_for_it() -> None:
    bench = Bench()
    bench.add(0, "d1", "c1", "f1")
    bench.add(1, "d1", "c2", "f2")
    bench.add(2, "d2", "c3", "f3")
    for number in range(3):
        bench.start(number)
    assert [bench.take(0), bench.take(1), bench.take(2)] == ["d1", "d2", ""]
    bench.finish(0)
    for number in (0, 1):
        assert bench.foreman.news(number) is None
    assert [bench.take(0), bench.take(2)] == ["c1", "c2"]


def test_first_phases_of_trials_to_come_are_trained_ahead_but_nothing_that_could_be_stopped() -> None:
    bench = Bench()
    for number, keys in enumerate((("d1", "c1", "f1"), ("d2", "c2", "f2"))):
        bench.add(number, *keys)
    bench.start(0)
    assert [bench.take(0), bench.take(1), bench.take(2)] == ["d1", "d2", ""]
    bench.finish(1)
    assert bench.take(1) == ""


def test_marks_come_once_each_and_nothing_new_begins_before_they_were_read() -> None:
    bench = Bench()
    bench.foreman.enter(0, chain("d1", "c1", "f1"), {"d1": {}}, True)
    bench.start(0)
    assert bench.take() == "c1"
    for step, hits in ((5, 0.5), (10, 0.75)):
        bench.foreman.tell(0, {"event": "validation", "step": step, "steps": 10, "hits": hits})
    bench.finish(validations=[{"step": 5, "hits": 0.5}, {"step": 10, "hits": 0.75}])
    assert bench.take() == ""
    assert bench.foreman.news(0) == {"kind": "mark", "phase": "contrastive", "progress": 150, "score": 0.5}
    assert bench.foreman.news(0) == {"kind": "mark", "phase": "contrastive", "progress": 200, "score": 0.75}
    assert bench.take() == ""  # what was decided on the last mark is not known yet
    assert bench.foreman.news(0) is None
    assert bench.take() == "f1"


def test_a_finished_phase_gives_the_marks_that_it_gave_when_it_was_trained() -> None:
    live, there = (Task(item(CONTRASTIVE), []) for _ in range(2))
    for step, hits in ((4, 0.5), (8, 0.25)):
        live.note({"event": "validation", "step": step, "steps": 10, "hits": hits})
    there.state, there.figures = "done", {"validations": [{"step": 4, "hits": 0.5}, {"step": 8, "hits": 0.25}]}
    assert (
        list(marks(live.item, live))
        == list(marks(there.item, there))
        == [{"progress": 140, "score": 0.5}, {"progress": 180, "score": 0.25}]
    )


def test_a_resumed_phase_gives_the_marks_before_its_resume() -> None:
    task = Task(item(CONTRASTIVE), [])
    task.note({"event": "resume", "step": 7, "steps": 10, "validations": [{"step": 5, "hits": 0.5}]})
    task.note({"event": "validation", "step": 10, "steps": 10, "hits": 0.75})
    assert [mark["progress"] for mark in marks(task.item, task)] == [150, 200]


@pytest.mark.parametrize(
    ("planned", "steps", "progress"),
    [(0, [0], [300]), (10, [12], [300]), (10, [0, 5, 10], [250, 300])],
    ids=["a closed form has all its progress at once", "no phase has more than its own", "no step is no progress"],
)
def test_progress_of_marks(planned: int, steps: list[int], progress: list[int]) -> None:
    validations = [{"step": step, "accuracy": 1.0} for step in steps]
    task = Task(item(FINETUNE | {"steps": planned}), [], "done", figures={"validations": validations})
    assert [mark["progress"] for mark in marks(task.item, task)] == progress


def test_a_probe_gives_one_mark_when_it_is_done() -> None:
    probe = Item("p1", "probe", {}, 200, figure="linear.macro_f1")
    task = Task(probe, [])
    assert list(marks(probe, task)) == []
    task.state, task.figures = "done", {"linear": {"macro_f1": 0.25}, "knn": {"macro_f1": 0.5}}
    assert list(marks(probe, task)) == [{"progress": 200, "score": 0.25}]


def test_what_only_a_withdrawn_trial_needs_is_stopped_and_what_others_need_goes_on() -> None:
    bench = Bench()
    bench.add(0, "d1", "c1", "f1")
    bench.add(1, "d1", "c2", "f2")
    for number in range(2):
        bench.start(number)
    assert bench.take() == "d1"
    bench.foreman.withdraw(0)
    assert not bench.foreman.unwanted(0)
    bench.foreman.withdraw(1)
    assert bench.foreman.unwanted(0)
    bench.foreman.stopped(0)
    assert bench.take() == ""


def test_a_lost_group_gives_its_task_back_and_a_task_that_ends_groups_fails() -> None:
    bench = Bench()
    bench.add(0, "d1", "c1", "f1")
    bench.add(1, "d1", "c2", "f2")
    for number in range(2):
        bench.start(number)
    assert bench.take(0) == "d1"
    bench.foreman.lost(0, "killed", False)
    assert bench.take(1) == "d1"
    bench.foreman.tell(0, {"event": "step", "step": 1})  # a group that is given up may still be talking
    bench.foreman.lost(1, "killed again", False)
    assert bench.take(2) == ""
    for number in range(2):
        news = bench.foreman.news(number)
        assert news is not None
        assert (news["kind"], news["reason"], news["phase"]) == ("failed", "killed again", "dae")
    assert bench.kinds() == ["group", "start", "retry", "group", "start", "task_failed", "group"]


@pytest.mark.parametrize("how", ["lasting", "its own"])
def test_a_failure_that_lasts_is_not_tried_again(how: str) -> None:
    bench = Bench()
    bench.add(0, "d1", "c1", "f1")
    bench.start(0)
    bench.take(0)
    if how == "lasting":
        bench.foreman.lost(0, "too large", True)
    else:
        bench.foreman.failed(0, "too large")
    news = bench.foreman.news(0)
    assert news is not None
    assert news["reason"] == "too large"
    assert bench.take(1) == ""


def test_costs_are_shared_out_and_known_after_a_restart() -> None:
    def event(time: float, task: str, kind: str, **more: Any) -> Event:
        return {"time": time, "task": task, "event": kind, **more}

    past = [
        event(10, "d1", "start", trial=0),
        event(14, "d1", "task_done"),
        event(20, "c1", "start", trial=0),
        event(23, "c1", "step"),  # the driver was killed here
        event(100, "c1", "start", trial=0),
        event(102, "c1", "task_done"),
        event(30, "gone", "start", trial=7),
        event(31, "gone", "task_done"),
    ]
    foreman = Bench(past).foreman
    figures = {"d1": {"worker_seconds": 99.0}, "c1": {}, "f9": {"worker_seconds": 1.5}}
    foreman.enter(0, chain("d1", "c1", "f9"), figures, True)
    foreman.enter(1, chain("d1", "c2", "f2"), figures, True)
    assert foreman.cost(0) == {"cost": 2 * (4 + 5), "alone": 2 * (4 + 5) + 1.5, "reused": ["finetune"]}
    assert foreman.cost(1) == {"cost": 0, "alone": 8, "reused": ["dae"]}
    assert foreman.status()["worker_seconds"] == 2 * (4 + 5 + 1)


def test_seconds_leave_out_the_time_between_attempts() -> None:
    times = [("start", 5.0), ("step", 6.0), ("start", 50.0), ("step", 52.0), ("task_done", 53.0)]
    assert seconds([{"event": kind, "time": time} for kind, time in times]) == 4.0
    assert seconds([]) == 0.0


def test_runs_without_a_supervisor_go_through_by_themselves() -> None:
    bench = Bench()
    bench.add(5, "d1", "c1", "f1", supervised=False)
    taken = []
    for _ in range(3):
        taken.append(bench.take())
        bench.finish()
    assert taken == ["d1", "c1", "f1"]
    news = bench.foreman.news(5)
    assert news is not None
    assert news["kind"] == "done"


def test_after_the_close_groups_end_and_save() -> None:
    bench = Bench()
    bench.add(0, "d1", "c1", "f1")
    bench.start(0)
    bench.take(0)
    bench.foreman.close()
    assert bench.foreman.unwanted(0)
    assert bench.foreman.take(1, ["here"]) is None
    assert bench.foreman.news(0) == {"kind": "halted"}
