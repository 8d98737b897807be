"""The nodes that a worker group runs on, and whether one of them is about to go."""

import ray

from threephase_ray.errors import JobError
from threephase_ray.training.cluster import drained
from threephase_ray.training.together import everyone


class Leaving(JobError):
    """A node of the group is drained; what the group had in hand is saved, and goes on elsewhere."""


class Whereabouts:
    """Made by all workers of a group at once; `addresses`: of their nodes, by rank."""

    def __init__(self) -> None:
        here = (ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())
        self._nodes = dict(everyone(here))
        self.addresses = [address for _, address in everyone(here)]

    def leaving(self) -> bool:
        """Whether a node of the group is drained: for a scale-down, an upgrade, or since a spot market wants it back."""
        return bool(drained() & self._nodes.keys())

    def check(self) -> None:
        """Raise `Leaving` if it is so."""
        if nodes := sorted(self._nodes[node] for node in drained() & self._nodes.keys()):
            raise Leaving(f"saved, to go on elsewhere: node {', '.join(nodes)} is being drained")
