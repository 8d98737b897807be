"""Model and optimiser behind one interface: DeepSpeed, and a plain torch twin without sharding."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from threephase_ray.phases.spec import Batch
from threephase_ray.training import fragments, gradients, sharded
from threephase_ray.training.fragments import Fragment, Read
from threephase_ray.training.gradients import Clipping

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

    def finite(self) -> bool:
        """Whether the gradients that this worker holds after the step's last backward are all finite."""

    def discard(self) -> None:
        """Instead of `step`: forget the step's gradients and change nothing else. All ranks must call it."""

    def weights(self, part: nn.Module) -> dict[str, Tensor]:
        """Whole tensors of a part of the model on the CPU, on rank 0; elsewhere an empty dict. All ranks must call it."""

    def fragments(self) -> list[Fragment]:
        """What this worker has to save, as views: over all workers each trained parameter once."""

    def load(self, read: Read, updates: int) -> None:
        """Go on from saved fragments after so many optimiser updates; 0: weights only. All ranks must call it, before any step."""

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
        self._places = fragments.whole(_names(model, self._parameters))
        self._optimizer: torch.optim.AdamW | None = torch.optim.AdamW(groups, eps=settings.epsilon, fused=True) if groups else None
        self._rates = [group["lr"] for group in groups]
        self._clipping, self._gradient_bytes = Clipping(settings.clip), 0

    def apply(self, function: Function, batch: Batch) -> Tensor:  # noqa: D102
        return self._apply(function, batch)  # type: ignore[no-any-return]

    def train(self, mode: bool) -> None:  # noqa: D102
        self._apply.train(mode)

    def backward(self, loss: Tensor) -> None:  # noqa: D102
        loss.backward()
        self._gradient_bytes = _bytes(parameter.grad for parameter in self._parameters)

    def step(self, factor: float) -> None:  # noqa: D102
        assert self._optimizer is not None
        if world()[1] > 1:
            self._clipping.forget()  # it was that of this worker's part
        gradients.add_up(self._parameters)
        self._clipping.clip(self._parameters)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad()

    def finite(self) -> bool:  # noqa: D102
        return self._clipping.finite(parameter.grad for parameter in self._parameters)

    def discard(self) -> None:  # noqa: D102
        self._clipping.forget()
        for parameter in self._parameters:
            parameter.grad = None

    def weights(self, part: nn.Module) -> dict[str, Tensor]:  # noqa: D102
        return {name: tensor.detach().cpu().clone() for name, tensor in part.state_dict().items()} if world()[0] == 0 else {}

    def fragments(self) -> list[Fragment]:  # noqa: D102
        return fragments.views(fragments.share(self._places, *world()), self._optimizer.state) if self._optimizer else []

    def load(self, read: Read, updates: int) -> None:  # noqa: D102
        if self._optimizer:
            fragments.fill(self._places, read, updates, self._optimizer.state)

    def memory(self) -> dict[str, int]:  # noqa: D102
        states = self._optimizer.state.values() if self._optimizer else []
        return {
            "parameters": _bytes(self._apply.parameters()),
            "gradients": self._gradient_bytes,
            "optimizer": _bytes(value for state in states for value in state.values()),
        }

    def close(self) -> None:  # noqa: D102
        self._optimizer, self._parameters, self._places = None, [], []


class DeepSpeedEngine:
    """DeepSpeed with ZeRO stage 0 to 3 around the same AdamW."""

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], device: torch.device, settings: Settings) -> None:
        """Shard `model` as the stage says; the process group must exist."""
        deepspeed = sharded.library(device)
        self._gather = deepspeed.zero.GatheredParameters
        self._stage, self._rates = settings.stage, [group["lr"] for group in groups]
        self._scale = settings.micros * (world()[1] if settings.stage else 1)  # undoes DeepSpeed's means over micro-batches and workers
        self._clipping, self._gradient_bytes = Clipping(settings.clip), 0
        self._parameters = parameters = [parameter for group in groups for parameter in group["params"]]
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=Apply(model, device, settings.precision),
            model_parameters=parameters,
            optimizer=torch.optim.AdamW(groups, eps=settings.epsilon, fused=True),
            config=sharded.configuration(settings.stage, settings.micros, settings.clip if settings.stage else 0.0),
            dist_init_required=False,
        )
        self._engine.enable_backward_allreduce = settings.stage > 0  # else we do it, with fewer copies
        self._places = sharded.places(self._optimizer, _names(model, parameters), self._stage)
        self._state = getattr(self._optimizer, "optimizer", self._optimizer).state

    def apply(self, function: Function, batch: Batch) -> Tensor:  # noqa: D102
        return self._engine(function, batch)  # type: ignore[no-any-return]

    def train(self, mode: bool) -> None:  # noqa: D102
        self._engine.train(mode)

    def backward(self, loss: Tensor) -> None:  # noqa: D102
        self._engine.backward(loss * self._scale)
        self._gradient_bytes = max(self._gradient_bytes, _bytes(sharded.gradients(self._engine)))
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # takes no step yet, but DeepSpeed counts its micro-batches here
        elif self._stage == 0:
            gradients.add_up(self._parameters)

    def step(self, factor: float) -> None:  # noqa: D102
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        if self._stage == 0:  # where DeepSpeed would compute the norm again; by now the gradients are summed over the workers
            self._clipping.clip(self._parameters)
        self._engine.step()
        sharded.forget(self._engine, self._stage)

    def finite(self) -> bool:  # noqa: D102
        return self._clipping.finite(sharded.gradients(self._engine))

    def discard(self) -> None:  # noqa: D102
        self._clipping.forget()
        sharded.skip(self._engine, self._stage)

    def fragments(self) -> list[Fragment]:  # noqa: D102
        own = fragments.share(self._places, *world()) if self._stage == 0 else self._places
        return fragments.views(own, self._state)

    def load(self, read: Read, updates: int) -> None:  # noqa: D102
        fragments.fill(self._places, read, updates, self._state)
        sharded.publish(self._optimizer, self._stage)

    def weights(self, part: nn.Module) -> dict[str, Tensor]:  # noqa: D102
        whole = {}
        for name, tensor in part.state_dict(keep_vars=True).items():
            with self._gather([tensor]) if self._stage == 3 and isinstance(tensor, nn.Parameter) else contextlib.nullcontext():
                if world()[0] == 0:
                    whole[name] = tensor.detach().cpu().clone()
        return whole

    def memory(self) -> dict[str, int]:  # noqa: D102
        own = (getattr(parameter, "ds_tensor", parameter) for parameter in self._engine.module.parameters())
        return {
            "parameters": _bytes(own),
            "gradients": self._gradient_bytes,
            "optimizer": _bytes(value for state in self._state.values() for value in state.values()),
        }

    def close(self) -> None:  # noqa: D102
        self._engine.destroy()
        self._parameters, self._places = [], []


def _names(model: nn.Module, trained: list[nn.Parameter]) -> dict[Tensor, str]:
    """The trained parameters with their names in the model; one name where several modules share a parameter."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {parameter: names[parameter] for parameter in trained}


def _bytes(tensors: Iterable[Any]) -> int:
    """Memory of the tensors, shared storage counted once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor) and t.numel()}.values())
