"""Checkpoints of a phase: when one is taken, its way into the store in the background, and the way back."""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from threephase_ray.errors import JobError
from threephase_ray.lock import Lock
from threephase_ray.machine import Checkpoint
from threephase_ray.results import MANIFEST, Store, facts
from threephase_ray.storage import StoreError
from threephase_ray.training import checkpoint
from threephase_ray.training.engine import Engine, world
from threephase_ray.training.loop import Course, Report
from threephase_ray.training.together import everyone, first

_INSIDE = "shards"  # the files of a checkpoint; its manifest stands beside them
_FIRST_MINUTE = 60.0  # seconds to the first checkpoint, whose cost Young's formula needs
_POLL_SECONDS = 0.2


class Keeper:
    """Saves and restores one phase under `progress/<phase>-<key>/<step>-<token>/`; every worker has one.

    Each worker writes its own shard, then a receipt with size and SHA-256; when rank 0 sees all receipts and still holds the lock, it
    writes the manifest, which alone makes the checkpoint count. Nothing here is pickled.
    """

    def __init__(self, store: Store, name: str, knobs: Checkpoint, lock: Lock, report: Report, stop: Callable[[], bool]) -> None:
        """`lock` is the phase's, held by rank 0, its token known to all; `stop` says whether a stop was asked for."""
        self._store, self._name, self._knobs, self._lock, self._report, self._stop = store, f"progress/{name}", knobs, lock, report, stop
        self._rank, self._workers = world()
        self._pool, self._closing = ThreadPoolExecutor(1), Event()
        self._upload: Future[None] | None = None
        self._steps, self._since, self._stall, self._whole = 0, time.monotonic(), 0.0, 0
        self._room: dict[str, Tensor] = {}  # memory of the last snapshot, for the next

    def wishes(self) -> tuple[bool, bool, bool]:
        """A stop was asked for; a checkpoint is due; the last one is still on its way (see `loop.Keeper`)."""
        self._steps += 1
        uploading = self._upload is not None and not self._upload.done()
        return self._stop(), self._rank == 0 and self._due(), uploading

    def _due(self) -> bool:
        """Whether the time, or the number of steps, since the last checkpoint is up."""
        if self._knobs.steps is not None:
            return self._steps >= self._knobs.steps
        return time.monotonic() - self._since >= self._interval()

    def _interval(self) -> float:
        """Seconds between two checkpoints; Young (1974): the square root of 2 * cost * time between failures."""
        if self._knobs.minutes != "young":
            return 60.0 * self._knobs.minutes
        return math.sqrt(2.0 * self._stall * 3600.0 * self._knobs.mtbf_hours) if self._stall else _FIRST_MINUTE

    def save(self, engine: Engine, course: Course, last: bool) -> None:
        """Copy this worker's state, and bring it to the store in the background; the `last` one is whole there on return.

        Raises:
            JobError: the checkpoint before this one could not be written.
        """
        started = time.perf_counter()
        self._arrive()
        tensors = self._room = checkpoint.snapshot(engine, self._room)
        state = json.dumps({"workers": self._workers, "course": course.state()})
        self._stall, self._steps, self._since = time.perf_counter() - started, 0, time.monotonic()
        self._report({"event": "checkpoint", "step": course.step, "stall": self._stall})
        self._upload = self._pool.submit(self._bring, course.step, tensors, state, course.weights)
        if last:
            if self._rank != 0:
                self._arrive()
            first(self._arrive)

    def _arrive(self) -> None:
        """Wait until the checkpoint under way is whole, or say why it is not."""
        if self._upload is None:
            return
        upload, self._upload = self._upload, None
        try:
            upload.result()
        except (JobError, OSError) as error:
            again = f"run the same command again to go on from step {self._whole}" if self._whole else "there is no whole checkpoint yet"
            raise JobError(f"{self._name}: a checkpoint could not be written: {error}\n  {again}") from error

    def _bring(self, step: int, tensors: dict[str, Tensor], state: str, best: dict[str, Tensor]) -> None:
        """Write and upload this worker's files, then its receipt; rank 0 commits the whole. Runs in the background."""
        name, started = f"{self._name}/{step:09d}-{self._lock.token:04d}", time.perf_counter()
        folder = self._store.place(f"{name}/{_INSIDE}")
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"rank-{self._rank}.safetensors"]
        checkpoint.write(tensors, paths[0])
        if self._rank == 0:
            paths.append(folder / "course.json")
            paths[-1].write_text(state)
            if best:
                paths.append(folder / "best.safetensors")
                save_file(best, paths[-1])
        receipt = {path.name: facts(path) for path in paths}
        for path in paths:
            self._store.put(path, f"{name}/{_INSIDE}/{path.name}")
        self._store.write_json(f"{name}/receipts/{self._rank}.json", receipt)
        if self._rank == 0 and self._commit(name):
            self._whole = step
            self._report({"event": "committed", "step": step, "seconds": time.perf_counter() - started})
            self._drop_old()

    def _commit(self, name: str) -> bool:
        """Write the manifest once all workers' receipts are there; false if that was not waited for."""
        receipts = [f"{name}/receipts/{rank}.json" for rank in range(self._workers)]
        while not set(receipts) <= set(self._store.storage.sizes(f"{name}/receipts")):
            if self._closing.wait(_POLL_SECONDS):
                return False
        files: dict[str, Any] = {}
        for receipt in receipts:
            files |= self._store.read_json(receipt)
        self._lock.check()
        return self._store.storage.create(f"{name}/{MANIFEST}", json.dumps({"attempt": _INSIDE, "files": files}).encode())

    def _drop_old(self) -> None:
        """Remove all but the newest whole checkpoints; the manifest goes first, so that half of one never counts."""
        whole = [name for name in self.names() if self._store.is_finished(name)]
        kept = set(whole[: self._knobs.keep])
        for name in self.names():
            if name not in kept and (not whole or name < whole[0]):
                self._store.storage.remove(f"{name}/{MANIFEST}")
                self._store.storage.remove(name)

    def names(self) -> list[str]:
        """All checkpoints of the phase, whole or not, the newest first."""
        depth = len(Path(self._name).parts) + 1
        return sorted({"/".join(Path(name).parts[:depth]) for name in self._store.storage.sizes(self._name)}, reverse=True)

    def restore(self, engine: Engine) -> Course:
        """Put the newest whole checkpoint into `engine`; what is passed over on the way to it is reported and removed."""
        for name in first(self.names):
            folder, problem = self._look(name)
            problems = [found for found in everyone(problem) if found]
            if not problems:
                assert folder is not None
                return self._load(engine, folder)
            self._report({"event": "passed_over", "checkpoint": name, "reason": problems[0]})
            first(lambda name=name: self._store.storage.remove(name))  # type: ignore[misc]
        return Course()

    def _look(self, name: str) -> tuple[Path | None, str | None]:
        """A checkpoint's folder on this machine, every file checked, or what is wrong with it."""
        if not self._store.is_finished(name):
            return None, "it has no manifest: its writing was cut short"
        try:
            folder = self._store.fetch(name)
            checkpoint.Shards(_shards(folder)).close()
            return folder, None
        except StoreError:
            raise
        except JobError as error:
            return None, str(error).splitlines()[0]

    def _load(self, engine: Engine, folder: Path) -> Course:
        """The course of a checkpoint; weights, optimiser and random states go where they belong."""
        saved = json.loads((folder / "course.json").read_bytes())
        course = Course(**saved["course"])
        paths = _shards(folder)
        with checkpoint.Shards(paths) as shards:
            engine.load(shards.read, course.step - len(course.skipped))
        if len(paths) == self._workers:
            checkpoint.restore_rng(paths[self._rank])
        else:  # nobody has these workers' random states
            torch.manual_seed(torch.initial_seed() + 7919 * course.step)
        best = folder / "best.safetensors"
        if self._rank == 0 and best.exists():  # cloned, since the file may go while they are in use
            course.weights = {name: tensor.clone() for name, tensor in load_file(best).items()}
        self._whole = course.step
        return course

    def close(self, finished: bool) -> None:
        """Stop writing; the checkpoints of a phase that is `finished` are removed."""
        self._closing.set()
        self._pool.shutdown()
        if finished:
            everyone(None)  # from here on nobody writes there
            if self._rank == 0:
                self._store.storage.remove(self._name)


def _shards(folder: Path) -> list[Path]:
    """The files of all workers that took part in a checkpoint."""
    workers = json.loads((folder / "course.json").read_bytes())["workers"]
    return [folder / f"rank-{rank}.safetensors" for rank in range(workers)]
