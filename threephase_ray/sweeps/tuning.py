"""Ray Tune drives the trials: thin actors that wait for the foreman's news, while a conductor is both searcher and scheduler."""

import json
import logging
import os
import tempfile
import time
from typing import Any, Protocol, Self

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from threephase_ray.errors import JobError

_SHORTEST, _LONGEST = 0.02, 0.5  # seconds between two questions for news
_RETRIES = 3  # of a trial's actor
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal has it all
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nothing is restored from Tune's own files
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Conductor(Protocol):
    """Who decides, see `conductor.Conductor`."""

    halted: str

    def next(self) -> int | None:
        """The next trial to run; None: none now."""

    @property
    def has_more(self) -> bool:
        """Whether `next` may give a trial again."""

    def judge(self, number: int, news: dict[str, Any]) -> str:
        """What becomes of a trial upon its news."""

    def halt(self, reason: str | JobError) -> None:
        """End all."""


class Waiting(tune.Trainable):
    """A trial as Ray Tune sees it: each step gives its next news. It computes nothing, takes no CPU, and one actor serves many."""

    def setup(self, config: dict[str, Any], foreman: Any = None) -> None:
        """`foreman`: an actor, see `training.crew.Office`."""
        self._number, self._foreman = config["number"], foreman

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The same actor, another trial."""
        self._number = new_config["number"]
        return True

    def step(self) -> dict[str, Any]:
        """Wait for news."""
        pause = _SHORTEST
        while (news := ray.get(self._foreman.news.remote(self._number))) is None:
            time.sleep(pause)
            pause = min(_LONGEST, 1.2 * pause)
        return {"news": json.dumps(news), "done": news["kind"] != "mark"}


class _Ours:
    """An object of this process alone: Tune keeps copies of its parts in its files, which nobody reads."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class _Searcher(_Ours, Searcher):
    """Gives trials as the conductor has them."""

    def suggest(self, trial_id: str) -> Any:
        """The next one, none for now, or no more."""
        number = None
        try:
            number = self._conductor.next()
        except JobError as error:
            self._conductor.halt(error)
        if number is not None:
            return {"number": number}
        return None if self._conductor.has_more else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The conductor was told by the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """The journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal has it all."""


class _Scheduler(_Ours, FIFOScheduler):
    """Does as the conductor judges."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Go on or stop; a trial that pauses comes again later, as one of the searcher's."""
        return TrialScheduler.CONTINUE if self._judge(trial, json.loads(result["news"])) == "go on" else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A trial that ended by itself; of one that was stopped the conductor knows."""
        news = json.loads(result["news"])
        if news["kind"] != "mark":
            self._judge(trial, news)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """The thin actor itself failed, again and again."""
        reason = "the process that waits for its news failed"
        self._judge(trial, {"kind": "failed", "reason": reason, "cost": 0.0, "alone": 0.0, "reused": []})

    def _judge(self, trial: Trial, news: dict[str, Any]) -> str:
        """Ask the conductor; when it cannot note its answer all ends."""
        try:
            return self._conductor.judge(trial.config["number"], news)
        except JobError as error:
            self._conductor.halt(error)
            return "stop"


class _Stopper(_Ours, Stopper):
    """Ends all when the conductor has halted."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Single trials are ended by the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Whether it has."""
        return bool(self._conductor.halted)


def run(conductor: Conductor, foreman: Any) -> None:
    """Let Ray Tune run all trials to their end. On a cluster, in any thread but the main one, which keeps the signals.

    The actors of trials stay on this node and take no CPU or GPU from the workers, so that neither waits for the other.
    """
    os.environ |= _QUIET
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the files that nobody needs
    here = f"node:{ray.util.get_node_ip_address()}"
    with tempfile.TemporaryDirectory(prefix="tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(Waiting, foreman=foreman), tune.PlacementGroupFactory([{here: 0.0001}])),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(conductor), scheduler=_Scheduler(conductor), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                stop=_Stopper(conductor),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                verbose=0,
            ),
        )
        tuner.fit()
