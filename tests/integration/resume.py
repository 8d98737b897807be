"""Train a tiny network in pieces under many ways of computing it, in forked gloo ranks without Ray; all states go to files.

    python tests/integration/resume.py WORK_FOLDER

WORK_FOLDER holds `tasks.json`, a list of `Task`s. They are done in order; neighbours with the same number of workers share a process group.
"""

import gc
import itertools
import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deepspeed.ops
import torch
import torch._dynamo  # ZeRO's first step imports it, which takes seconds: better once than in each forked rank
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from threephase_ray.training import checkpoint, gradients
from threephase_ray.training.engine import DeepSpeedEngine, Engine, PlainEngine, Settings

ROWS, TOKENS, WORDS, HIDDEN = 8, 5, 13, 7
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Task:
    """A piece of training: steps `start` to `stop`, after loading `source` (name, step, number of its workers), if there is one.

    `leave_out` says what becomes of some steps: "nan" and "finite" are discarded after backward, "unseen" ones have none. A checkpoint
    is written after the step `save`.
    """

    name: str
    engine: str
    stage: int
    workers: int
    micros: int
    start: int
    stop: int
    save: int = -1
    source: tuple[str, int, int] | None = None
    same_random_states: bool = False
    dropout: float = 0.0
    leave_out: dict[str, str] = field(default_factory=dict)


class Network(nn.Module):
    """Odd sizes, a tied weight, a frozen layer, a parameter of one number, and one without a gradient at odd steps."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embed, self.norm, self.dropout = nn.Embedding(WORDS, HIDDEN), nn.LayerNorm(HIDDEN), nn.Dropout(dropout)
        self.frozen, self.inner, self.out = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, WORDS)
        self.scale, self.sometimes = nn.Parameter(torch.ones(1)), nn.Parameter(torch.full((3,), 0.3))
        self.out.weight = self.embed.weight
        self.frozen.requires_grad_(False)

    def forward(self, ids: Tensor, even: bool) -> Tensor:
        states = self.dropout(self.norm(self.embed(ids)))
        logits: Tensor = self.out(torch.tanh(self.inner(self.frozen(states))) * self.scale)
        return logits * self.sometimes.exp().sum() if even else logits


def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """This part's share of the step's mean loss."""
    logits = model(batch["ids"][:, :-1], batch["even"])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="sum") / ROWS * batch["factor"]


def built(task: Task) -> tuple[Engine, Network]:
    """A new engine around the network, always with the same weights."""
    torch.manual_seed(0)
    model = Network(task.dropout)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [p for p in trained if (p.ndim > 1) == high], "lr": 0.03, "weight_decay": 0.1 * high} for high in (True, False)]
    settings = Settings(stage=task.stage, precision="fp32", clip=0.5, epsilon=1e-8, micros=task.micros)
    return {"plain": PlainEngine, "deepspeed": DeepSpeedEngine}[task.engine](model, groups, CPU, settings), model


def do(task: Task, folder: Path, rank: int) -> None:
    """Do a task; the state at its end, rank 0's whole weights, and what `finite` said at each step are written."""
    engine, model = built(task)
    torch.manual_seed(1 + rank)
    if task.source:
        load(engine, task, folder, rank)
    finite, count = [], task.workers * task.micros
    for step in range(task.start, task.stop):
        fate = task.leave_out.get(str(step))
        if fate == "unseen":
            continue
        generator = torch.Generator().manual_seed(step)
        parts = torch.randint(WORDS, (ROWS, TOKENS), generator=generator).chunk(count)[rank * task.micros : (rank + 1) * task.micros]
        engine.train(True)
        for number, ids in enumerate(parts):
            bad = fate == "nan" and rank == 0 and number == task.micros - 1
            engine.backward(engine.apply(loss, {"ids": ids, "even": step % 2 == 0, "factor": torch.nan if bad else 1.0}))
        finite.append(engine.finite())
        engine.discard() if fate else engine.step(1 / (1 + step))
        if step + 1 == task.save:
            checkpoint.write(checkpoint.snapshot(engine), folder / f"{task.name}-{task.save}-{rank}.safetensors")
    checkpoint.write(checkpoint.snapshot(engine), folder / f"{task.name}-{task.stop}-{rank}.safetensors")
    (folder / f"{task.name}-{rank}.json").write_text(json.dumps(finite))
    weights = engine.weights(model)
    if rank == 0:
        save_file(weights, folder / f"{task.name}-weights.safetensors")
    engine.close()


def load(engine: Engine, task: Task, folder: Path, rank: int) -> None:
    """Load another task's checkpoint, as many updates old as its step says."""
    assert task.source
    name, step, workers = task.source
    paths = [folder / f"{name}-{step}-{other}.safetensors" for other in range(workers)]
    with checkpoint.Shards(paths) as shards:
        engine.load(shards.read, step)
    if task.same_random_states:
        checkpoint.restore_rng(paths[rank])


def in_child(folder: Path, tasks: list[Task], rank: int, meeting: int) -> int:
    """The exit code of a rank; a forked child must not run on into its parent's code."""
    try:
        torch.set_num_threads(1)
        gradients._LARGE = 40  # of these small tensors, too, some are sent alone
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(tasks[0].workers))
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{meeting}", rank=rank, world_size=tasks[0].workers)
        for task in tasks:
            do(task, folder, rank)
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(folder: Path) -> int:
    """Fork the ranks of each run of tasks; the exit code says whether all of them ended well."""
    deepspeed.ops.__compatible_ops__ = {}
    gc.freeze()  # ZeRO 3 collects garbage at each start, which takes long over all that is imported
    codes = []
    every = [Task(**task) for task in json.loads((folder / "tasks.json").read_text())]
    for meeting, (workers, tasks) in enumerate(itertools.groupby(every, key=lambda task: task.workers)):
        children, together = [], list(tasks)
        for rank in range(workers):
            child = os.fork()
            if child == 0:
                os._exit(in_child(folder, together, rank, meeting))
            children.append(child)
        codes += [os.waitpid(child, 0)[1] for child in children]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
