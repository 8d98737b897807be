"""Events of the workers as metrics of Ray, which each node offers to Prometheus: the one place where they become figures."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from ray.util.metrics import Counter, Gauge

from threephase_ray.training import accounting
from threephase_ray.training.accounting import Event

_TURNS = ("resume", "checkpoint", "attempt")  # after these the goodput is another one
_TAGS = ("phase", "run")


class Meters:
    """The figures of a run, by phase. `run`: its folder in the store; `past`: all its events so far, for the goodput."""

    def __init__(self, run: str, past: Callable[[], list[Event]] = list) -> None:
        self._run, self._past = run, past
        self._key, self._pace = "", accounting.Speed()
        self._speed = Gauge("threephase_steps_per_second", "optimiser steps a second, over the last 20", _TAGS)
        self._loss = Gauge("threephase_loss", "loss of the last step", _TAGS)
        self._goodput = Gauge("threephase_goodput", "share of the phase's time that was not lost to failures and checkpoints", _TAGS)
        self._steps = Counter("threephase_steps_total", "optimiser steps done, those done again included", _TAGS)
        self._reused = Counter("threephase_phases_reused_total", "phases that were taken from the store instead of being trained", _TAGS)

    def add(self, event: Event) -> None:
        """Take in an event, after it was written."""
        kind, tags = event["event"], {"phase": str(event.get("phase")), "run": self._run}
        if kind == "phase":
            self._key = event["key"]
        if kind in ("phase", "resume"):
            self._pace.restart()
        if kind == "step":
            self._step(float(event["loss"]), tags)
        if kind in _TURNS:
            made = accounting.attempts(self._past(), self._key)
            self._goodput.set(accounting.summary(made)["goodput"], tags)

    def reused(self, phases: Iterable[str]) -> None:
        """Phases that need no training."""
        for phase in phases:
            self._reused.inc(1, {"phase": phase, "run": self._run})

    def _step(self, loss: float, tags: dict[str, Any]) -> None:
        """One step more."""
        self._steps.inc(1, tags)
        self._loss.set(loss, tags)
        if (speed := self._pace.step(time.monotonic())) is not None:
            self._speed.set(speed, tags)
