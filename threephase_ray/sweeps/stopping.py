"""Which trials go on: ASHA at any validation, and halving by the probe before the last phase."""

import math
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from threephase_ray.sweeping import Sweep
from threephase_ray.sweeps.trial import Mark, Trial
from threephase_ray.training.tasks import PROBE


class Judge:
    """Decides on marks in the order in which they come; all it knows are these marks, so that it can be rebuilt from a journal."""

    def __init__(self, sweep: Sweep, begin: int, end: int) -> None:
        """`begin`: progress of a trial before its first marked phase; `end`: at its end."""
        self._sweep, self._begin, self._probes = sweep, begin, dict[int, float]()
        asha = sweep.asha
        self._asha: Any = asha and ASHAScheduler(
            time_attr="progress",
            metric="score",
            mode="max",
            max_t=end - begin + 1,  # a trial at its end ends by itself
            grace_period=asha.grace,
            reduction_factor=asha.reduction,
        )
        self._known: set[int] = set()

    @property
    def waits(self) -> bool:
        """Whether the probes of all trials are compared, not of those so far."""
        halving = self._sweep.halving
        return halving is not None and (self._sweep.search.method != "optuna" if halving.wait is None else halving.wait)

    def decide(self, number: int, mark: Mark) -> str:
        """ "go on", "stop" or "pause"."""
        if mark.phase == PROBE:
            return self._by_probe(number, mark.score)
        if self._asha is None:
            return "go on"
        stub = SimpleNamespace(trial_id=str(number))
        if number not in self._known:
            self._known.add(number)
            self._asha.on_trial_add(None, stub)
        result = {"progress": mark.progress - self._begin, "score": mark.score}
        return "stop" if self._asha.on_trial_result(None, stub, result) == TrialScheduler.STOP else "go on"

    def _by_probe(self, number: int, score: float) -> str:
        """Pause, if all are to be compared; else go on when among the best so far."""
        if self._sweep.halving is None:
            return "go on"
        if self.waits:
            return "pause"
        self._probes[number] = score
        better = sum(other > score for other in self._probes.values())
        return "go on" if better < math.ceil(self._sweep.halving.keep * len(self._probes)) else "stop"

    def chosen(self, paused: list[Trial]) -> set[int]:
        """Of trials that all have their probe, those that go on; of equals the first."""
        assert self._sweep.halving is not None
        order = sorted(paused, key=lambda trial: (-_probe(trial), trial.number))
        return {trial.number for trial in order[: math.ceil(self._sweep.halving.keep * len(paused))]}


def _probe(trial: Trial) -> float:
    """The probe of a paused trial."""
    assert trial.probe is not None
    return trial.probe
