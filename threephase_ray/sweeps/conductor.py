"""Conducts a sweep: which trial comes next, whether it goes on, and when all is over. It notes all in the journal first."""

import time
from typing import Any, Protocol

from threephase_ray.errors import JobError
from threephase_ray.sweeping import Sweep
from threephase_ray.sweeps import chains
from threephase_ray.sweeps.journal import Journal
from threephase_ray.sweeps.search import Search
from threephase_ray.sweeps.space import Space
from threephase_ray.sweeps.stopping import Judge
from threephase_ray.sweeps.trial import Mark, Point, Status, Trial
from threephase_ray.training.tasks import PROBE, Item
from threephase_ray.trials import Planner


class Foreman(Protocol):
    """What the conductor asks of the foreman, see `training.crew.Crew`."""

    groups: int

    def enter(self, number: int, chain: list[Item], supervised: bool) -> None:
        """A trial that may begin."""

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a function of the foreman."""

    def halt(self) -> None:
        """Ask all groups to save and end."""


class Conductor:
    """The sweep's course. One thread calls it at a time."""

    def __init__(self, sweep: Sweep, space: Space, search: Search, journal: Journal, crew: Foreman, run: str, planner: Planner) -> None:
        """`run`: the sweep's folder in the store. Goes on from wherever the journal stands."""
        self.journal, self.halted = journal, ""
        self.error: JobError | None = None
        self._sweep, self._space, self._search, self._crew = sweep, space, search, crew
        self._run, self._planner, self._began = run, planner, time.monotonic()
        self._places = 1 if crew.groups == 1 else crew.groups + 1  # one may wait for a phase that another trial has in hand
        self._stops = sweep.asha is not None or sweep.halving is not None
        self._chains: dict[int, list[Item]] = {}
        self._judge: Judge | None = None
        self._running: set[int] = set()
        self._exhausted = False  # the search has no more points
        for number in journal.ended:
            search.told(journal.trials[number])
        for trial in journal.unfinished():
            search.told(trial)
            self._enter(trial.number, self._chain(trial.point))
        if sweep.search.method != "optuna":  # the points are known: first phases can be trained ahead
            while not self._exhausted:
                self._add()
        self._backlog = [trial.number for trial in journal.unfinished() if trial.status != "paused"]

    def next(self) -> int | None:
        """The next trial to run, maybe one that was paused; None: none now."""
        if self.halted or len(self._running) >= self._places:
            return None
        while not self._backlog and self._searches:
            self._backlog = [trial.number for trial in [self._add()] if trial is not None]
        if not self._backlog and not self._running:
            self._backlog = self._release()
        return self._run_on(self._backlog.pop(0)) if self._backlog else None

    @property
    def has_more(self) -> bool:
        """Whether `next` may give a trial again."""
        may_pause = self._judge is not None and self._judge.waits and bool(self._running)
        return not self.halted and (bool(self._backlog or self._paused) or self._searches or may_pause)

    @property
    def _searches(self) -> bool:
        """Whether the search may have another point."""
        return not (self._exhausted or self._is_flat())

    @property
    def _paused(self) -> list[Trial]:
        """Trials that wait for a comparison with all others."""
        return [trial for trial in self.journal.trials.values() if trial.status == "paused"]

    def judge(self, number: int, news: dict[str, Any]) -> str:
        """What becomes of a trial upon its news: "go on", "stop" or "pause"; notes its end, if it is one."""
        decision = "go on"
        if news["kind"] == "mark":
            decision = self._mark(number, Mark(news["progress"], news["phase"], news["score"]))
        elif news["kind"] == "done":
            score, scores = chains.score(self._chains[number], news["figures"])
            self._end(number, "done", news, score=score, scores=scores)
        elif news["kind"] == "failed":
            self._end(number, "failed", news, reason=news["reason"])
        if news["kind"] != "mark" or decision != "go on":
            self._running.discard(number)
        return decision

    def watch(self) -> None:
        """End the sweep when a limit is reached."""
        limits, hours = self._sweep.limits, (self.journal.seconds + time.monotonic() - self._began) / 3600
        if limits.hours is not None and hours >= limits.hours:
            self.halt(f"sweep.limits.hours: {limits.hours:g} hours are over")
        if limits.worker_hours is not None and self._crew.ask("status")["worker_seconds"] >= 3600 * limits.worker_hours:
            self.halt(f"sweep.limits.worker_hours: {limits.worker_hours:g} hours of workers are spent")

    def halt(self, reason: str | JobError) -> None:
        """Save everything and end; an error is kept for the end."""
        if isinstance(reason, JobError):
            self.error, reason = reason, str(reason).splitlines()[0]
        if not self.halted:
            self.halted = reason
            self._crew.halt()

    def _add(self) -> Trial | None:
        """The search's next point as a trial; None: there is none, or it cannot be run, which is noted."""
        number = len(self.journal.trials)
        point = self._search.next(number)
        if point is None:
            self._exhausted = True
            return None
        try:
            chain, reason = self._chain(point), ""
        except JobError as error:
            chain, reason = [], str(error).splitlines()[0]
        trial = self.journal.add(number, point, {item.name: item.key for item in chain if item.name != PROBE})
        if reason:
            self._end(number, "failed", {"cost": 0.0, "alone": 0.0, "reused": []}, reason=reason)
            return None
        self._enter(number, chain)
        return trial

    def _chain(self, point: Point) -> list[Item]:
        """What the trial consists of."""
        return chains.items(self._planner.outline(self._space.configuration(point)), self._run, self._sweep)

    def _enter(self, number: int, chain: list[Item]) -> None:
        """Hand a trial to the foreman."""
        self._chains[number] = chain
        self._crew.enter(number, chain, self._stops)  # else its phases may be trained ahead of its turn
        if self._judge is None:
            self._judge = Judge(self._sweep, chains.begin(chain), chains.end(chain))
            for earlier, mark in self.journal.marks:
                self._judge.decide(earlier, mark)

    def _release(self) -> list[int]:
        """All have come to their pause: those that go on; the others end."""
        if not (paused := self._paused):
            return []
        assert self._judge is not None
        on = self._judge.chosen(paused)
        off = {trial.number for trial in paused} - on
        costs = {number: self._phases_only(self._crew.ask("withdraw", number)) for number in sorted(off)}
        self.journal.release(on, costs, f"its probe was not among the best {len(on)} of {len(paused)}")
        for number in sorted(off):
            self._search.told(self.journal.trials[number])
        return sorted(on)

    def _run_on(self, number: int) -> int:
        """The trial runs."""
        self._running.add(number)
        self.journal.trials[number].status = "running"
        self._crew.ask("begin", number)
        return number

    def _mark(self, number: int, mark: Mark) -> str:
        """Decide on a mark; one that was decided on in an earlier life stays as it was."""
        known = self.journal.decisions.get((number, mark.phase, mark.progress))
        assert self._judge is not None
        decision = self._judge.decide(number, mark) if known is None else known
        if known is None:
            self.journal.mark(number, mark, decision)
        if decision == "stop":
            reason = f"fell behind: {mark.score:.4f} at progress {mark.progress} ({mark.phase})"
            self._end(number, "stopped", self._crew.ask("withdraw", number), reason=reason)
        return decision

    def _end(self, number: int, status: Status, costs: dict[str, Any], **facts: Any) -> None:
        """Note how a trial ended, and tell the search."""
        self.journal.end(number, status, **self._phases_only(costs), **facts)
        self._search.told(self.journal.trials[number])

    @staticmethod
    def _phases_only(costs: dict[str, Any]) -> dict[str, Any]:
        """The foreman's account of a trial; that a probe was there is not worth a word."""
        return {"cost": costs["cost"], "alone": costs["alone"], "reused": [name for name in costs["reused"] if name != PROBE]}

    def _is_flat(self) -> bool:
        """Whether the last trials that came to their end were no better than one before."""
        plateau = self._sweep.limits.plateau
        scores = [self.journal.trials[number].score for number in self.journal.ended]
        done = [score for score in scores if score is not None]
        return plateau is not None and len(done) > plateau and max(done[-plateau:]) <= max(done[:-plateau])
