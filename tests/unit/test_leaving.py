"""A worker group whose node is drained: it saves, and another group goes on, with nothing done twice."""

import threading
from pathlib import Path

from tests.unit import tiny, tiny_models
from tests.unit.tiny_models import CPU
from threephase_ray import data, planning, pretrained
from threephase_ray.loader import DataSet
from threephase_ray.results import Store
from threephase_ray.training import accounting
from threephase_ray.training.accounting import Event
from threephase_ray.training.plan import Plan
from threephase_ray.training.worker import work

RUN, STEPS = "runs/moved", 300


def test_what_a_group_had_in_hand_goes_on_elsewhere(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "validation", "test")):
        tiny.write_csv(tmp_path / "source" / f"{split}.csv", tiny_models.texts(40, seed=seed))
    places = {"source": str(tmp_path / "source"), "store": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")}
    encoder, store = tiny_models.checkpoint(tmp_path / "checkpoint", "bert"), Store(places["store"], places["scratch"])
    config = tiny_models.configured(encoder, phases=("finetune",), finetune={"steps": STEPS, "validations": 1}, **places)
    words, limit = pretrained.load_tokenizer(encoder)
    folder, name = data.prepare(config.data, words, limit, store, seed=0), data.plan(config.data, words, limit, seed=0).name
    plan, drained = planning.outline(config, DataSet(folder, name)), threading.Event()
    told = Plan(config.model_dump(mode="json"), name, RUN, 0, "plain", [vars(job) for job in plan.missing()], [])

    def see(event: Event) -> None:
        if event["event"] == "step":
            drained.set()

    assert not work(told, CPU, lambda past: see, ("10.0.0.1",), drained.is_set)
    assert work(told, CPU, nodes=("10.0.0.2",))
    events = accounting.parse(store.storage.read(f"{RUN}/events.jsonl"))
    assert [event["nodes"] for event in events if event["event"] == "group"] == [["10.0.0.1"], ["10.0.0.2"]]
    first, second = accounting.attempts(events, plan.chain[0].job.key)
    assert 0 < first.to_step == second.from_step < second.to_step == STEPS
    assert first.steps_wasted == second.steps_wasted == 0
