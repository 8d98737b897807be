"""The Ray cluster: the one that is there or one of our own, and its room for workers."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from threephase_ray.errors import ResourceError
from threephase_ray.machine import Compute

_REACH = 10.0  # seconds for a connection


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """The cluster that is there (RAY_ADDRESS, or a Ray job's own), or one on this machine for as long as the work lasts.

    Raises:
        ResourceError: nothing answers at RAY_ADDRESS.
    """
    if ray.is_initialized():
        yield
        return
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            reach(address)
            ray.init(log_to_driver=False)
        except OSError as error:  # also of a head that names nodes this machine cannot reach
            raise ResourceError(
                f"no Ray cluster answers at RAY_ADDRESS={address}: {error}\n  unset it to run on this machine alone"
            ) from None
    else:
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def reach(address: str) -> None:
    """Connect once, for Ray itself waits for minutes; OSError where that fails. Words such as `auto` are left to Ray."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme)
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_REACH).close()


def asked(compute: Compute) -> dict[str, float]:
    """What Ray reserves for each worker."""
    return {"CPU": compute.cpus_per_worker} | ({"GPU": compute.gpu_share} if compute.use_gpu else {})


def wait_for(compute: Compute) -> None:
    """Wait until the cluster's nodes could hold all workers at once, for an autoscaler may be bringing them.

    Raises:
        ResourceError: they could not after `compute.start_timeout_s`.
    """
    if room(asked(compute)) >= compute.least:
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise _too_little(compute)
    deadline = time.monotonic() + compute.start_timeout_s
    demand = placement_group([asked(compute)] * compute.least)  # what waits for room is what an autoscaler looks at
    try:
        while room(asked(compute)) < compute.least:
            if time.monotonic() > deadline:
                raise _too_little(compute)
            time.sleep(1.0)
    finally:
        remove_placement_group(demand)


def _too_little(compute: Compute) -> ResourceError:
    """Says what was asked, and what there is."""
    has = {name: round(amount, 1) for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU")}
    return ResourceError(
        f"compute.workers: {compute.least} workers with {asked(compute)} each do not fit; there is room for {room(asked(compute))}\n"
        f"  the cluster has {has} on {len(ray.nodes())} node(s)\n"
        "  lower compute.workers or compute.cpus_per_worker, or add nodes"
    )


def room(needs: dict[str, float]) -> int:
    """How many workers the nodes can hold, each worker whole on one node."""
    return sum(_room(node["Resources"], needs) for node in holding(needs))


def holding(needs: dict[str, float]) -> list[dict[str, Any]]:
    """The living nodes that can hold a worker and stay, as Ray lists them. A head without CPUs is none of them."""
    going = drained()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going and _room(node["Resources"], needs)]


def drained() -> set[str]:
    """Ids of the nodes that Ray was told to empty. Its own libraries ask so, too: no public function tells it without a dashboard."""
    return set(ray._private.state.state.get_draining_nodes())


def _room(there: dict[str, float], needs: dict[str, float]) -> int:
    """How many workers fit on one node."""
    return int(min(there.get(name, 0.0) / amount for name, amount in needs.items()))
