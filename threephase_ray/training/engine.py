"""Model and optimiser behind one interface: DeepSpeed (the only file that imports it), and a plain torch twin without sharding."""

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from threephase_ray.phases.spec import Batch

Function = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Settings:
    """How the engine computes; nothing here changes a result beyond rounding."""

    stage: int  # DeepSpeed's ZeRO stage; the plain engine ignores it
    precision: str  # "fp32" or "bf16", of matrix products; weights, gradients and optimiser stay float32
    clip: float  # largest norm of the gradient
    epsilon: float  # AdamW's
    micros: int  # micro-batches in a step


class Apply(nn.Module):
    """A module whose forward applies any function to the model, so that every use of the model passes the engine's forward."""

    def __init__(self, model: nn.Module, device: torch.device, precision: str) -> None:
        """`precision` "bf16" casts matrix products only."""
        super().__init__()
        self.model = model
        self._cast = (device.type, torch.bfloat16, precision == "bf16")

    def forward(self, function: Function, batch: Batch) -> Tensor:
        """`function(model, batch)`."""
        kind, dtype, enabled = self._cast
        with torch.autocast(kind, dtype=dtype, enabled=enabled):
            return function(self.model, batch)


class Engine(Protocol):
    """What the loop asks of an engine."""

    def apply(self, function: Function, batch: Batch) -> Tensor:
        """Apply a function to the model."""

    def train(self, mode: bool) -> None:
        """Switch dropout on or off."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of this worker's part of the step's loss."""

    def step(self, factor: float) -> None:
        """Take the step with all learning rates times `factor`."""

    def weights(self, part: nn.Module) -> dict[str, Tensor]:
        """Whole tensors of a part of the model on the CPU, on rank 0; elsewhere an empty dict. All ranks must call it."""

    def memory(self) -> dict[str, int]:
        """Bytes that this worker holds: `parameters`, `gradients` (of the last backward), `optimizer` states."""

    def close(self) -> None:
        """Free what the engine holds."""


def world() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def total(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all workers."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


class PlainEngine:
    """Replicated model and AdamW; gradients are summed over the workers. The reference that DeepSpeed is tested against."""

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], device: torch.device, settings: Settings) -> None:
        """`groups` as `torch.optim.AdamW` takes them; without any there is nothing to train."""
        self._apply = Apply(model.to(device), device, settings.precision)
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimizer: torch.optim.AdamW | None = torch.optim.AdamW(groups, eps=settings.epsilon, fused=True) if groups else None
        self._rates = [group["lr"] for group in groups]
        self._clip, self._gradient_bytes = settings.clip, 0

    def apply(self, function: Function, batch: Batch) -> Tensor:  # noqa: D102
        return self._apply(function, batch)  # type: ignore[no-any-return]

    def train(self, mode: bool) -> None:  # noqa: D102
        self._apply.train(mode)

    def backward(self, loss: Tensor) -> None:  # noqa: D102
        loss.backward()
        self._gradient_bytes = _bytes(parameter.grad for parameter in self._parameters)

    def step(self, factor: float) -> None:  # noqa: D102
        assert self._optimizer is not None
        for parameter in self._parameters:
            parameter.grad = total(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad()

    def weights(self, part: nn.Module) -> dict[str, Tensor]:  # noqa: D102
        return {name: tensor.detach().cpu().clone() for name, tensor in part.state_dict().items()} if world()[0] == 0 else {}

    def memory(self) -> dict[str, int]:  # noqa: D102
        states = self._optimizer.state.values() if self._optimizer else []
        return {
            "parameters": _bytes(self._apply.parameters()),
            "gradients": self._gradient_bytes,
            "optimizer": _bytes(value for state in states for value in state.values()),
        }

    def close(self) -> None:  # noqa: D102
        self._optimizer, self._parameters = None, []


class DeepSpeedEngine:
    """DeepSpeed with ZeRO stage 0 to 3 around the same AdamW."""

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], device: torch.device, settings: Settings) -> None:
        """Shard `model` as the stage says; the process group must exist."""
        deepspeed = _import_deepspeed(device)
        self._gather = deepspeed.zero.GatheredParameters
        self._stage, self._rates = settings.stage, [group["lr"] for group in groups]
        self._scale = settings.micros * world()[1]  # undoes DeepSpeed's means over micro-batches and workers
        self._gradient_bytes = 0
        parameters = [parameter for group in groups for parameter in group["params"]]
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=Apply(model, device, settings.precision),
            model_parameters=parameters,
            optimizer=torch.optim.AdamW(groups, eps=settings.epsilon, fused=True),
            config=_deepspeed_config(settings),
            dist_init_required=False,
        )

    def apply(self, function: Function, batch: Batch) -> Tensor:  # noqa: D102
        return self._engine(function, batch)  # type: ignore[no-any-return]

    def train(self, mode: bool) -> None:  # noqa: D102
        self._engine.train(mode)

    def backward(self, loss: Tensor) -> None:  # noqa: D102
        self._engine.backward(loss * self._scale)
        self._gradient_bytes = max(self._gradient_bytes, _bytes(self._gradients()))
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # takes no step yet, but DeepSpeed counts its micro-batches here

    def step(self, factor: float) -> None:  # noqa: D102
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._engine.step()

    def weights(self, part: nn.Module) -> dict[str, Tensor]:  # noqa: D102
        whole = {}
        for name, tensor in part.state_dict(keep_vars=True).items():
            with self._gather([tensor]) if self._stage == 3 and isinstance(tensor, nn.Parameter) else contextlib.nullcontext():
                if world()[0] == 0:
                    whole[name] = tensor.detach().cpu().clone()
        return whole

    def memory(self) -> dict[str, int]:  # noqa: D102
        inner = getattr(self._optimizer, "optimizer", self._optimizer)
        own = (getattr(parameter, "ds_tensor", parameter) for parameter in self._engine.module.parameters())
        return {
            "parameters": _bytes(own),
            "gradients": self._gradient_bytes,
            "optimizer": _bytes(value for state in inner.state.values() for value in state.values()),
        }

    def _gradients(self) -> Iterable[Tensor | None]:
        """Gradients held after backward: the parameters' own, or what the ZeRO optimiser keeps in their stead."""
        yield from (parameter.grad for parameter in self._engine.module.parameters())
        for partition in getattr(self._optimizer, "averaged_gradients", {}).values():
            yield from partition if isinstance(partition, list) else [partition]

    def close(self) -> None:  # noqa: D102
        self._engine.destroy()


def _deepspeed_config(settings: Settings) -> dict[str, Any]:
    """DeepSpeed's configuration; batch sizes only tell it how many micro-batches make a step."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": settings.micros,
        "gradient_clipping": settings.clip,
        "zero_optimization": {"stage": settings.stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, kept from compiling its shared-memory kernel on CPUs: a killed build leaves a lock that blocks all later runs."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__ = {}
    import deepspeed

    return deepspeed


def _bytes(tensors: Iterable[Any]) -> int:
    """Memory of the tensors, shared storage counted once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor) and t.numel()}.values())
