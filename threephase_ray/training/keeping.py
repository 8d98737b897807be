"""Whether a phase's weights are kept, or those that it began with: `keep: better`."""

from pathlib import Path
from typing import Any

from torch import Tensor

from threephase_ray.config import Representation
from threephase_ray.models import Embedder
from threephase_ray.phases.spec import Phase
from threephase_ray.training import probing
from threephase_ray.training.plan import Desk
from threephase_ray.training.together import first


def kept(phase: Phase, previous: Path | None, weights: dict[str, Tensor], desk: Desk) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights that a phase hands over, and what is to be told of the choice; `weights`: its best ones, on rank 0.

    With `keep: better` logistic regression on the embeddings decides, by its accuracy on validation: weights that lower it are
    dropped for those that the phase began with. New layers begin as the identity, so these are worth what they were before.
    """
    if not (isinstance(phase.training, Representation) and phase.training.keep == "better"):
        return weights, {}
    model = phase.hand_over(phase.model(previous))
    assert isinstance(model, Embedder)
    began = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    before = accuracy(model, desk)
    model.load_state_dict(first(lambda: weights))
    after = accuracy(model, desk)
    better = after >= before
    return weights if better else began, {"kept": better, "probe_before": before, "probe_after": after}


def accuracy(model: Embedder, desk: Desk) -> float:
    """Accuracy on validation of logistic regression on the embeddings."""
    sides = [probing.embedded(model, desk, split) for split in ("train", "validation")]
    return first(lambda: probing.compare(sides[0], sides[1], len(desk.data.label_names))["linear"]["accuracy"])
