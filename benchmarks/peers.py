"""Training steps of the benchmarks: our own, and those of stock libraries over the same batches."""

from collections.abc import Callable
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from threephase_ray import pretrained
from threephase_ray.config import Config
from threephase_ray.models import Embedder
from threephase_ray.phases import contrastive
from threephase_ray.phases.spec import Batch, Phase
from threephase_ray.training.engine import PlainEngine, Settings

Step = Callable[[Batch], float]
RATE = 5e-5  # of the peers, AdamW's
NOTHING: dict[str, float] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # of dropout


def own(phase: Phase, device: torch.device, precision: str, start: nn.Module | None = None) -> Step:
    """Our own step of a model, by default the phase's new one."""
    model = (start or phase.model(None)).to(device)
    engine = PlainEngine(model, phase.groups(model), device, Settings(0, precision, clip=1.0, epsilon=1e-8, micros=1))
    engine.train(True)

    def step(batch: Batch) -> float:
        loss = engine.apply(phase.loss, batch)
        engine.backward(loss)
        assert engine.finite()
        engine.step(1.0)
        return float(loss.detach()) if device.type == "cpu" else 0.0  # a GPU is not waited for

    return step


def stock(model: nn.Module, loss: Callable[[Batch], Tensor], device: torch.device, dtype: torch.dtype) -> Step:
    """A step as Hugging Face's Trainer takes it."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def step(batch: Batch) -> float:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            value = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(value.detach()) if device.type == "cpu" else 0.0

    return step


def denoising(folder: Path, pooling: str, dropout: bool = True) -> DenoisingAutoEncoderLoss:
    """sentence-transformers' denoising autoencoder of a checkpoint."""
    encoder = Transformer(str(folder), config_kwargs={} if dropout else NOTHING)
    network = DenoisingAutoEncoderLoss(
        SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension(), pooling_mode=pooling)], device="cpu"),
        tie_encoder_decoder=True,
    )
    if not dropout:
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return network


def autoencoder(network: DenoisingAutoEncoderLoss, pad: int, device: torch.device, dtype: torch.dtype) -> Step:
    """A step of it over our batches."""

    def loss(batch: Batch) -> Tensor:
        begin = batch["decoder_ids"][:, :1]
        clean = torch.cat([begin, torch.where(batch["decoder_mask"], batch["targets"], pad)], dim=1)
        noisy = {"input_ids": batch["ids"], "attention_mask": batch["mask"].long()}
        found: Tensor = network([noisy, {"input_ids": clean, "attention_mask": (clean != pad).long()}], torch.empty(0))
        return found

    return stock(network, loss, device, dtype)


def embeddings(config: Config, device: torch.device, dtype: torch.dtype) -> Step:
    """Our contrastive loss on a padded encoder."""
    model: Embedder = pretrained.start(config.encoder, None)
    model.packs = False
    return stock(model, lambda batch: contrastive.texts_loss(config.contrastive, model(batch["ids"], batch["mask"]), batch), device, dtype)


def classifier(folder: Path, classes: int) -> nn.Module:
    """transformers' own classifier."""
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes, dtype=torch.float32)
    return model


def classification(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Step:
    """A step of it over our batches."""

    def loss(batch: Batch) -> Tensor:
        logits = model(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits
        return nn.functional.cross_entropy(logits.float(), batch["target"])

    return stock(model, loss, device, dtype)
