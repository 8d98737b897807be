"""The report of a run that was really trained: whatever the pipeline writes, the report reads."""

from pathlib import Path

from tests.unit import pages, tiny_runs
from threephase_ray import pipeline, reports


def test_report_of_a_trained_run(tmp_path: Path) -> None:
    plan, store = tiny_runs.trained(tmp_path, "mean", baseline={"steps": 3})
    results = pipeline.collect(plan, store, tiny_runs.RUN)
    store.write_json(f"{tiny_runs.RUN}/results.json", results)
    page = pages.check(reports.run(store, "tiny"))
    captions = [str(svg.get("aria-label")) for svg in page.of("svg")]
    assert {f"Loss of {name}" for name in ("dae", "contrastive", "finetune", "baseline")} <= set(captions)
    assert {f"Map of 12 validation texts by their embeddings, after {name}" for name in plan.config.phases} <= set(captions)
    assert f"of {results['test']['rows']} test texts" in page.text
    assert "plain fine-tuning" in page.text
    assert "not kept" not in page.text  # the texts of all errors were found
