"""Fragments of flattened parameters: what an engine holds of weights and AdamW's moments, whatever the ZeRO stage."""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
Read = Callable[[str, str, int, int], Tensor]  # (parameter, kind, start, stop) -> [stop - start]
State = MutableMapping[Tensor, dict[str, Any]]  # AdamW's, by the tensors that it updates


@dataclass(frozen=True)
class Fragment:
    """A stretch of the flattened parameter `name` from `start` on: "weight" and, after the first update, both `MOMENTS`, each [n]."""

    name: str
    start: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a fragment lives: `size` numbers from `offset` on in `home`, a tensor that the optimiser updates."""

    name: str
    start: int
    size: int
    home: Tensor
    offset: int

    def of(self, tensor: Tensor) -> Tensor:
        """The fragment's stretch [size] of `home` or of one of its moments, as a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.size)


def whole(names: dict[Tensor, str]) -> list[Place]:
    """Places of parameters that are not sharded: each is its own home."""
    return [Place(name, 0, parameter.numel(), parameter, 0) for parameter, name in names.items()]


def share(places: Sequence[Place], rank: int, workers: int) -> list[Place]:
    """Those of `places` that `rank` saves where all workers hold all of them: about the same bytes for each."""
    loads, own = [0] * workers, []
    for place in sorted(places, key=lambda place: -place.size):
        lightest = loads.index(min(loads))
        loads[lightest] += place.size
        if lightest == rank:
            own.append(place)
    return own


def views(places: Iterable[Place], state: State) -> list[Fragment]:
    """What stands in `places` now; no copies."""
    return [Fragment(place.name, place.start, {"weight": place.of(place.home)} | _moments(place, state)) for place in places if place.size]


def _moments(place: Place, state: State) -> dict[str, Tensor]:
    """The fragment's moments, once there are some."""
    return {kind: place.of(state[place.home][kind]) for kind in MOMENTS if place.home in state}


@torch.no_grad()
def fill(places: Iterable[Place], read: Read, updates: int, state: State) -> None:
    """Write what `read` gives into `places`, with the moments after so many `updates`; 0: weights only, AdamW starts anew."""
    state.clear()
    for place in places:
        if updates and place.home not in state:
            state[place.home] = _fresh(place.home, updates)
        for kind in ("weight", *MOMENTS) if updates else ("weight",):
            target = place.home if kind == "weight" else state[place.home][kind]
            place.of(target).copy_(read(place.name, kind, place.start, place.start + place.size))


def _fresh(home: Tensor, updates: int) -> dict[str, Any]:
    """AdamW's state as it makes it itself at its first update; zero moments where `home` is padding."""
    step = torch.tensor(float(updates), dtype=torch.float32, device=home.device)  # fused AdamW counts in float32, on the device
    return {"step": step, **{kind: torch.zeros_like(home) for kind in MOMENTS}}
