"""Ray Data's actors: they take stretches of files, score them, and write what came of it."""

import json
import logging
from collections.abc import Iterator

import ray.data

from threephase_ray import console
from threephase_ray.errors import JobError
from threephase_ray.predicting import PredictConfig
from threephase_ray.predictions import work
from threephase_ray.predictions.rows import Shard
from threephase_ray.training import agreement, fit, preflight, signals
from threephase_ray.training.cluster import asked, cluster
from threephase_ray.training.signals import Stopped

_UNITS = 4  # stretches of a text file for each worker: each is read from the file's beginning


def score(config: PredictConfig, folder: str, pending: list[Shard], total: int) -> None:
    """Let actors score the shards.

    Raises:
        JobError: what one of them met, or that the job was told to stop; the shards that are done stay.
    """
    fit.set_up(config.compute)
    units, settings = list(stretches(pending, config.compute.most)), config.model_dump(mode="json")
    done = total - sum(shard.rows for shard in pending)
    with cluster(), signals.caught(lambda: None) as came, console.counting() as progress:
        preflight.check(config, agreement.MARGIN)
        quiet()
        scored = ray.data.from_items([{"unit": number} for number in range(len(units))], override_num_blocks=len(units)).map_batches(
            work.Scorer,
            fn_constructor_args=(settings, folder, units),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=config.compute.least, max_size=config.compute.most),
            num_cpus=asked(config.compute)["CPU"],
            num_gpus=asked(config.compute).get("GPU", 0),
            runtime_env={"env_vars": fit.worker_environment(config.compute)},
        )
        try:
            for line in scored.iter_rows():
                if came:
                    raise stopped(came[0])
                done += json.loads(line["record"])["rows"]
                progress("scoring", done, total)
        except Exception as error:
            raise cause(error) from error


def stopped(signum: int) -> Stopped:
    """That the job was told to stop."""
    return Stopped("stopped as asked: the shards that are done stay\n  run the same command again to go on from there", signum)


def cause(error: BaseException) -> JobError:
    """The error of ours at the bottom of what Ray Data raised, or the whole in a line."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, JobError):
            return below
        below = getattr(below, "cause", None) or below.__cause__
    return JobError(f"a worker failed: {' '.join(str(error).split())[-300:]}")


def stretches(pending: list[Shard], workers: int) -> Iterator[list[Shard]]:
    """The shards as units of work: each alone where a file can be read from anywhere, else some neighbours together."""
    by_file: dict[str, list[Shard]] = {}
    for shard in pending:
        by_file.setdefault(shard.file.name, []).append(shard)
    for own in by_file.values():
        size = 1 if own[0].file.kind == "parquet" else max(1, -(-len(own) // (_UNITS * workers)))
        yield from (own[i : i + size] for i in range(0, len(own), size))


def quiet() -> None:
    """Ray Data's own bars and log lines off: this job shows rows."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
