"""The report of a run that was really trained: whatever the pipeline writes, the report reads."""

import json
from pathlib import Path

from tests.unit import pages, tiny_models
from tests.unit.tiny_models import CPU
from threephase_ray import pipeline, planning, reports, scoring
from threephase_ray.data import plan as data_plan
from threephase_ray.loader import DataSet
from threephase_ray.pretrained import load_tokenizer
from threephase_ray.results import Store
from threephase_ray.training.plan import Plan
from threephase_ray.training.worker import work


def test_report_of_a_trained_run(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert").model_copy(update={"pooling": "mean"})
    made = tiny_models.prepared(tmp_path, encoder)
    config = tiny_models.configured(encoder, source=str(tmp_path / "source"), store=str(tmp_path / "store"), baseline={"steps": 3})
    words, limit = load_tokenizer(encoder)
    plan = planning.outline(config, DataSet(made.folder, data_plan(config.data, words, limit, 0).name))
    store, run = Store(config.store, config.scratch), "runs/tiny"
    jobs = {"phases": plan.missing(), "probes": scoring.probes(plan).values(), "tests": scoring.tests(plan, run).values()}
    told = {"config": plan.config.model_dump(mode="json"), "data": plan.data.name, "run": run, "stage": 0, "engine": "plain"}
    assert work(Plan(**json.loads(json.dumps(told | {name: [vars(job) for job in some] for name, some in jobs.items()}))), CPU)
    pipeline.begin(plan, store, run)
    results = pipeline.collect(plan, store, run)
    page = pages.check(reports.run(store, "tiny"))
    captions = [str(svg.get("aria-label")) for svg in page.of("svg")]
    assert {f"Loss of {name}" for name in ("dae", "contrastive", "finetune", "baseline")} <= set(captions)
    assert {f"Map of 12 validation texts by their embeddings, after {name}" for name in config.phases} <= set(captions)
    assert f"of {results['test']['rows']} test texts" in page.text
    assert "plain fine-tuning" in page.text
    assert "not kept" not in page.text  # the texts of all errors were found
