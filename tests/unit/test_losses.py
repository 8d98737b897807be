import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss
from pytorch_metric_learning.reducers import MeanReducer
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor
from torch.nn import functional as F

from tests.unit import tiny_models
from threephase_ray import losses, memory, sampling
from threephase_ray.phases import dae


def cosine(left: Tensor, right: Tensor) -> float:
    """Cosine of two vectors in float64."""
    a, b = left.double(), right.double()
    return float(a @ b / (a.norm() * b.norm()))


def batch(seed: int, rows: int = 9, levels: int = 1, padding: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random embeddings [n, 6], labels [n, levels], and who may meet whom [n, n]: nobody themselves, nobody the padding."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (rows, levels), generator=rng)
    labels[0] = 7  # an anchor without a positive
    real = torch.arange(rows) < rows - padding
    allowed = real[:, None] & real[None, :] & ~torch.eye(rows, dtype=torch.bool)
    return torch.randn(rows, 6, generator=rng), labels, allowed


def naive_contrastive(embeddings: Tensor, alike: Tensor, allowed: Tensor, temperature: float, anchor: int) -> float:
    """The loss of one anchor, term by term."""
    others = [j for j in range(len(embeddings)) if allowed[anchor, j]]
    scores = {j: cosine(embeddings[anchor], embeddings[j]) / temperature for j in others}
    if sum(float(alike[anchor, j]) for j in others) == 0:
        return 0.0
    everything = math.log(sum(math.exp(score) for score in scores.values()))
    total = sum(float(alike[anchor, j]) * (scores[j] - everything) for j in others)
    return -temperature * total / sum(float(alike[anchor, j]) for j in others)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
def test_supervised_contrastive_equals_the_double_loop(levels: int, padding: int, temperature: float) -> None:
    for seed in range(5):
        embeddings, labels, allowed = batch(seed, levels=levels, padding=padding)
        alike = losses.pair_labels(labels, labels)
        values = losses.supervised_contrastive(embeddings, embeddings, alike, allowed, temperature)
        naive = [naive_contrastive(embeddings, alike, allowed, temperature, i) for i in range(len(embeddings))]
        np.testing.assert_allclose(values.numpy(), naive, atol=1e-5)
        assert values[0] == 0
        if padding:
            assert values[-padding:].abs().max() == 0


def test_supervised_contrastive_equals_another_library() -> None:
    for seed in range(5):
        embeddings, labels, allowed = batch(seed, rows=24)
        labels[:2] = 7  # everybody has a positive
        alike = losses.pair_labels(labels, labels)
        ours = losses.supervised_contrastive(embeddings, embeddings, alike, allowed, 0.1).mean()
        theirs = SupConLoss(temperature=0.1, reducer=MeanReducer())(embeddings, labels[:, 0])
        torch.testing.assert_close(ours, 0.1 * theirs, atol=1e-5, rtol=1e-5)


def test_padding_rows_and_lonely_anchors_have_no_gradient_of_their_own() -> None:
    embeddings, labels, allowed = batch(0, padding=3)
    embeddings.requires_grad_()
    alike = losses.pair_labels(labels, labels)
    losses.supervised_contrastive(embeddings, embeddings, alike, allowed, 0.1).sum().backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert embeddings.grad[-3:].abs().max() == 0
    assert losses.positives(alike, allowed).tolist() == [bool(((alike[i] > 0) & allowed[i]).any()) for i in range(len(alike))]
    assert not losses.positives(alike, allowed)[0]


def test_no_anchor_at_all_gives_zero_and_no_nan() -> None:
    embeddings = torch.randn(4, 6, requires_grad=True)
    nobody = torch.zeros(4, 4, dtype=torch.bool)
    alike = torch.ones(4, 4)
    total = losses.supervised_contrastive(embeddings, embeddings, alike, nobody, 0.1).sum()
    total = total + (losses.squared_cosine_errors(embeddings, embeddings, alike) * losses.balance(alike, nobody)).sum()
    total.backward()
    assert total.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0


@pytest.mark.parametrize("padding", [0, 2])
def test_cosine_regression_equals_the_double_loop(padding: int) -> None:
    for seed in range(5):
        embeddings, labels, allowed = batch(seed, padding=padding)
        alike = losses.pair_labels(labels, labels)
        ours = (losses.squared_cosine_errors(embeddings, embeddings, alike) * losses.balance(alike, allowed)).sum()
        sides: dict[bool, list[float]] = {True: [], False: []}
        for i in range(len(embeddings) - padding):
            for j in range(len(embeddings) - padding):
                if i != j:
                    same = bool(labels[i, 0] == labels[j, 0])
                    sides[same].append((float(same) - cosine(embeddings[i], embeddings[j])) ** 2)
        naive = (sum(sides[True]) / len(sides[True]) + sum(sides[False]) / len(sides[False])) / 2
        assert float(ours) == pytest.approx(naive, abs=1e-5)


def test_balance_gives_both_sides_half_of_the_weight() -> None:
    _, labels, allowed = batch(1, levels=2)
    alike = losses.pair_labels(labels, labels)
    weights = losses.balance(alike, allowed)
    assert float(weights[alike > 0].sum()) == pytest.approx(0.5)
    assert float(weights[alike == 0].sum()) == pytest.approx(0.5)
    assert weights[~allowed].abs().max() == 0
    only_positives = losses.balance(torch.ones(4, 4), ~torch.eye(4, dtype=torch.bool))
    assert float(only_positives.sum()) == pytest.approx(1.0)


def test_pair_labels_are_the_share_of_levels_that_match() -> None:
    labels = torch.tensor([[0, 0], [0, 1], [1, 1]])
    assert losses.pair_labels(labels, labels).tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]]
    assert losses.pair_labels(labels[:, 1:], labels[:1, 1:]).tolist() == [[1.0], [0.0], [0.0]]


@pytest.mark.parametrize("held", [1, 3 * 11, 10**6])
def test_reconstruction_is_the_cross_entropy_whatever_is_held_at_a_time(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOGITS", held)
    torch.manual_seed(held)
    parts = [torch.randn(*shape, requires_grad=True) for shape in ((10, 6), (11, 6), (11,))]
    targets = torch.randint(0, 11, (10,))
    loss, hits = losses.reconstruction(*parts, targets)
    (0.5 * loss).backward()
    ours = [part.grad.clone() for part in parts]
    for part in parts:
        part.grad = None
    logits = F.linear(*parts)
    naive = F.cross_entropy(logits, targets, reduction="sum")
    (0.5 * naive).backward()
    torch.testing.assert_close(loss, naive)
    assert int(hits) == int((logits.argmax(dim=1) == targets).sum())
    for mine, part in zip(ours, parts, strict=True):
        torch.testing.assert_close(mine, part.grad, rtol=1e-5, atol=1e-6)


def test_reconstruction_in_bfloat16_is_near_and_leaves_masters_alone() -> None:
    parts = [torch.randn(*shape, requires_grad=True) for shape in ((300, 32), (50, 32), (50,))]
    targets = torch.randint(0, 50, (300,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = losses.reconstruction(*parts, targets)
        loss.backward()
    exact = F.cross_entropy(F.linear(*parts), targets, reduction="sum")
    for part, gradient in zip(parts, torch.autograd.grad(exact, parts), strict=True):
        assert part.grad.dtype == torch.float32
        assert float((part.grad - gradient).norm() / gradient.norm()) < 0.02
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)


def test_reconstruction_of_no_tokens_is_nothing() -> None:
    parts = [torch.randn(*shape, requires_grad=True) for shape in ((0, 6), (11, 6), (11,))]
    loss, hits = losses.reconstruction(*parts, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert (float(loss), int(hits)) == (0.0, 0)
    assert all(not part.grad.any() for part in parts)


def test_classification_is_a_sum_of_cross_entropies() -> None:
    logits, targets = torch.randn(3, 5, 11), torch.randint(0, 11, (3, 5))
    targets[0, 2:] = -100
    shares = torch.log_softmax(logits.double(), dim=-1)
    assert float(losses.classification(logits[:, 0], targets[:, 0])) == pytest.approx(
        -sum(float(shares[i, 0, targets[i, 0]]) for i in range(3)), rel=1e-6
    )
    assert float(losses.classification(logits[:, 0], torch.full((3,), -100))) == 0


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_denoising_loss_equals_that_of_sentence_transformers(family: str, tmp_path: Path) -> None:
    """Same checkpoint, same noisy and clean tokens, same new weights in the decoder, no dropout."""
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", family)
    data = tiny_models.prepared(tmp_path, encoder)
    config = tiny_models.configured(encoder)
    phase = dae.phase(config, data)
    ours = phase.model(None).eval()
    assert isinstance(ours, dae.Autoencoder)
    first = Transformer(encoder.path)
    theirs = DenoisingAutoEncoderLoss(SentenceTransformer(modules=[first, Pooling(16, "cls")], device="cpu")).eval()
    left = ours.decoder.causal.load_state_dict(theirs.decoder.state_dict(), strict=False)
    assert not left.missing_keys
    assert torch.equal(ours.decoder.unembedding.weight, theirs.decoder.get_output_embeddings().weight)
    for step in phase.steps(0):
        tensors = phase.collate(phase.train, step, step, 0)
        clean = torch.from_numpy(phase.train.padded(step[:, 0]).tokens)
        noisy = {"input_ids": tensors["ids"], "attention_mask": tensors["mask"].long()}
        expected = theirs([noisy, {"input_ids": clean}], torch.empty(0))
        torch.testing.assert_close(phase.loss(ours, tensors), expected, atol=1e-5, rtol=0)
    assert not torch.equal(tensors["ids"][:, :4], clean[:, :4])  # the noise was there


def test_padding_visits_and_the_split_into_micro_batches_leave_a_steps_loss_alone(tmp_path: Path) -> None:
    encoder = tiny_models.checkpoint(tmp_path / "checkpoint", "bert")
    data = tiny_models.prepared(tmp_path, encoder)
    for objective in ("denoising", "mlm"):
        phase = dae.phase(tiny_models.configured(encoder, dae={"objective": objective}), data)
        model, step = phase.model(None).eval(), phase.steps(0)[0]
        whole = float(phase.loss(model, phase.collate(phase.train, step, step, 3)).detach())
        parts = [part for rank in range(5) for part in sampling.share(step, rank, 5, micro=2)]
        total = sum(float(phase.loss(model, phase.collate(phase.train, part, step, 3)).detach()) for part in parts)
        assert total == pytest.approx(whole, abs=1e-5)
