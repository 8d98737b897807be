"""Knobs of experiment tracking."""

from pydantic import Field

from threephase_ray.machine import Section


class Tracking(Section):
    """Where a run's losses and scores are shown, besides the store. Nothing here changes a result."""

    tensorboard: bool = Field(True, description="event files for TensorBoard in the run's folder")
    mlflow: str | None = Field(None, min_length=1, description="URL of an MLflow tracking server (empty: none)")
    experiment: str = Field("threephase-ray", min_length=1, description="experiment of MLflow")
    wandb: str | None = Field(
        None, pattern=r"^([\w.-]+/)?[\w.-]+$", description="project of Weights & Biases, or entity/project (empty: none)"
    )
