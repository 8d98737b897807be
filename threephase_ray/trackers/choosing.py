"""Which trackers a configuration asks for, and whether they can be used."""

import importlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from threephase_ray import credentials
from threephase_ray.config import Config
from threephase_ray.errors import ConfigError
from threephase_ray.mistakes import refusal
from threephase_ray.results import Store
from threephase_ray.trackers.subject import Subject, Tracker


def check(config: Config) -> None:
    """Refuse what can be seen to be wrong before anything starts.

    Raises:
        ConfigError: a package or credentials are missing, a URL is none, or something in the configuration looks like credentials.
    """
    tracking = config.tracking
    extras = [name for name in ("mlflow", "wandb") if getattr(tracking, name) is not None]
    for name in extras:
        _import(name)
    if extras and (problems := credentials.found([*credentials.texts(config.model_dump(mode="json"))])):  # they are told all of it
        raise refusal(problems)
    if tracking.mlflow is not None and not _is_url(tracking.mlflow):
        raise ConfigError(
            "tracking.mlflow: must be the plain URL of a server, such as https://host:5000\n"
            "  name and password, or a token, belong into the environment: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, "
            "MLFLOW_TRACKING_TOKEN"
        )
    if tracking.wandb is not None and not _import("wandb").may_begin():
        raise ConfigError("tracking.wandb: there is no API key\n  set WANDB_API_KEY in the environment, or WANDB_MODE=offline")


def _import(name: str) -> Any:
    """The module of a tracker that is an extra."""
    try:
        return importlib.import_module(f"threephase_ray.trackers.{name}")
    except ImportError as error:
        advice = f'pip install "threephase-ray[{name}]"'
        raise ConfigError(f"tracking.{name}: needs a package that is not installed: {advice}") from error


def _is_url(text: str) -> bool:
    """Whether it is a web server's address and nothing else."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not {"@", "?", "#"} & set(text)


def makers(config: Config, subject: Subject, store: Store, run: str) -> dict[str, Callable[[], Tracker]]:
    """The trackers that are asked for, by what tells them apart."""
    tracking, made = config.tracking, dict[str, Callable[[], Tracker]]()
    if tracking.tensorboard:
        made["TensorBoard"] = lambda: _import("tensorboard").TensorBoard(store, f"{run}/tensorboard")
    if (uri := tracking.mlflow) is not None:
        made[f"MLflow at {uri} ({tracking.experiment})"] = lambda: _import("mlflow").MLflow(uri, tracking.experiment, subject)
    if (project := tracking.wandb) is not None:
        made[f"Weights & Biases ({project})"] = lambda: _import("wandb").WandB(project, subject, store.place(f"{run}/wandb").parent)
    return made
