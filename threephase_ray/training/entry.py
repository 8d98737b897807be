"""What Ray Train starts on each worker.

The rest is imported when it runs: Ray's controller loads this file, too, and needs nothing of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def run(settings: dict[str, Any]) -> None:
    """A run's plan, see `plan.Plan`."""
    from threephase_ray.training.meters import Meters
    from threephase_ray.training.plan import Plan
    from threephase_ray.training.whereabouts import Whereabouts
    from threephase_ray.training.worker import work

    group, device = Whereabouts(), _device(settings["config"]["compute"]["cpus_per_worker"])
    if not work(Plan(**settings), device, lambda past: Meters(settings["run"], past).add, group.addresses, group.leaving):
        group.check()


def shift(settings: dict[str, Any]) -> None:
    """Plans that a foreman gives: `group`, `foreman` (an actor), `run` (its folder in the store), `cpus`."""
    from threephase_ray.training.line import Line
    from threephase_ray.training.shift import work
    from threephase_ray.training.whereabouts import Whereabouts

    group = Whereabouts()
    work(Line(settings["group"], settings["foreman"], settings["run"], group), _device(settings["cpus"]))
    group.check()


def _device(cpus: float) -> "torch.device":
    """This worker's device, and no more threads than it has CPUs."""
    import torch
    from ray.train.torch import get_device

    found = get_device()
    if found.type == "cuda":
        torch.cuda.set_device(found)
    torch.set_num_threads(max(1, int(cpus)))
    return found
