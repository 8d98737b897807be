"""What we know of DeepSpeed's inside (0.19): how it is set up, and where ZeRO keeps weights, moments and gradients."""

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from threephase_ray.training.fragments import Place, whole


def configuration(stage: int, micros: int, clip: float) -> dict[str, Any]:
    """DeepSpeed's configuration; batch sizes only tell it how many micro-batches make a step."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micros,
        "gradient_clipping": clip,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


def library(device: torch.device) -> Any:
    """DeepSpeed, kept from compiling its shared-memory kernel on CPUs: a killed build leaves a lock that blocks all later runs."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__ = {}
    import deepspeed

    return deepspeed


def places(optimizer: Any, names: dict[Tensor, str], stage: int) -> list[Place]:
    """Where this worker's shard lives: of the trained parameters in `names`, in the tensors that AdamW updates."""
    if stage == 0:
        return whole(names)
    find = _in_parameter_shards if stage == 3 else _in_group_shards
    return list(find(optimizer, names))


def _in_group_shards(optimizer: Any, names: dict[Tensor, str]) -> Iterable[Place]:
    """Stages 1 and 2: each worker has an equal part of each parameter group, laid end to end; parameters straddle the parts.

    `_hp_mapping` is DeepSpeed's own record of the part of a parameter that lies here, padding and alignment counted; None: nothing.
    """
    for parameter, name in names.items():
        mapping: Any = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is not None:
            here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
            home = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            yield Place(name, there.start, there.numel, home, here.start)


def _in_parameter_shards(optimizer: Any, names: dict[Tensor, str]) -> Iterable[Place]:
    """Stage 3: each worker has an equal part of each parameter, the last ones padded or all padding.

    `grad_position` says where in which flat tensor the part lies; DeepSpeed's `safe_get_local_*` functions read it too.
    """
    rank = torch.distributed.get_rank()
    for parameter, name in names.items():
        group, offset, room = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = rank * room
        size = min(room, parameter.ds_numel - start)  # type: ignore[attr-defined]
        if size > 0:
            yield Place(name, start, size, optimizer.fp32_partitioned_groups_flat[group], offset)


def publish(optimizer: Any, stage: int) -> None:
    """Bring the weights that forward uses in line with what stands in `places`; all workers must call it."""
    if stage in (1, 2):
        optimizer.update_lp_params()  # own part into the model's flat tensor, then gather the others'
    elif stage == 3:
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)  # what its step does after the update


def gradients(engine: Any) -> list[Tensor]:
    """Gradients held after backward: the parameters' own, or what the ZeRO optimiser keeps in their stead."""
    held = [parameter.grad for parameter in engine.module.parameters()]
    for part in getattr(engine.optimizer, "averaged_gradients", {}).values():
        held += part if isinstance(part, list) else [part]
    return [gradient for gradient in held if gradient is not None]


def skip(engine: Any, stage: int) -> None:
    """Drop the gradients of a step without taking it; all workers must call it after the step's last backward.

    ZeRO leaves a step out by itself, all its counters and buffers in order, where the norm of all gradients is not a number; so
    one number of them is made so, on the rank that surely holds no padding in front. Stage 0 has no such path, and needs none.
    """
    if stage == 0:
        engine.zero_grad()
        engine.micro_steps += 1  # as `step` would: the next micro-batch is the first of its step
        return
    if torch.distributed.get_rank() == 0:
        first = gradients(engine)[0]
        first[(0,) * first.dim()] = torch.nan
    engine.step()
    forget(engine, stage)


def forget(engine: Any, stage: int) -> None:
    """Clear what stage 3 would otherwise take, in the next step, for the gradient of a parameter that has none there."""
    if stage == 3:
        engine.optimizer.grad_partitions_flat_buffer.zero_()
