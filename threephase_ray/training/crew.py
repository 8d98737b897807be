"""A crew: worker groups that start once and train many trials' phases, one after another, as their foreman says."""

import contextlib
import itertools
import threading
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from threephase_ray.config import Config
from threephase_ray.errors import JobError
from threephase_ray.results import Store
from threephase_ray.storage import StoreError
from threephase_ray.training import entry, fit, preflight, shift
from threephase_ray.training.cluster import asked, room
from threephase_ray.training.launch import back_off
from threephase_ray.training.office import Office
from threephase_ray.training.plan import Plan
from threephase_ray.training.tasks import Item
from threephase_ray.training.whereabouts import Leaving

_SECONDS = 0.5  # between two looks at what the groups do


class Crew:
    """The driver's side: starts the groups, and starts them again."""

    def __init__(self, store: Store, folder: str, config: Config, groups: int | None) -> None:
        """`groups`: how many, or as many as there is room for. A cluster must be there, see `cluster.cluster`.

        Raises:
            ResourceError: there is no room for one group, also after `compute.start_timeout_s`, or the nodes are not fit for the job.
        """
        self.compute = config.compute.model_copy(update={"workers": config.compute.least})
        fit.set_up(self.compute)
        config = config.model_copy(update={"store": store.storage.uri})  # the same for all nodes
        preflight.check(config, preflight.space(config))
        self.groups = max(1, groups if groups is not None else room(asked(self.compute)) // self.compute.least)
        self._store, self._folder = store, folder
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        office: Any = ray.remote(Office)
        self.foreman = office.options(num_cpus=0, scheduling_strategy=here).remote(
            store.storage.uri, config.scratch, folder, self.compute.least
        )
        self._over, self._errors = threading.Event(), dict[int, JobError]()
        self._lock, self._running = threading.Lock(), set[int]()
        self._threads = [threading.Thread(target=self._keep, args=(group,), daemon=True) for group in range(self.groups)]

    def __enter__(self) -> "Crew":
        """Let all groups start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let all groups save and end."""
        self.halt()
        for thread in self._threads:
            thread.join(self.compute.start_timeout_s + self.compute.hang_timeout_s)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.foreman.leave.remote())
        ray.kill(self.foreman)

    def halt(self) -> None:
        """Ask all groups to save and end; does not wait for it."""
        self._over.set()
        self.foreman.close.remote()

    def ask(self, name: str, *arguments: Any) -> Any:
        """What the foreman answers, see `Foreman`."""
        return ray.get(getattr(self.foreman, name).remote(*arguments))

    def enter(self, number: int, chain: list[Item], supervised: bool) -> None:
        """A trial for the foreman; what the store has is taken from there."""
        plans = {item.key: Plan(**item.plan) for item in chain}
        finished = {key: shift.known(self._store, plan) for key, plan in plans.items() if shift.is_finished(self._store, plan)}
        self.ask("enter", number, chain, finished, supervised)

    def problem(self) -> JobError | None:
        """What ended all groups, or what no group can work with."""
        errors = list(self._errors.values())
        fatal = next((error for error in errors if isinstance(error, StoreError)), None)
        return errors[0] if fatal is None and len(errors) == self.groups else fatal

    def wait_for_end(self, number: int, wish: threading.Event) -> dict[str, Any]:
        """The last news of a trial; when `wish` is set all groups save and end.

        Raises:
            JobError: no group is left.
        """
        while (news := self.ask("news", number)) is None or news["kind"] == "mark":
            if wish.is_set():
                self.halt()
            if problem := self.problem():
                raise problem
            time.sleep(_SECONDS if news is None else 0)
        return dict(news)

    def _keep(self, place: int) -> None:
        """One group for as long as there is work: started again after failures that can pass."""
        failures = 0
        for life in itertools.count():
            if not self._has_room(place):
                return
            group = place + self.groups * life
            self.ask("sent_for", group)
            settings = {"group": group, "foreman": self.foreman, "run": self._folder, "cpus": self.compute.cpus_per_worker}
            error = fit.fit(entry.shift, settings, self.compute, str(self._store.place(f"{self._folder}/ray")))
            self._running.discard(place)
            if error is None or self._over.is_set():
                return
            reason, lasting = fit.explained(error, self._store, self._folder)
            self.ask("lost", group, str(reason).splitlines()[0], lasting)
            failures = 1 if self.ask("status")["finished"].get(group) else failures + 1
            failures = 0 if isinstance(reason, Leaving) else failures
            if isinstance(reason, StoreError) or failures > self.compute.max_failures:
                self._errors[place] = reason
                return
            self._over.wait(back_off(failures))

    def _has_room(self, place: int) -> bool:
        """Wait until the nodes could hold one group more than now run; false when there is no work any more."""
        while not self._over.is_set():
            with self._lock:
                if room(asked(self.compute)) >= self.compute.least * (1 + len(self._running)):
                    self._running.add(place)
                    return True
            self._over.wait(_SECONDS)
        return False
