"""From a configuration to the chain of items that a foreman hands out."""

from dataclasses import asdict
from typing import Any

from threephase_ray import scoring, trials
from threephase_ray.planning import Outline, Step
from threephase_ray.sweeping import Sweep
from threephase_ray.training.tasks import PHASE, PROBE, Item


def items(outline: Outline, run: str, sweep: Sweep) -> list[Item]:
    """The phases of a trial, with the probes that the sweep needs."""
    chain = []
    for i, step in enumerate(outline.chain):
        done = PHASE * (i + 1)
        plan = asdict(trials.work(outline, run, phases=[vars(step.job)]))
        chain.append(Item(step.job.key, step.job.name, plan, done - PHASE, step.steps, figure(step.job.name, sweep)))
        last, last_but_one = i == len(outline.chain) - 1, i == len(outline.chain) - 2
        if (sweep.halving is not None and last_but_one) or (sweep.metric == PROBE and last):
            chain.append(probe(outline, step, run, done, sweep))
    return chain


def probe(outline: Outline, step: Step, run: str, progress: int, sweep: Sweep) -> Item:
    """The probe of a finished phase."""
    kind = sweep.halving.probe if sweep.halving is not None else "linear"
    figure = f"{kind}.{'accuracy' if sweep.metric == PROBE else sweep.metric}"
    return trials.probe(outline, scoring.probe(outline, step), run, progress, figure)


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
