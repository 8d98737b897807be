"""From a configuration to the chain of items that a foreman hands out."""

import json
from dataclasses import asdict
from typing import Any

from threephase_ray import data, pipeline, planning, pretrained, results
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.planning import Outline
from threephase_ray.sweeping import Sweep
from threephase_ray.sweeps.stopping import PROBE
from threephase_ray.training import probing
from threephase_ray.training.plan import Plan, Probe
from threephase_ray.training.tasks import PHASE, Item


class Planner:
    """Lays out the runs of many configurations; each data set is made, and shown, once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by the knobs that say which
        self._sets: dict[str, DataSet] = {}

    def outline(self, config: Config) -> Outline:
        """What a run of `config` consists of; its data set is made if the store lacks it.

        Raises:
            JobError: the configuration, or its data, cannot be used.
        """
        planning.check(config)
        source = json.dumps([config.data.model_dump(mode="json"), config.encoder.model_dump(mode="json"), config.seed])
        if source not in self._names:
            tokenizer, limit = pretrained.load_tokenizer(config.encoder)
            self._names[source] = data.plan(config.data, tokenizer, limit, config.seed).name
        if (name := self._names[source]) not in self._sets:
            self._sets[name] = planning.prepare(config)
        return planning.outline(config, self._sets[name])


def items(outline: Outline, run: str, sweep: Sweep) -> list[Item]:
    """The phases of a trial, with the probes that the sweep needs."""
    chain = []
    for i, step in enumerate(outline.chain):
        done = PHASE * (i + 1)
        plan = asdict(work(outline, run, phases=[vars(step.job)]))
        chain.append(Item(step.job.key, step.job.name, plan, done - PHASE, step.steps, figure(step.job.name, sweep)))
        last, last_but_one = i == len(outline.chain) - 1, i == len(outline.chain) - 2
        if (sweep.halving is not None and last_but_one) or (sweep.metric == PROBE and last):
            chain.append(probe(outline, step.job.key, step.job.result, run, done, sweep))
    return chain


def tested(outline: Outline, run: str) -> list[Item]:
    """All phases of a run, and its look at the test split."""
    steps = [
        Item(step.job.key, step.job.name, asdict(work(outline, run, phases=[vars(step.job)])), PHASE * i, step.steps)
        for i, step in enumerate(outline.chain)
    ]
    jobs = [vars(job) for job in pipeline.tests(outline, run).values()]
    return [*steps, Item(f"{run}-test", "test", asdict(work(outline, run, tests=jobs)), PHASE * len(steps))] if jobs else steps


def work(outline: Outline, run: str, **jobs: list[dict[str, Any]]) -> Plan:
    """A plan with some of a run's jobs."""
    config = outline.config.model_dump(mode="json")
    return Plan(config, outline.data.name, run, outline.stage, "deepspeed", **{"phases": [], "tests": [], **jobs})


def probe(outline: Outline, of: str, model: str, run: str, progress: int, sweep: Sweep) -> Item:
    """The probe of a finished phase: `of` its key, `model` its name in the store."""
    key = results.key({"probe": probing.VERSION, "of": of, "seed": outline.config.seed})
    plan = work(outline, run, probes=[vars(Probe(model, f"probes/{key}.json"))])
    kind = sweep.halving.probe if sweep.halving is not None else "linear"
    return Item(key, PROBE, asdict(plan), progress, figure=f"{kind}.{'accuracy' if sweep.metric == PROBE else sweep.metric}")


def figure(phase: str, sweep: Sweep) -> str | None:
    """The figure by which a phase's validations are compared; of a denoising autoencoder none: more noise is a harder task."""
    match phase:
        case "finetune":
            return "accuracy" if sweep.metric == PROBE else sweep.metric
        case "contrastive" | "joint":
            return "neighbour_accuracy"
    return None


def begin(chain: list[Item]) -> int:
    """Progress of a trial before its first mark."""
    return next(item.progress for item in chain if item.figure is not None)


def end(chain: list[Item]) -> int:
    """Progress of a trial that is done."""
    return max(item.progress + (0 if item.name == PROBE else PHASE) for item in chain)


def score(chain: list[Item], figures: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """The trial's score, and all scores of its last item, whose `figures` these are."""
    last = chain[-1]
    assert last.figure is not None
    if last.name == PROBE:
        kind, _, name = last.figure.partition(".")
        return figures[kind][name], figures[kind]
    return figures["scores"][last.figure], figures["scores"]
