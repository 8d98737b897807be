"""What a run will do, before any worker starts: knobs that were left open, keys, steps, class sizes, memory."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from threephase_ray import console, data, keys, phases, pretrained
from threephase_ray.config import Config
from threephase_ray.errors import JobError
from threephase_ray.imbalance import corrected_sizes
from threephase_ray.loader import DataSet
from threephase_ray.memory import STAGES, Size, gigabytes, lowest_stage, needed
from threephase_ray.results import Store
from threephase_ray.training import agreement
from threephase_ray.training.loop import step_count
from threephase_ray.training.plan import PhaseJob

_ASSUMED_GPU = 16e9  # bytes of a GPU that this machine cannot see


@dataclass(frozen=True)
class Step:
    """One phase of the run: what to train, how long, and whether the store has it."""

    job: PhaseJob
    steps: int
    texts: int
    passes: float
    finished: bool


@dataclass(frozen=True)
class Outline:
    """The run: its resolved configuration, data set, phases, and the plain fine-tuning to compare with."""

    config: Config
    data: DataSet
    stage: int
    stage_reason: str
    size: Size
    chain: list[Step]
    baseline: Step | None

    def steps(self) -> list[Step]:
        """All phases, plain fine-tuning last."""
        return [*self.chain, *([self.baseline] if self.baseline else [])]

    def missing(self) -> list[PhaseJob]:
        """Phases that the store does not have."""
        return [step.job for step in self.steps() if not step.finished]


def check(config: Config) -> None:
    """Refuse what the encoder's family cannot do, before anything is read or built.

    Raises:
        ConfigError: says what it cannot, and what to choose instead.
    """
    pretrained.quiet()
    if {"dae", "joint"} & set(config.phases):
        facts = pretrained.load_config(config.encoder)
        if config.dae.objective == "denoising":
            pretrained.decoder_kind(facts, config.dae.decoder)
        else:
            pretrained.check_masked_lm(facts, config.dae.objective)


def prepare(config: Config) -> DataSet:
    """The data set of the configuration, from the store or made now, and a word on it."""
    tokenizer, limit = pretrained.load_tokenizer(config.encoder)
    name = data.plan(config.data, tokenizer, limit, config.seed).name
    if not Store(config.store, config.scratch).is_finished(name):
        agreement.check_storage(config.store, config.scratch)
    with console.counting() as progress:
        made = DataSet(data.prepare(config.data, tokenizer, limit, Store(config.store, config.scratch), config.seed, progress), name)
    show_data(made.facts)
    console.console.print(f"data set: {made.folder}")
    return made


def preview(config: Config) -> None:
    """Say what would be read, and whether the store has the data set."""
    tokenizer, limit = pretrained.load_tokenizer(config.encoder)
    plan = data.plan(config.data, tokenizer, limit, config.seed)
    done = Store(config.store, config.scratch).is_finished(plan.name)
    rows = [[split, "\n".join(origin.name for origin in origins)] for split, origins in plan.found.items()]
    console.table("reads", ["split", "from"], rows + [[split, f"{share:.0%} of train"] for split, share in plan.missing.items()])
    console.console.print(f"data set: {config.store}/{plan.name} ({'is there' if done else 'not made yet'})")


def outline(config: Config, data: DataSet) -> Outline:
    """Resolve what the configuration leaves open, and lay out the phases."""
    config = resolve(config)
    size = largest(config, data)
    stage, reason = choose_stage(config, size)
    chain: list[Step] = []
    for name in config.phases:
        chain.append(lay(name, config, data, chain[-1].job if chain else None))
    made = Outline(config, data, stage, reason, size, chain, None)
    if config.baseline is None:
        return made
    if config.baseline.same_budget:
        texts = sum(step.texts * step.passes for step in chain)
        steps = max(1, round(texts / config.baseline.batch)) if config.baseline.batch else None
        config = config.model_copy(update={"baseline": config.baseline.model_copy(update={"steps": steps})})
    return replace(made, config=config, baseline=lay("baseline", config, data, None))


def lay(name: str, config: Config, data: DataSet, parent: PhaseJob | None) -> Step:
    """One phase with its key."""
    phase = phases.build(name, config, data)
    key = keys.of_phase(name, phase.version, config, data, parent.key if parent else None)
    result = f"phases/{phase.name}-{key}"
    steps = phase.steps(0)
    count = step_count(phase.training, len(steps)) if phase.trains else 0
    texts = round(count * float(np.mean([len(visits) for visits in steps])))
    job = PhaseJob(name, key, result, parent.result if parent else None)
    return Step(job, count, texts, phase.passes, sound(Store(config.store, config.scratch), result))


def sound(kept: Store, result: str) -> bool:
    """Whether the store has a finished phase, as whole as when it was written.

    Raises:
        JobError: it was finished, but its files have changed since.
    """
    if not kept.is_finished(result):
        return False
    problem = kept.damage(result)
    if problem:
        raise JobError(f"{kept.storage.uri}/{result}: {problem}\n  remove it to train the phase again")
    return True


def resolve(config: Config) -> Config:
    """Replace every knob that means "choose for me" by what is chosen, where that needs no data."""
    compute = config.compute
    update: dict[str, Any] = {
        "compute": compute.model_copy(update={"precision": compute.arithmetic}),
        "encoder": config.encoder.model_copy(update={"pooling": pretrained.pooling(config.encoder)}),
    }
    for name in ("dae", "contrastive", "joint", "finetune", "baseline"):
        knobs = getattr(config, name)
        if knobs is not None and knobs.batch is None:
            update[name] = knobs.model_copy(update={"batch": compute.global_batch})
    return config.model_copy(update=update)


def largest(config: Config, data: DataSet) -> Size:
    """The size of the most demanding phase."""
    facts = pretrained.load_config(config.encoder)
    rebuilds = bool({"dae", "joint"} & set(config.phases))
    length = int(data.facts["max_length"])
    layers, hidden = int(facts.num_hidden_layers), int(facts.hidden_size)
    cross_attention = 4 * hidden * hidden * layers if rebuilds and config.dae.objective == "denoising" else 0
    return Size(
        parameters=pretrained.parameter_count(config.encoder) + cross_attention + 3 * hidden * hidden,
        layers=layers * (2 if cross_attention else 1),
        hidden=hidden,
        heads=int(facts.num_attention_heads),
        tokens=config.compute.micro_batch * length,
        length=length,
        vocabulary=int(facts.vocab_size) if rebuilds else 0,
    )


def choose_stage(config: Config, size: Size) -> tuple[int, str]:
    """DeepSpeed's ZeRO stage and why."""
    if config.compute.zero_stage != "auto":
        return int(config.compute.zero_stage), "as asked"
    return lowest_stage(size, config.compute.least, int(worker_memory(config)))


def worker_memory(config: Config) -> float:
    """Bytes that one worker has: as told, else this machine's share, else an assumption."""
    compute = config.compute
    if compute.worker_memory_gb is not None:
        return compute.worker_memory_gb * 1e9
    if compute.use_gpu:
        return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else _ASSUMED_GPU
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / compute.most


def show_data(facts: dict[str, Any]) -> None:
    """Print the splits of a data set, and what its checks found."""
    rows = [[name, *_figures(split, facts["truncated"][name])] for name, split in facts["splits"].items()]
    title = f"data: {facts['num_classes']} classes, {facts['max_length']} tokens at most"
    console.table(title, ["split", "rows", "origin", "classes", "class sizes", "tokens: mean, p95, max", "truncated"], rows)
    found = {kind: check for kind, check in facts["checks"].items() if check["count"]}
    if found:
        rows = [[kind, check["policy"], f"{check['count']:,} {check['unit']}"] for kind, check in found.items()]
        console.table("checks", ["check", "policy", "found"], rows)


def _figures(split: dict[str, Any], truncated: float) -> list[str]:
    """One row of the table of splits."""
    sizes, lengths = [count for count in split["class_counts"] if count], split["lengths"]
    spread = f"{min(sizes):,} to {max(sizes):,}" if sizes else ""
    tokens = f"{lengths['mean']:.0f}, {lengths['p95']}, {lengths['max']}"
    return [f"{split['rows']:,}", split["origin"], str(len(sizes)), spread, tokens, f"{truncated:.1%}"]


def show(plan: Outline) -> None:
    """Print the outline."""
    config = plan.config
    if {"contrastive", "joint"} & set(config.phases):
        show_classes(plan)
    cells = [[step.job.name, step.job.key, str(step.steps), str(step.texts), "yes" if step.finished else "no"] for step in plan.steps()]
    console.table("phases", ["phase", "key", "steps", "texts read", "in the store"], cells)
    memory = [[str(stage), gigabytes(needed(stage, plan.size, config.compute.least))] for stage in STAGES]
    console.table(f"memory of each of {config.compute.least} worker(s), roughly", ["ZeRO stage", "bytes"], memory)
    console.console.print(f"ZeRO stage {plan.stage}: {plan.stage_reason}; precision {config.compute.precision}")
    kind = "AutoModelForSequenceClassification" if pretrained.stock(pretrained.load_config(config.encoder), config.encoder.pooling) else ""
    console.console.print(f"model/classifier will be a stock {kind or 'SentenceTransformer'} ({config.encoder.pooling} pooling)")


def show_classes(plan: Outline) -> None:
    """Print the class sizes before and after the imbalance correction."""
    knobs = plan.config.contrastive.imbalance
    sizes = np.array(plan.data.facts["splits"]["train"]["class_counts"][: plan.data.classes])
    after = corrected_sizes(sizes, knobs.min_ratio, knobs.max_ratio)
    order = np.argsort(-sizes, kind="stable")
    rows = [[plan.data.label_names[k], str(sizes[k]), str(after[k])] for k in order]
    console.table("classes", ["class", "training rows", "after the imbalance correction"], rows[:30])
    if len(rows) > 30:
        console.console.print(f"... and {len(rows) - 30} smaller classes")
