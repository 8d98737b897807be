"""Nodes that are not fit for a job are found before anything starts: every fault by its own words, with its node and its remedy."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.faults import material
from tests.integration.misfits import Fault, Misfits, faults

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
TOGETHER = ("store not shared", "store not writable", "other version", "no GPU", "disk too full", "clock")
ALONE = (*TOGETHER, "too few CPUs", "no answer")
Start = Callable[[Mapping[str, Fault]], Misfits]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tpp", dir="/tmp") as made:  # a short path
        yield Path(made)


@pytest.fixture(scope="module")
def planted(folder: Path) -> dict[str, Fault]:
    return faults(folder)


@pytest.fixture(scope="module")
def start(folder: Path) -> Iterator[Start]:
    """Start a cluster; the one before ends."""
    running: list[Misfits] = []
    config = material.make(folder / "material")

    def begin(wanted: Mapping[str, Fault]) -> Misfits:
        if running:
            running.pop().end()
        running.append(Misfits(folder, config, wanted))
        running[-1].start()
        return running[-1]

    try:
        yield begin
    finally:
        if running:
            running.pop().end()


@pytest.fixture(scope="module")
def all_at_once(start: Start, planted: dict[str, Fault]) -> tuple[Misfits, dict[str, list[str]]]:
    """One job on a cluster with many faults; the lines of its error that name each of the nodes."""
    cluster = start({name: planted[name] for name in TOGETHER if name in planted})
    done = cluster.train()
    assert done.returncode == 4, done.stdout[-2000:] + done.stderr[-2000:]
    return cluster, {name: [line for line in done.stderr.splitlines() if address in line] for name, address in cluster.addresses.items()}


@pytest.mark.parametrize("name", [name for name in TOGETHER if name != "no GPU"])
def test_every_fault_is_told_with_its_node_and_its_remedy(
    name: str, all_at_once: tuple[Misfits, dict[str, list[str]]], planted: dict[str, Fault]
) -> None:
    if name not in planted:
        pytest.skip("this machine allows no mounts, or has no compiler")
    lines = all_at_once[1][name]
    assert any(all(word in line for word in planted[name].words) for line in lines), lines
    assert len(lines) == (2 if name == "disk too full" else 1)  # what is mounted there is not the shared folder, either


def test_a_sound_node_is_not_named(all_at_once: tuple[Misfits, dict[str, list[str]]]) -> None:
    cluster, lines = all_at_once
    assert lines["no GPU"] == []  # the job wanted none
    assert cluster.trained() == []


def test_only_nodes_that_can_hold_a_worker_are_looked_at(
    all_at_once: tuple[Misfits, dict[str, list[str]]], planted: dict[str, Fault]
) -> None:
    cluster, _ = all_at_once
    done = cluster.train(*planted["no GPU"].job)
    assert done.returncode == 4
    assert [address for address in cluster.addresses.values() if address in done.stderr] == [cluster.addresses["no GPU"]]
    assert all(word in done.stderr for word in planted["no GPU"].words)


@pytest.mark.parametrize("name", ALONE)
def test_each_fault_alone_ends_the_job(name: str, start: Start, planted: dict[str, Fault]) -> None:
    if name not in planted:
        pytest.skip("this machine allows no mounts, or has no compiler")
    cluster = start({name: planted[name]})
    done = cluster.train(*planted[name].job)
    assert done.returncode == 4, done.stdout[-2000:] + done.stderr[-2000:]
    assert all(word in done.stderr for word in planted[name].words), done.stderr
    assert cluster.trained() == []
