"""Phase 3: the classifier. A two-layer head trained with the encoder (or alone), or logistic regression on the embeddings.

Training may also start at that logistic regression, so that the first steps do not tear the embeddings apart for the sake of a random
head (linear probing, then fine-tuning: Kumar et al. 2022, arXiv 2202.10054).
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from threephase_ray import losses, metrics, pretrained
from threephase_ray.config import Config, Contrastive, FineTune, SupervisedContrastive
from threephase_ray.loader import DataSet, Split
from threephase_ray.models import Classifier, Head
from threephase_ray.noise import IGNORED
from threephase_ray.phases import contrastive
from threephase_ray.phases.spec import Batch, Ints, Phase, parameter_groups, tensors
from threephase_ray.sampling import by_length, length_grouped

Embedded = tuple[NDArray[np.float32], Ints]  # embeddings [n, h] and classes [n]
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse regularisation of logistic regression, chosen on validation


def phase(config: Config, data: DataSet, knobs: FineTune) -> Phase:
    """The phase as `knobs` describe it (`config.finetune` or `config.baseline`), over the training split."""
    train, validation = data.split("train"), data.split("validation")
    assert knobs.batch is not None
    batch = knobs.batch
    balanced = knobs.class_weight == "balanced"
    weights = losses.class_weights(torch.from_numpy(train.labels[:, -1]), data.classes) if balanced else None

    def model(previous: Path | None) -> nn.Module:
        embedder = pretrained.start(config.encoder, previous)
        embedder.requires_grad_(not knobs.freeze_encoder)
        activation = pretrained.activation(embedder.encoder.config, embedder.pooling) if knobs.head == "mlp" else None
        return Classifier(embedder, Head(embedder.hidden_size, data.classes, activation, knobs.head_dropout))

    return Phase(
        name="finetune",
        version=2,
        training=knobs,
        passes=1.0,
        train=train,
        validation=validation,
        model=model,
        groups=lambda model: parameter_groups(model, model.embedder.encoder, knobs),
        steps=lambda epoch: length_grouped(train.lengths, batch, config.seed, epoch),
        checks=lambda: by_length(validation.lengths, batch),
        collate=lambda split, visits, step, epoch: collate(data, split, visits, step, weights),
        loss=lambda model, batch: loss(knobs, model, batch),
        statistics=lambda model, batch: statistics(data, model, batch),
        score=score,
        rank=lambda scores: (scores["accuracy"], -scores["loss"]),
        hand_over=lambda model: model,
        embed=lambda model, batch: model.embedder(batch["ids"], batch["mask"]),
        whole_step=contrastive.whole_step(contrast(knobs)) if knobs.contrastive_weight else None,
        fit=partial(fit, balanced=balanced) if "logistic" in (knobs.head, knobs.head_start) else None,
        trains=knobs.head == "mlp",
    )


def contrast(knobs: FineTune) -> Contrastive:
    """The contrastive part of the loss."""
    return Contrastive(loss=SupervisedContrastive(temperature=knobs.contrastive_temperature))


def collate(data: DataSet, split: Split, visits: Ints, step: Ints, weights: Tensor | None = None) -> Batch:
    """Clean texts with `truth` [b], the class at the finest level, and `target` [b], -100 where no class of the model applies.

    With `weights` [k] of the classes also `importance` [b], the weight of each row's loss.
    """
    batch = tensors(split, visits)
    truth = batch["labels"][:, -1]
    unknown = (truth >= data.classes) | (truth < 0) | (batch["weight"] == 0)
    importance = {} if weights is None else {"importance": weights[truth.masked_fill(unknown, 0)]}
    return batch | importance | {"truth": truth, "target": truth.masked_fill(unknown, IGNORED), "total": len(step)}


def loss(knobs: FineTune, model: Classifier, batch: Batch) -> Tensor:
    """This worker's part of the step's loss: cross-entropy, and the contrast of all texts of the step by its weight."""
    contrastive.repeat_dropout(batch)
    embeddings = model.embedder(batch["ids"], batch["mask"])
    weights = batch["importance"] if knobs.class_weight == "balanced" else None
    entropy: Tensor = losses.classification(model.head(embeddings), batch["target"], knobs.label_smoothing, weights) / batch["total"]
    if not knobs.contrastive_weight:
        return entropy
    together = contrastive.texts_loss(contrast(knobs), embeddings, batch)
    return (1 - knobs.contrastive_weight) * entropy + knobs.contrastive_weight * together


def statistics(data: DataSet, model: Classifier, batch: Batch) -> Tensor:
    """Sum of the losses, their number, then hits, predictions and support of each class, unseen ones included."""
    logits, real = model(batch["ids"], batch["mask"]), batch["weight"].bool()
    truth, said, names = batch["truth"][real], logits.argmax(dim=-1)[real], len(data.label_names)
    loss, count = losses.classification(logits, batch["target"]), (batch["target"] != IGNORED).sum()
    counts = [torch.bincount(rows, minlength=names).double() for rows in (truth[truth == said], said, truth)]
    return torch.cat([torch.stack([loss.double(), count.double()]), *counts])


def score(counts: NDArray[np.float64]) -> dict[str, float]:
    """Accuracy, macro precision, recall and F1, and the mean loss."""
    hits, predicted, support = counts[2:].reshape(3, -1)
    return {**metrics.classification(hits, predicted, support), "loss": float(counts[0] / max(1.0, counts[1]))}


def fit(model: Classifier, train: Embedded, validation: Embedded, balanced: bool = False) -> None:
    """Set the head to the logistic regression, of five strengths, that is best on validation.

    Args:
        train, validation: embeddings [n, h] and classes [n].
        balanced: whether all classes weigh alike, whatever their sizes.
    """
    head = model.head.cpu()
    head.open(torch.from_numpy(train[0]))
    with torch.no_grad():
        seen, checked = (head.features(torch.from_numpy(np.asarray(side[0], dtype=np.float32))).numpy() for side in (train, validation))
    scaler = StandardScaler().fit(seen)
    kinds = [LogisticRegression(C=strength, max_iter=1000, class_weight="balanced" if balanced else None) for strength in STRENGTHS]
    fitted = [kind.fit(scaler.transform(seen), train[1]) for kind in kinds]
    best = max(fitted, key=lambda regression: regression.score(scaler.transform(checked), validation[1]))
    coefficients, bias = best.coef_, best.intercept_
    if len(coefficients) == 1:  # two classes have one row of coefficients
        coefficients, bias = np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-bias, bias]) / 2
    weight = coefficients / scaler.scale_
    bias = bias - weight @ scaler.mean_
    with torch.no_grad():
        head.out.weight.zero_()  # a class that has no row here is as unlikely as the least likely one
        head.out.bias.fill_(bias.min())
        head.out.weight[best.classes_] = torch.from_numpy(weight).float()
        head.out.bias[best.classes_] = torch.from_numpy(bias).float()
