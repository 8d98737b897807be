"""Keys: hashes of all that a result depends on, and of nothing about how it is computed."""

from typing import Any

import numpy as np

from threephase_ray import pretrained, results
from threephase_ray.config import Config, FineTune, Imbalance
from threephase_ray.imbalance import corrected_sizes
from threephase_ray.loader import DataSet


def of_phase(name: str, version: int, config: Config, data: DataSet, parent: str | None) -> str:
    """The key of a phase; `version`: of its arithmetic, `parent`: the key of the phase before."""
    return results.key(
        {
            "phase": "finetune" if name == "baseline" else name,
            "version": version,
            "parent": parent,
            "data": data.facts["content"],
            "encoder": encoder(config),
            "knobs": section(name, config, data),
            "precision": config.compute.precision,
            "seed": config.seed,
        }
    )


def of_probe(version: int, config: Config, data: DataSet, of: str | None) -> str:
    """The key of a probe of the phase whose key is `of`, or of the pretrained encoder."""
    start = {"encoder": encoder(config), "data": data.facts["content"], "precision": config.compute.precision}
    return results.key({"probe": version, "of": start if of is None else of, "seed": config.seed})


def encoder(config: Config) -> dict[str, Any]:
    """What the pretrained encoder gives."""
    return {"weights": pretrained.fingerprint(config.encoder), "pooling": config.encoder.pooling, "dropout": config.encoder.dropout}


def section(name: str, config: Config, data: DataSet) -> dict[str, Any]:
    """The knobs that a phase reads."""
    match name:
        case "baseline":
            assert config.baseline is not None
            return config.baseline.model_dump(mode="json", include=set(FineTune.model_fields))
        case "contrastive":
            return contrastive(config, data)
        case "joint":
            parts: dict[str, Any] = {part: getattr(config, part).model_dump(mode="json") for part in ("joint", "dae")}
            return parts | {"contrastive": contrastive(config, data)}
    knobs: dict[str, Any] = getattr(config, name).model_dump(mode="json")
    return knobs


def contrastive(config: Config, data: DataSet) -> dict[str, Any]:
    """Phase 2's knobs; the imbalance correction stands for the class sizes that it leads to, so that what changes none is shared."""
    knobs = config.contrastive.model_dump(mode="json")
    return knobs | {"imbalance": imbalance(config.contrastive.imbalance, data)}


def imbalance(knobs: Imbalance, data: DataSet) -> dict[str, Any]:
    """What the imbalance correction does to the training split."""
    sizes = np.array(data.facts["splits"]["train"]["class_counts"][: data.classes])
    corrected = corrected_sizes(sizes, knobs.min_ratio, knobs.max_ratio).tolist()
    return knobs.model_dump(mode="json", exclude={"min_ratio", "max_ratio"}) | {"sizes": corrected}
