"""A whole run of tiny phases in this process, as far as its predictions."""

import json
from pathlib import Path
from typing import Any

from tests.unit import tiny_models
from threephase_ray import pipeline, planning, scoring
from threephase_ray.data import plan as data_plan
from threephase_ray.loader import DataSet
from threephase_ray.planning import Outline
from threephase_ray.pretrained import load_tokenizer
from threephase_ray.results import Store
from threephase_ray.training.plan import Plan
from threephase_ray.training.worker import work

RUN = "runs/tiny"


def trained(folder: Path, pooling: str, **knobs: Any) -> tuple[Outline, Store]:
    """The run's plan, and the store that has its phases, probes and predictions."""
    encoder = tiny_models.checkpoint(folder / "checkpoint", "bert").model_copy(update={"pooling": pooling})
    made = tiny_models.prepared(folder, encoder)
    config = tiny_models.configured(encoder, source=str(folder / "source"), store=str(folder / "store"), **knobs)
    words, limit = load_tokenizer(encoder)
    plan = planning.outline(config, DataSet(made.folder, data_plan(config.data, words, limit, 0).name))
    jobs = {"phases": plan.missing(), "probes": scoring.probes(plan).values(), "tests": scoring.tests(plan, RUN).values()}
    told = {"config": plan.config.model_dump(mode="json"), "data": plan.data.name, "run": RUN, "stage": 0, "engine": "plain"}
    assert work(Plan(**json.loads(json.dumps(told | {name: [vars(job) for job in some] for name, some in jobs.items()}))), tiny_models.CPU)
    store = Store(config.store, config.scratch)
    pipeline.begin(plan, store, RUN)
    return plan, store
