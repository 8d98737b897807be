"""Knobs of the machine: workers, memory, checkpoints."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _digit(value: object) -> object:
    """Flags arrive as text: "1" means 1."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _span(value: object) -> int | tuple[int, ...]:
    """A number, or the least and the most: 2, [1, 4]; flags say it as "2" and "1,4"."""
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    numbers = tuple(int(str(part)) for part in parts if str(part).isdigit())
    if len(numbers) != len(parts) or len(numbers) not in (1, 2) or not 1 <= numbers[0] <= numbers[-1]:
        raise ValueError("needs a number of at least 1, or [least, most]")
    return numbers[0] if len(numbers) == 1 else numbers


class Section(BaseModel):
    """A frozen group of knobs that rejects unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Compute(Section):
    """Where and how it is computed. Nothing here but `precision` and `global_batch` changes a result."""

    workers: Annotated[int | tuple[int, int], BeforeValidator(_span)] = Field(
        1, description="worker processes, over all nodes; [least, most]: as many as the cluster has room for"
    )
    use_gpu: bool = Field(False, description="one GPU for each worker")
    gpu_share: float = Field(1.0, gt=0, le=1, description="share of a GPU for each worker; below 1, trials of a sweep share GPUs")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs that Ray reserves for each worker, also its thread count")
    zero_stage: Annotated[Literal["auto", 0, 1, 2, 3], BeforeValidator(_digit)] = Field(
        "auto", description="what DeepSpeed shards; auto: the lowest stage that fits the memory"
    )
    worker_memory_gb: float | None = Field(None, gt=0, description="memory of one worker in GB, for the plan (empty: found or assumed)")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of matrix products; auto: bf16 on a GPU, else fp32")
    global_batch: int = Field(32, ge=1, description="texts per optimiser step of phases that set no `batch`")
    micro_batch: int = Field(64, ge=1, description="texts per forward pass of one worker; the rest is accumulated")
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    start_timeout_s: float = Field(
        120.0, gt=0, description="seconds to wait for room, for each node's answer, for the workers, before giving up (exit code 4)"
    )
    hang_timeout_s: float = Field(600.0, gt=0, description="seconds after which a worker that does not answer is replaced")
    max_failures: int = Field(3, ge=0, description="failures in a row, without a step saved in between, that are survived")

    @model_validator(mode="after")
    def _shares_no_gpu_with_itself(self) -> "Compute":
        if self.gpu_share < 1 and self.most > 1:
            raise ValueError("gpu_share: less than 1 needs workers: 1, since the workers of a group must not meet on a GPU")
        return self

    @property
    def arithmetic(self) -> Literal["fp32", "bf16"]:
        """The precision that `precision` comes to."""
        return ("bf16" if self.use_gpu else "fp32") if self.precision == "auto" else self.precision

    @property
    def least(self) -> int:
        """Fewest workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """Most workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class Checkpoint(Section):
    """Saving in the middle of a phase."""

    steps: int | None = Field(None, ge=1, description="steps between two checkpoints (empty: as `minutes` says)")
    minutes: Annotated[float, Field(gt=0)] | Literal["young"] = Field(
        10.0, description="minutes between two checkpoints; young: the best by Young's formula, from their cost and `mtbf_hours`"
    )
    mtbf_hours: float = Field(24.0, gt=0, description="hours from one failure of the job to the next, on average, for Young's formula")
    keep: int = Field(2, ge=1, description="checkpoints of a phase that are kept; more than one: damage to the newest costs little")
