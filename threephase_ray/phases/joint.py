"""Phases 1 and 2 as one loss, L_DAE + L_CL (Eq. 10): each text is rebuilt from its noisy version and compared with its class."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threephase_ray import pretrained
from threephase_ray.config import Config
from threephase_ray.errors import ConfigError
from threephase_ray.loader import DataSet, Split
from threephase_ray.phases import contrastive, dae
from threephase_ray.phases.spec import Batch, Ints, Phase, parameter_groups


def phase(config: Config, data: DataSet) -> Phase:
    """The phase over the training split: noise as `config.dae`, contrast as `config.contrastive`.

    Both losses see one vector, that after bottleneck and projection: the maps are linear, so the decoder loses nothing by it.

    Raises:
        ConfigError: the contrast samples pairs, which leaves no texts that all could be compared.
    """
    knobs, contrast, train, validation = config.joint, config.contrastive, data.split("train"), data.split("validation")
    if contrastive.samples_pairs(contrast):
        raise ConfigError("phases: joint compares every pair of a batch; set contrastive.loss.pairs to batch")
    own = contrast.model_copy(update={"batch": knobs.batch})
    assert knobs.batch is not None
    together = knobs.batch

    def model(previous: Path | None) -> nn.Module:
        return dae.network(config, pretrained.start(config.encoder, previous).add("bottleneck").add("projection"))

    def collate(split: Split, visits: Ints, step: Ints, epoch: int) -> Batch:
        noisy = dae.corrupted(config, data, split, visits, epoch) | {"total": dae.target_count(config, data, split, step, epoch)}
        return contrastive.collate(config, data, split, visits, step, epoch) | {"noisy": noisy}

    def loss(model: dae.Network, batch: Batch) -> Tensor:
        rebuilt: Tensor = dae.token_loss(model, batch["noisy"]) / batch["noisy"]["total"]
        return rebuilt + contrastive.loss(contrast, model.embedder, batch)

    def statistics(model: dae.Network, batch: Batch) -> Tensor:
        return torch.cat([dae.statistics(model, batch["noisy"]), contrastive.statistics(contrast, model.embedder, batch)])

    return Phase(
        name="joint",
        version=2,
        training=knobs,
        passes=3.0,
        train=train,
        validation=validation,
        model=model,
        groups=lambda model: parameter_groups(model, model.embedder.encoder, knobs),
        steps=lambda epoch: contrastive.steps(own, train, config.seed, epoch),
        checks=lambda: contrastive.shuffled_checks(validation, config.seed, together),
        collate=collate,
        loss=loss,
        statistics=statistics,
        score=score,
        rank=lambda scores: (-scores["loss"],),
        hand_over=lambda model: model.embedder,
        gathers=True,
        embed=lambda model, batch: model.embedder(batch["ids"], batch["mask"]),
        whole_step=contrastive.whole_step(contrast),
    )


def score(counts: NDArray[np.float64]) -> dict[str, float]:
    """The joint loss, and the figures of both parts."""
    rebuilt, contrasted = dae.score(counts[:3]), contrastive.score(counts[3:])
    return {"loss": rebuilt.pop("loss") + contrasted.pop("loss"), **rebuilt, **contrasted}
