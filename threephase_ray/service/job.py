"""The job: find the model, and serve it until it is told to stop."""

import importlib.util
import os
import socket

from threephase_ray import console
from threephase_ray.errors import ConfigError, ResourceError
from threephase_ray.predictions.fetching import fetched, fingerprint, place
from threephase_ray.results import Store
from threephase_ray.serving import ServeConfig


def serve(config: ServeConfig, dry_run: bool = False) -> None:
    """Serve the model.

    Raises:
        JobError: with what is wrong, where, and what to do; in the end, that the service was stopped.
    """
    store = Store(config.store, config.scratch)
    config = config.model_copy(update={"store": store.storage.uri, "model": place(config.model, store)})  # the same for all nodes
    show(config)
    if dry_run:
        return
    if importlib.util.find_spec("fastapi") is None:
        raise ConfigError('Ray Serve is not installed: pip install "threephase-ray[serve]"')
    if not os.environ.get("RAY_ADDRESS"):
        bindable(config.host, config.port)
    model = fingerprint(fetched(config.model, config.scratch))
    from threephase_ray.service.running import run  # here, so that a plan needs no Ray

    run(config, model)


def show(config: ServeConfig) -> None:
    """Say what will be served, and where."""
    compute = config.compute
    replicas = str(compute.most) if compute.least == compute.most else f"{compute.least} to {compute.most}"
    lines = [["model", config.model], ["address", config.address], ["replicas", replicas]]
    console.table("service", ["", ""], lines)


def bindable(host: str, port: int) -> None:
    """Listen there for a moment, for Ray Serve would try again and again.

    Raises:
        ResourceError: nobody can.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ResourceError(f"host, port: nothing can listen on {host}, port {port}: {error}\n  choose another `port`") from None
