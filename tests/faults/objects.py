"""An S3 store that is slow, that fails, that is killed: the same weights as on a folder."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial

from tests.faults import attacks
from tests.faults.job import Job
from tests.faults.kills import zero
from tests.faults.material import INTERVAL
from tests.faults.report import Line
from tests.faults.trial import LOCAL, Case, Trial
from tests.integration.s3 import BUCKET, Proxy, Server, credentials

PHASE = "finetune"
ONLY = ("--phases", PHASE)
SLOW, FAILING = 1_000_000, 0.05  # bytes a second; share of the requests
DOWN = 4.0  # seconds without a server


@dataclasses.dataclass
class Ground:
    """The server, the proxy before it, and the run that uses them."""

    server: Server
    proxy: Proxy
    job: Job


def cases() -> list[Case]:
    """Each trouble once."""
    troubles = {
        "server-killed": restart,
        "slow": slow,
        "failing": failing,
        "slow-worker-killed": kill_worker,
        "slow-driver-killed": kill_driver,
    }
    return [Case(f"s3/{name}", 1000, partial(run, trouble=trouble)) for name, trouble in troubles.items()]


def run(trial: Trial, trouble: Callable[[Trial, Ground], str]) -> Iterator[Line]:
    """One phase with its store on S3; `trouble` watches and disturbs it, and says what it did."""
    flags = (*zero(1), *ONLY)
    trial.bench.reference(*flags)
    with ground(trial, flags) as place:
        place.job.start()
        done = trouble(trial, place)
        place.job.finish()
        place.proxy.rate, place.proxy.failing = None, 0.0
        same = trial.compare(place.job, *flags, phases=[PHASE])
        lines = attacks.lines(trial, place.job, 1, same) or [Line(trial.name, PHASE, 1, interval=INTERVAL, identical=same[PHASE]).judge()]
        yield dataclasses.replace(lines[0], cluster=f"{LOCAL}, S3", note=done)


@contextlib.contextmanager
def ground(trial: Trial, flags: tuple[str, ...]) -> Iterator[Ground]:
    """Server, proxy and run."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    with Server(trial.folder / "journal") as server, Proxy(server.port, trial.bench.seed) as proxy:
        known = credentials() | {"AWS_ENDPOINT_URL": proxy.endpoint}
        job = trial.job(*flags, local=True)
        job.store, job.environment = f"s3://{BUCKET}/store", job.environment | known
        yield Ground(server, proxy, job)


def restart(trial: Trial, place: Ground) -> str:
    """The server is killed while bytes of a checkpoint crawl to it, and comes back."""
    place.job.reach(PHASE, attacks.moment(trial, PHASE))
    crawl(place)
    place.server.kill()
    time.sleep(DOWN)
    place.proxy.rate = None
    place.server.start()
    return f"server down for {DOWN:.0f} s, a checkpoint was under way"


def crawl(place: Ground) -> None:
    """Make the network slow, and wait until a checkpoint is under way."""
    place.proxy.rate = SLOW / 20

    def under_way() -> bool:
        kinds = [event["event"] for event in place.job.events()]
        return kinds.count("checkpoint") > kinds.count("committed")

    place.job.limit.until(under_way, "a checkpoint under way")


def slow(trial: Trial, place: Ground) -> str:
    """All goes at a crawl."""
    place.proxy.rate = SLOW
    place.job.limit.until(lambda: place.job.code is not None, "the end of the run")
    return f"{SLOW // 1_000_000} MB/s"


def failing(trial: Trial, place: Ground) -> str:
    """Some requests fail, from the first to the last."""
    place.proxy.failing = FAILING
    place.job.limit.until(lambda: place.job.code is not None, "the end of the run")
    return f"{FAILING:.0%} of the requests fail: {place.proxy.failures}"


def kill_worker(trial: Trial, place: Ground) -> str:
    """A worker dies while a checkpoint crawls to the server."""
    return killed(trial, place, "worker")


def kill_driver(trial: Trial, place: Ground) -> str:
    """The driver and all its workers die while a checkpoint crawls to the server."""
    return killed(trial, place, "driver")


def killed(trial: Trial, place: Ground, what: str) -> str:
    """Kill after a checkpoint was taken and before it is whole."""
    place.job.reach(PHASE, 1)
    victims = attacks.chosen(trial, place.job, what)
    place.job.reach(PHASE, 2 * INTERVAL)
    crawl(place)
    attacks.strike(trial, place.job, what, PHASE, victims)
    place.proxy.rate = None
    return "a checkpoint was under way"
