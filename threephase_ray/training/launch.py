"""Run a plan on Ray Train workers, again after every failure that can pass."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from threephase_ray.config import Config
from threephase_ray.machine import Compute
from threephase_ray.results import Store
from threephase_ray.training import entry, fit, preflight, signals, stop
from threephase_ray.training.cluster import cluster, wait_for
from threephase_ray.training.meters import Meters
from threephase_ray.training.plan import Plan
from threephase_ray.training.whereabouts import Leaving

Report = Callable[[dict[str, Any]], None]
_LONGEST_PAUSE = 60.0  # seconds between two attempts at most; the first pause is a second, the next twice as long


def launch(plan: Plan, compute: Compute, store: Store, progress: Callable[[], str], report: Report) -> None:
    """Run `plan` on workers, one `fit()` for each attempt. After a failure they start again, from the last checkpoint.

    `progress` says in words how far the store is: failures in a row that leave it there are counted. `report` receives the retries.

    Raises:
        ResourceError: the cluster has not what was asked, also after `compute.start_timeout_s`, or its nodes are not fit for the job.
        TrainingError: workers failed more than `compute.max_failures` times in a row.
        Stopped: SIGTERM or SIGINT arrived, and everything is saved.
        JobError: what a worker said that no repetition can mend.
    """
    fit.set_up(compute)
    stop.forget(store, plan.run)
    with cluster(), signals.caught(lambda: stop.ask(store, plan.run)) as came:
        config = Config(**plan.config)
        preflight.check(config, preflight.space(config))
        Meters(plan.run).reused(reused(plan))
        failures, reached = 0, progress()
        while True:
            wait_for(compute)
            error = _attempt(plan, compute, store)
            if came:
                raise signals.Stopped(f"stopped as asked: {progress()}\n  run the same command again to go on from there", came[0])
            if error is None:
                return
            before, reached = reached, progress()
            reason, lasting = fit.explained(error, store, plan.run)
            failures = 0 if isinstance(reason, Leaving) else 1 if reached != before else failures + 1
            if lasting or failures > compute.max_failures:
                raise reason from error
            pause = back_off(failures)
            report({"event": "retry", "reason": str(reason).splitlines()[0], "failures": failures, "pause": pause})
            time.sleep(pause)


def reused(plan: Plan) -> list[str]:
    """The phases of a run that its plan leaves out, since the store has them."""
    wanted = [*plan.config["phases"], *(["baseline"] if plan.config["baseline"] else [])]
    return [name for name in wanted if name not in {job["name"] for job in plan.phases}]


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(_LONGEST_PAUSE, 2.0 ** (failures - 1))


def _attempt(plan: Plan, compute: Compute, store: Store) -> BaseException | None:
    """One group's work, in a side thread, so that signals reach this one at once; what it raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fit.fit, entry.run, asdict(plan), compute, str(store.place(f"{plan.run}/ray"))).result()
