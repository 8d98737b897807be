"""Many runs at once: each is planned, becomes a chain of items for a crew, and shares what it has in common with others."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from threephase_ray import console, data, planning, pretrained, scoring
from threephase_ray.config import Config
from threephase_ray.loader import DataSet
from threephase_ray.planning import Outline
from threephase_ray.training.plan import Plan, Probe, told
from threephase_ray.training.tasks import PHASE, PROBE, TEST, Item

if TYPE_CHECKING:
    from threephase_ray.training.crew import Crew


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


def phases(outline: Outline, run: str) -> list[Item]:
    """The phases of a run, of which nobody watches the figures."""
    return [
        Item(step.job.key, step.job.name, asdict(work(outline, run, phases=[vars(step.job)])), PHASE * i, step.steps)
        for i, step in enumerate(outline.chain)
    ]


def tested(outline: Outline, run: str) -> list[Item]:
    """All phases of a run, its probes, and its look at the test split."""
    chain, probes = [], scoring.probes(outline)
    for item in phases(outline, run):
        chain += [item, *(probe(outline, job, run, item.progress + PHASE) for name, job in probes.items() if name == item.name)]
    chain += [probe(outline, job, run, 0) for name, job in probes.items() if name == scoring.START]
    if jobs := [vars(job) for job in scoring.tests(outline, run).values()]:
        chain.append(Item(f"{run}-{TEST}", TEST, asdict(work(outline, run, tests=jobs)), PHASE * len(outline.chain)))
    return chain


def probe(outline: Outline, job: Probe, run: str, progress: int, figure: str | None = None) -> Item:
    """A probe as an item; `figure`: the one that is marked."""
    return Item(job.result, PROBE, asdict(work(outline, run, probes=[vars(job)])), progress, figure=figure)


def work(outline: Outline, run: str, **jobs: list[dict[str, Any]]) -> Plan:
    """A plan with some of a run's jobs."""
    return Plan(told(outline.config), outline.data.name, run, outline.stage, "deepspeed", **{"phases": [], "tests": [], **jobs})


def tell_of_starts(crew: "Crew") -> None:
    """What starting the worker groups cost, against what they worked."""
    status = crew.ask("status")
    starts, spent = status["start_seconds"], status["worker_seconds"]
    share = f", {starts / (starts + spent):.0%} of all" if spent else ""
    console.console.print(f"{crew.groups} worker group(s) started in {starts:.0f} worker seconds{share}", highlight=False)
