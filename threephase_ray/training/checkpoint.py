"""A worker's fragments and random states as one safetensors file, and any stretch of a parameter read from the files of all workers."""

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from threephase_ray.errors import JobError, ResourceError
from threephase_ray.training.engine import Engine


class DamagedCheckpoint(JobError):
    """A file of a checkpoint cannot be read, or lacks something."""


def snapshot(engine: Engine, reuse: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Copies on the CPU of this worker's fragments and random states: `fragment|<name>|<start>|<kind>` [n] and `rng|<kind>` [m].

    `reuse` is an earlier snapshot that nobody needs any more: its memory is written over. Fresh memory costs several times the copy.
    """
    views = {f"fragment|{part.name}|{part.start}|{kind}": tensor for part in engine.fragments() for kind, tensor in part.tensors.items()}
    room = {} if reuse is None else reuse
    copies = {key: _copy(tensor, room.get(key)) for key, tensor in views.items()}
    if any(tensor.is_cuda for tensor in views.values()):
        torch.cuda.current_stream().synchronize()
    return copies | _random_states()


def _copy(tensor: Tensor, room: Tensor | None) -> Tensor:
    """`tensor` on the CPU, in `room` where that fits; from a GPU into pinned memory, without waiting."""
    if room is None or room.shape != tensor.shape or room.dtype != tensor.dtype:
        room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return room.copy_(tensor, non_blocking=True)


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a snapshot, down to the disk. Other threads run on meanwhile.

    Raises:
        ResourceError: the disk is full, or may not be written to.
    """
    try:
        save_file(tensors, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"a checkpoint cannot be written: {error}\n  in {path}\n  make room there, and run again") from error


@dataclass(frozen=True)
class _Stretch:
    """Numbers `start` to `stop` of a flattened parameter, or of a moment of it, under `key` in an open file."""

    start: int
    stop: int
    file: Any
    key: str


class Shards:
    """The files of all workers together, whatever their number and ZeRO stage was."""

    def __init__(self, paths: list[Path]) -> None:
        """Read what the files hold; their numbers are read when they are asked for.

        Raises:
            DamagedCheckpoint: a file is missing, cut off, or no safetensors file. Nothing in it is ever executed.
        """
        self._paths = paths
        self._files = contextlib.ExitStack()
        self._stretches: dict[tuple[str, str], list[_Stretch]] = {}
        with contextlib.ExitStack() as opened:
            for path in paths:
                self._list(opened.enter_context(_open(path)))
            self._files = opened.pop_all()
        for stretches in self._stretches.values():
            stretches.sort(key=lambda stretch: stretch.start)

    def _list(self, file: Any) -> None:
        """Note the fragments of an open file."""
        for key in file.keys():  # noqa: SIM118  # a safetensors file is no mapping
            if key.startswith("fragment|"):
                name, start, kind = key.removeprefix("fragment|").rsplit("|", 2)
                stop = int(start) + file.get_slice(key).get_shape()[0]
                self._stretches.setdefault((name, kind), []).append(_Stretch(int(start), stop, file, key))

    def read(self, name: str, kind: str, start: int, stop: int) -> Tensor:
        """Numbers `start` to `stop` of the flattened parameter `name`, or of a moment of it: [stop - start], on the CPU.

        Raises:
            DamagedCheckpoint: the files do not hold all of them.
        """
        parts, position = [], start
        for stretch in self._stretches.get((name, kind), []):
            end = min(stop, stretch.stop)
            if stretch.start <= position < end:
                parts.append(stretch.file.get_slice(stretch.key)[position - stretch.start : end - stretch.start])
                position = end
        if position < stop:
            raise _damaged(f'"{kind}" of {name} lacks the numbers from {position} to {stop}', self._paths)
        return torch.cat(parts) if parts else torch.empty(0)

    def close(self) -> None:
        """Close the files."""
        self._files.close()
        self._stretches = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """A safetensors file. Its numbers are read, not mapped: a mapped file that shrinks or vanishes on shared storage kills the process.

    Raises:
        DamagedCheckpoint: it is none.
    """
    try:
        file = safe_open(path, framework="pt", backend="pread")
    except (OSError, SafetensorError) as error:
        raise _damaged(f"not a whole safetensors file ({error})", [path]) from error
    with file:
        yield file


def _damaged(what: str, paths: list[Path]) -> DamagedCheckpoint:
    """The error for files of a checkpoint."""
    where = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files in {paths[0].parent}" if paths else "no files"
    cure = "remove this checkpoint, and run again: training goes on from the one before"
    return DamagedCheckpoint(f"damaged checkpoint: {what}\n  in {where}\n  {cure}")


def _random_states() -> dict[str, Tensor]:
    """The states of all generators that a step may draw from; numbers below 2**32 are exact in float64."""
    _, words, *rest = np.random.get_state(legacy=True)
    _, integers, gauss = random.getstate()
    states = {
        "rng|torch": torch.get_rng_state(),
        "rng|numpy": torch.tensor([*words, *rest], dtype=torch.float64),  # words, position, whether a second normal waits, and it
        "rng|python": torch.tensor([*integers, gauss is not None, 0.0 if gauss is None else gauss], dtype=torch.float64),
    }
    return states | ({"rng|cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def restore_rng(path: Path) -> None:
    """Set all random generators to the states that a snapshot has written to `path`; the GPU's to that of this process's device.

    Raises:
        DamagedCheckpoint: the file is none, or lacks a state.
    """
    with _open(path) as file:
        if not {"rng|torch", "rng|numpy", "rng|python"} <= set(file.keys()):
            raise _damaged("random states are missing", [path])
        states = {key: file.get_tensor(key) for key in file.keys() if key.startswith("rng|")}  # noqa: SIM118
    torch.set_rng_state(states["rng|torch"])
    *words, position, has_gauss, gauss = states["rng|numpy"].tolist()
    np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), int(position), int(has_gauss), gauss))
    *integers, has_gauss, gauss = states["rng|python"].tolist()
    random.setstate((3, tuple(map(int, integers)), gauss if has_gauss else None))
    if "rng|cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["rng|cuda"])
