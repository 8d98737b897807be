"""Sweeps: each phase trained once, whatever is killed; nothing is left on the cluster when trials are stopped."""

import collections
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import cluster
from tests.faults.course import Event, read
from tests.faults.independent import figures
from tests.faults.job import ROOT, Job
from tests.faults.report import Line
from tests.faults.trial import LOCAL, Case, Trial
from threephase_ray.results import Store
from threephase_ray.training.plan import Plan

SPACE = """
sweep:
  space:
    dae.noise_ratio: {{grid: {noise}}}
    contrastive.loss.temperature: {{grid: {temperature}}}
    contrastive.imbalance.max_ratio: {{grid: {ratio}}}
  search: {{method: grid}}
"""
WHOLE = SPACE.format(noise="[0.3, 0.5, 0.7]", temperature="[0.05, 0.1, 0.2]", ratio="[2, 12, 20]")
SMALL = SPACE.format(noise="[0.3, 0.7]", temperature="[0.05, 0.2]", ratio="[2, 12]") + "  asha: {grace: 50, reduction: 2}\n"
STOPPED = SPACE.format(noise="[0.5]", temperature="[0.03, 0.05, 0.1, 0.2, 0.4]", ratio="[2, 12, 16, 20]") + "  halving: {keep: 0.05}\n"
SHORT = ("--dae.steps", "10", "--contrastive.steps", "10", "--finetune.steps", "10", "--finetune.validations", "1")
BARE: dict[str, Any] = {"config": {}, "data": "", "run": "", "stage": 0, "engine": "", "tests": []}
GROUPS = 2
KILLS = 10
LEFT = 5.0  # seconds after which nothing of a sweep may be left
COUNT = """
import ray; ray.init(log_to_driver=False)
print("left", [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"])
"""


class SweepJob(Job):
    """A sweep instead of a run."""

    script = "sweep.py"

    def knobs(self, space: str) -> None:
        """What is searched."""
        path = self.folder / "sweep.yaml"
        path.write_text(space)
        self.flags += ["--config", str(path)]

    def events_path(self) -> Path:
        """Where the foreman writes them."""
        return self.file("events.jsonl")

    def file(self, name: str) -> Path:
        """A file of the sweep."""
        return Path(self.store) / "sweeps" / self.name / name

    def trials(self) -> list[dict[str, Any]]:
        """What became of each trial, by its journal: point, marks with decisions, end."""
        found: dict[int, dict[str, Any]] = collections.defaultdict(lambda: {"marks": []})
        for event in read(self.file("journal.jsonl")):
            if event["event"] == "trial":
                found[event["number"]]["point"] = event["point"]
            elif event["event"] == "mark":
                found[event["number"]]["marks"].append([event[part] for part in ("phase", "progress", "score", "decision")])
            elif event["event"] == "end":
                found[event["number"]] |= {"status": event["status"], "score": event.get("score")}
            elif event["event"] == "release":
                for number in event["off"]:
                    found[int(number)]["status"] = "stopped"
        return [found[number] for number in sorted(found)]


def cases() -> list[Case]:
    """All of them."""
    return [
        Case("sweeps/grid", 1500, grid),
        Case("sweeps/driver", 1500, driver),
        Case("sweeps/stopped-dashboard", 900, partial(stopped, dashboard=True)),
        Case("sweeps/stopped-bare", 900, partial(stopped, dashboard=False)),
        Case("sweeps/node", 900, node),
    ]


def made(trial: Trial, space: str, *flags: str, local: bool, name: str = "") -> SweepJob:
    """A sweep that has not begun."""
    job = trial.job(*flags, local=local, name=name, kind=SweepJob)
    assert isinstance(job, SweepJob)
    job.knobs(space)
    return job


def ended(events: list[Event]) -> collections.Counter[tuple[str, str]]:
    """How often each phase was trained to its end, by its name and key."""
    return collections.Counter((event["phase"], event["key"]) for event in events if event["event"] == "phase_end")


def judged(line: Line, job: SweepJob, phases: dict[str, int] | None = None) -> Line:
    """Every trial ended, and each phase was trained once."""
    counts = ended(job.events())
    line.problems += [f"{name} {key} was trained {times} times" for (name, key), times in counts.items() if times > 1]
    line.problems += [f"trial {number} did not end" for number, each in enumerate(job.trials()) if "status" not in each]
    distinct = collections.Counter(name for name, _ in counts)
    if phases is not None and dict(distinct) != phases:
        line.problems.append(f"trained {dict(distinct)} instead of {phases}")
    return line


def grid(trial: Trial) -> Iterator[Line]:
    """27 trials share 3 first phases; the same 27, each by itself, come to the same figures."""
    job = made(trial, WHOLE, *SHORT, "--compute.workers", "1", local=True)
    job.start()
    job.finish()
    line = judged(Line(trial.name, killed="nothing", cluster=LOCAL), job, {"dae": 3, "contrastive": 27, "finetune": 27})
    store, spent = Store(job.store, str(job.folder / "scratch")), 0.0
    ours = {key: figures(store, Plan(**BARE, phases=[{"result": f"phases/{name}-{key}"}])) for name, key in ended(job.events())}
    for key, (found, cost) in alone(trial, job):
        line.problems += [] if ours[key][0] == found else [f"{key} came to other figures than alone"]
        spent += cost
    shared = sum(cost for _, cost in ours.values())
    start = statistics.mean(event["seconds"] for event in job.events() if event["event"] == "group")
    line.note = f"27 trials: {shared:.0f} CPU seconds of workers shared, {spent:.0f} alone, {spent / shared:.2f} times as many; "
    line.note += f"{GROUPS} starts of {start:.0f} s instead of 27"
    yield line


def alone(trial: Trial, job: SweepJob) -> list[tuple[str, tuple[dict[str, Any], float]]]:
    """The sweep's trials, each by itself: key, figures and CPU seconds of each phase."""
    asked, out = job.folder / "alone.json", job.folder / "alone"
    flags = [*job.flags, "--scratch", str(job.folder / "scratch"), "--name", "alone"]
    files = [str(job.config), flags.pop(flags.index("--config") + 1)]
    flags.remove("--config")
    asked.write_text(json.dumps({"files": files, "flags": flags, "points": [each["point"] for each in job.trials()]}))
    words = [sys.executable, "-m", "tests.faults.independent", str(asked), str(out)]
    subprocess.run(words, cwd=ROOT, env=job.environment | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
    return [(key, tuple(found)) for key, found in json.loads(out.read_text())]


def driver(trial: Trial) -> Iterator[Line]:
    """The driver and its Ray killed at random moments, ten times: the same trials, the same decisions, nothing trained twice."""
    whole, hurt = (made(trial, SMALL, "--compute.workers", "2", local=True, name=name) for name in ("whole", "hurt"))
    whole.start()
    whole.finish()
    expected = len(whole.events())
    moments = []
    for kill in range(KILLS):
        hurt.start()
        begun = len(hurt.events())
        wanted = trial.rng.randint(3, max(4, int(1.5 * (expected - begun) / (KILLS - kill + 1))))
        trial.limit.until(lambda begun=begun, wanted=wanted: len(hurt.events()) >= begun + wanted or hurt.code is not None, "events")
        if hurt.code is not None:
            break
        hurt.kill()
        moments.append(len(hurt.events()))
    hurt.start()
    hurt.finish()
    line = judged(Line(trial.name, killed="driver", kills=len(moments), moments=moments, cluster=LOCAL), hurt)
    line.problems += [] if len(moments) == KILLS else [f"ended after {len(moments)} kills"]
    line.problems += [f"trial {n} differs" for n, pair in enumerate(zip(whole.trials(), hurt.trials(), strict=True)) if pair[0] != pair[1]]
    line.problems += [] if ended(whole.events()) == ended(hurt.events()) else ["other phases were trained"]
    stopped = sum(each["status"] == "stopped" for each in hurt.trials())
    line.note = f"{len(hurt.trials())} trials, {stopped} stopped by ASHA; moments are numbers of events"
    yield line


def stopped(trial: Trial, dashboard: bool) -> Iterator[Line]:
    """Twenty trials of which one may go on: nothing of the others is left on the cluster."""
    with cluster.running(trial.folder / "c", trial.bench.environment, dashboard) as nodes:
        job = made(trial, STOPPED, *SHORT, "--compute.workers", "1", local=True)
        job.cluster, job.environment = nodes, nodes.environment()
        job.start()
        job.finish()
        time.sleep(LEFT)
        words = [*nodes.place.prefix, sys.executable, "-c", COUNT]
        said = subprocess.run(words, env=job.environment, capture_output=True, text=True, check=True).stdout
    line = judged(Line(trial.name, killed="nothing", cluster=nodes.kind), job)
    counts = collections.Counter(each["status"] for each in job.trials())
    line.problems += [] if "left []" in said else [f"placement groups {said.strip()[-200:]}"]
    line.problems += [] if counts == {"stopped": 19, "done": 1} else [f"trials {dict(counts)}"]
    line.note = f"{dict(counts)}, no placement group after {LEFT:.0f} s, {'with' if dashboard else 'without'} the dashboard"
    yield line


def node(trial: Trial) -> Iterator[Line]:
    """Groups work on both nodes; one is lost for good, and the sweep ends on the other."""
    job = made(trial, WHOLE, *SHORT, "--compute.workers", "1", local=False)
    job.start()
    trial.limit.until(lambda: len(finished_by(job)) == 2 or job.code is not None, "a phase finished by each group")
    before = finished_by(job)
    trial.cluster.b.kill()
    try:
        job.finish()
    finally:
        trial.cluster.join(trial.cluster.b)
    line = judged(Line(trial.name, killed="node", kills=1, cluster=trial.cluster.kind), job, {"dae": 3, "contrastive": 27, "finetune": 27})
    nodes = {node for event in job.events() if event["event"] == "group" for node in event["nodes"]}
    if len(before) < 2 or (trial.cluster.kind == "two namespaces" and len(nodes) < 2):
        line.problems.append(f"not at work on both nodes: {before}, {nodes}")
    line.note = f"phases finished by each group before the loss {dict(before)}, in the end {dict(finished_by(job))}; nodes {sorted(nodes)}"
    yield line


def finished_by(job: SweepJob) -> collections.Counter[int]:
    """How many tasks each group has finished."""
    hands: dict[str, int] = {}
    counts: collections.Counter[int] = collections.Counter()
    for event in job.events():
        if event["event"] == "start":
            hands[event["task"]] = event["group"]
        elif event["event"] == "task_done":
            counts[hands[event["task"]]] += 1
    return counts
