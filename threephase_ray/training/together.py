"""How workers agree: what one does for all, and what all tell each other."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch.distributed as dist

from threephase_ray.training.engine import world

T = TypeVar("T")
_SECONDS = 5.0  # between two signs of life of a worker that the others wait for


def first(function: Callable[[], T]) -> T:
    """The result of `function` on rank 0, for all workers; what it raises is raised by all.

    The others wait from one short broadcast to the next, so that a long upload or a lock that is held is not taken for a hang.
    """
    rank, workers = world()
    if workers == 1:
        return function()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function) if rank == 0 else None
        while True:
            news: list[Any] = [_news(future) if future else None]
            dist.broadcast_object_list(news, 0)
            done, result, error = news[0]
            if error is not None:
                raise error
            if done:
                return result  # type: ignore[no-any-return]


def _news(future: Future[T]) -> tuple[bool, T | None, Exception | None]:
    """Whether the work is done, what it gave, and what it raised."""
    try:
        return True, future.result(_SECONDS), None
    except TimeoutError as error:
        return (True, None, error) if future.done() else (False, None, None)
    except Exception as error:
        return True, None, error


def everyone(value: T) -> list[T]:
    """The value of each worker, for all workers."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world()[1]
    dist.all_gather_object(values, value)
    return values
