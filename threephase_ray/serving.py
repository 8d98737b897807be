"""Every knob of a service."""

from pydantic import Field, model_validator

from threephase_ray.machine import Section
from threephase_ray.predicting import Scoring


class Batch(Section):
    """Requests that a replica scores together."""

    requests: int = Field(16, ge=1, description="requests scored together at most")
    wait_s: float = Field(0.01, ge=0, le=10, description="seconds that a request waits for others")


class Limits(Section):
    """What is refused: with 413 what is too large, with 503 what is too much, with 408 what takes too long."""

    body_bytes: int = Field(1_048_576, ge=1, description="bytes of a request's body")
    texts: int = Field(64, ge=1, description="texts of a request")
    characters: int = Field(20_000, ge=1, description="characters of a text")
    ongoing: int = Field(256, ge=1, description="requests that a replica holds, those it scores included")
    waiting: int = Field(256, ge=1, description="requests that wait for a replica on each node that listens, and as many still being sent")
    timeout_s: float = Field(30.0, gt=0, description="seconds for a request to be sent, and again for its answer")


class ServeConfig(Scoring):
    """A finished classifier behind HTTP; `compute.workers` are its replicas."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on: of this machine alone, or 0.0.0.0 for all others")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    batch: Batch = Field(Batch(), description="requests that are scored together")
    limits: Limits = Field(Limits(), description="what is refused")

    @model_validator(mode="after")
    def _batches_can_fill(self) -> "ServeConfig":
        if self.limits.ongoing < self.batch.requests:
            raise ValueError("limits.ongoing: must be at least batch.requests, or no batch is ever full")
        return self

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"
