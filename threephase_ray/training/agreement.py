"""Whether the nodes fit the job and each other: their reports -> problems, each with its remedy. Plain comparison, without ray."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from threephase_ray.errors import ResourceError
from threephase_ray.training import nodes
from threephase_ray.training.nodes import Report

SKEW = 5.0  # seconds between two clocks
MARGIN = 100_000_000  # bytes for all that is small: logs, predictions, reports
_MOMENTS = 12  # bytes of a parameter in a checkpoint: itself and AdamW's two moments, in float32
_WEIGHT = 4  # bytes of a parameter in a finished phase or an exported model
_EXPORTS = 2
_NAMED = 4  # nodes that a line names


@dataclass(frozen=True)
class Node:
    """A node as the driver sees it."""

    address: str
    report: Report | None  # None: there is none
    silence: str = ""  # why there is none
    arrived: bool = False  # whether its mark is in the driver's store
    skew: float = 0.0  # seconds by which its clock is ahead of the driver's, as far as that is sure
    gpus: float = 0.0  # that Ray counts on it


Problem = tuple[str, str, str]  # where, what, what to do


def space(parameters: int, checkpoints: int, phases: int) -> int:
    """Bytes that a run writes, roughly: checkpoints, one of them on its way, finished phases, exported models."""
    return MARGIN + parameters * (_MOMENTS * (checkpoints + 1) + _WEIGHT * (phases + _EXPORTS))


def skew(sent: float, told: float, received: float) -> float:
    """Seconds by which a clock that told a time is surely ahead (negative: behind), by the clock of who sent the question."""
    return max(0.0, told - received) + min(0.0, told - sent)


def problems(driver: Report, others: Sequence[Node], needed: int, gpus: bool) -> list[str]:
    """All that is wrong, a line for each problem: where, what, what to do. `needed`: bytes of disk; `gpus`: whether they are wanted."""
    found = [*_alone("the driver's node", driver, needed)]
    for node in others:
        if node.report is None:
            found.append((node.address, node.silence, "repair the node, or take it out of the cluster"))
        else:
            found += [*_alone(node.address, node.report, needed), *_beside(node, node.report, driver), *(_blind(node) if gpus else ())]
    wheres: dict[tuple[str, str], list[str]] = {}
    for where, what, remedy in found:
        wheres.setdefault((what, remedy), []).append(where)
    return [f"{_listed(some)}: {what}; {remedy}" for (what, remedy), some in wheres.items()]


def refuse(lines: Sequence[str]) -> None:
    """Raise, with all problems, if there are any.

    Raises:
        ResourceError: exit code 4.
    """
    if len(lines) == 1:
        raise ResourceError(lines[0])
    if lines:
        raise ResourceError("\n".join([f"{len(lines)} problems, and nothing was started", *(f"- {line}" for line in lines)]))


def check_storage(uri: str, scratch: str) -> None:
    """For work without workers: whether this process can write to the store, and whether the disk has room.

    Raises:
        ResourceError: why not.
        ConfigError: `uri` leads to no kind of store.
    """
    marks = f"preflight-{uuid.uuid4().hex[:12]}"
    report = nodes.examine(uri, scratch, marks, nodes.DRIVER, False)
    nodes.leave(uri, marks, nodes.DRIVER)
    refuse(problems(report, [], MARGIN, False))


def summary(driver: Report, others: Sequence[Node], gpus: bool) -> list[str]:
    """What was found in order, a line for each check."""
    reports = [driver, *(node.report for node in others if node.report is not None)]
    least = min(reports, key=lambda report: report.free)
    lines = [
        f"store: {driver.store}, written and read on {len(others)} node(s) and by the driver",
        f"versions: {', '.join(f'{name} {version}' for name, version in driver.versions.items())}",
        f"disk: {decimal(least.free)} free in {least.disk}, where it is least",
        f"clocks: {max((abs(node.skew) for node in others), default=0.0):.1f} s apart at most, beyond what the question took",
    ]
    return [*lines, f"GPUs: torch sees {sum(report.gpus for report in reports[1:])}"] if gpus else lines


def _alone(where: str, report: Report, needed: int) -> Iterator[Problem]:
    """What is wrong with a node, whatever the others are like."""
    if report.refusal:
        what, _, remedy = report.refusal.partition("; ")
        yield where, what, remedy
    if report.free < needed:
        what = f"disk: {report.disk} has {decimal(report.free)} free, and the job writes about {decimal(needed)}"
        yield where, what, "free space, or set another `store` or `scratch`"


def _beside(node: Node, report: Report, driver: Report) -> Iterator[Problem]:
    """Where a node differs from the driver's."""
    if not report.refusal and not driver.refusal and not (report.sees_driver and node.arrived):
        other = "" if report.store == driver.store else f" ({report.store})"
        what = f"store: {driver.store} is not the driver's there{other}: what one writes the other does not see"
        yield node.address, what, "give a folder that all nodes share, or a URI such as s3://bucket/folder"
    other = ", ".join(
        f"{name} {report.versions.get(name, 'none')} instead of {version}"
        for name, version in driver.versions.items()
        if report.versions.get(name) != version
    )
    if other:
        yield node.address, f"versions: {other}", "install what the driver's node has, or use one image for all nodes"
    if abs(node.skew) > SKEW:
        what = f"clock: {abs(node.skew):.0f} s {'ahead of' if node.skew > 0 else 'behind'} the driver's, {SKEW:.0f} s are allowed"
        yield node.address, what, "set the clocks by a common source (NTP)"


def _blind(node: Node) -> Iterator[Problem]:
    """GPUs that only Ray sees."""
    assert node.report is not None
    if node.report.gpus < node.gpus:
        reason = f" ({node.report.blindness})" if node.report.blindness else ""
        what = f"GPU: Ray counts {node.gpus:g} there, and torch sees {node.report.gpus}{reason}"
        yield node.address, what, "install a torch that fits the node's driver, or set compute.use_gpu: false"


def _listed(wheres: Sequence[str]) -> str:
    """The first of the nodes by name, and how many more."""
    return ", ".join(wheres[:_NAMED]) + (f" and {len(wheres) - _NAMED} more" if len(wheres) > _NAMED else "")
