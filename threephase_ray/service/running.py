"""Ray Serve from its start to its end."""

import logging
import threading

from ray import serve
from ray.serve import Application

from threephase_ray import console
from threephase_ray.errors import JobError, ResourceError
from threephase_ray.service import body
from threephase_ray.service.replica import Replica
from threephase_ray.serving import ServeConfig
from threephase_ray.training import fit, signals
from threephase_ray.training.cluster import asked, cluster, wait_for
from threephase_ray.training.signals import Stopped

_DEPLOYMENT = "classifier"
_ATTEMPTS = 3  # to start a replica
_SHOWN = 300  # characters of an error that is not our own


def run(config: ServeConfig, model: str) -> None:
    """Serve until a signal ends it. `model`: the fingerprint of the files that are served.

    Raises:
        ResourceError: there is no room, or somebody serves already.
        JobError: the replicas cannot start; in the end, that the service was stopped.
    """
    ended = threading.Event()
    with cluster(), signals.caught(ended.set) as came:
        if serve.status().proxies:
            raise ResourceError("Ray Serve is at work on this cluster, and each has one address\n  stop it with `serve shutdown`")
        wait_for(config.compute)
        try:
            start(config, model)
            say(config)
            ended.wait()
        finally:
            serve.shutdown()
    raise Stopped("stopped as asked", came[0])


def start(config: ServeConfig, model: str) -> None:
    """Start Ray Serve, then the replicas.

    Raises:
        ResourceError: Ray Serve cannot start, since the port is taken for example.
        JobError: the replicas cannot.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(
            http_options={"host": config.host, "port": config.port, "request_timeout_s": config.limits.timeout_s},
            controller_options={"runtime_env": {"env_vars": body.environment(config.limits)}},  # handed down to the proxies
        )
    except RuntimeError as error:
        raise ResourceError(f"Ray Serve cannot start: {_last_line(str(error))}\n  choose another `host` or `port`") from error
    try:
        serve.run(application(config, model), name=config.name, route_prefix="/")
    except RuntimeError as error:  # says no more than that it failed
        told = serve.status().applications[config.name].deployments[_DEPLOYMENT].message
        raise JobError(f"the replicas cannot start: {_last_line(told)}") from error


def _last_line(trace: str) -> str:
    """What it says in the end."""
    return trace.strip().rpartition("\n")[2][:_SHOWN]


def say(config: ServeConfig) -> None:
    """Where the service is, and how to ask it."""
    example = f"curl {config.address}/predict -H 'Content-Type: application/json' -d '{{\"texts\": [\"a text\"]}}'"
    console.console.print(f"serving at {config.address} until SIGTERM or Ctrl-C\n  {example}", highlight=False, soft_wrap=True)


def application(config: ServeConfig, model: str) -> Application:
    """What Ray Serve runs: as many replicas as `compute.workers` says."""
    compute = config.compute
    needs, span = asked(compute), {"min_replicas": compute.least, "max_replicas": compute.most}
    deployed = serve.deployment(
        name=_DEPLOYMENT,
        autoscaling_config=span | {"target_ongoing_requests": config.batch.requests},
        max_ongoing_requests=config.limits.ongoing,
        max_queued_requests=config.limits.waiting,
        max_constructor_retry_count=_ATTEMPTS,
        ray_actor_options={
            "num_cpus": needs["CPU"],
            "num_gpus": needs.get("GPU", 0),
            "runtime_env": {"env_vars": fit.worker_environment(compute)},
        },
    )
    return deployed(serve.ingress()(Replica)).bind(config.model_dump(mode="json"), model)
