"""A replica without Ray Serve around it: requests that come together are scored together, each with its own answer."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ray import serve

from tests.unit import test_export, tiny_models
from threephase_ray.errors import JobError
from threephase_ray.predictions import fetching
from threephase_ray.predictions.classifier import TextClassifier
from threephase_ray.service.replica import Replica
from threephase_ray.serving import ServeConfig

TEXTS = [text for text, _ in tiny_models.texts(40, longest=30, seed=8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return test_export.classifier_of_a_run(tmp_path_factory.mktemp("served"))


def replica(model: Path, **knobs: object) -> Replica:
    config = ServeConfig(**({"name": "some", "model": str(model), "batch": {"requests": 8, "wait_s": 1.0}} | knobs))
    return Replica(config.model_dump(mode="json"), fetching.fingerprint(model))


@pytest.mark.parametrize("long_texts", ["truncate", "split"])
def test_requests_of_any_size_have_their_own_answers(model: Path, long_texts: str) -> None:
    made, sizes = replica(model, long_texts=long_texts), [3, 0, 1, 20, 1, 5, 0, 10]
    starts = np.cumsum([0, *sizes])
    requests = [TEXTS[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    found = asyncio.run(made.score(requests))
    expected = TextClassifier(model, tiny_models.CPU).score(TEXTS, split=long_texts == "split").probabilities
    assert [len(each) for each in found] == sizes
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)


def test_requests_that_come_together_are_scored_together(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray Serve's batching asks its replica's context for nothing but this.
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=64))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    made, asked = replica(model), []
    score = made._classifier.score
    monkeypatch.setattr(made._classifier, "score", lambda texts, **how: (asked.append(len(texts)), score(texts, **how))[1])

    async def together() -> list[np.ndarray]:
        return await asyncio.gather(*(made.answer([text]) for text in TEXTS[:16]))

    found = asyncio.run(together())
    assert asked == [8, 8]
    np.testing.assert_allclose(np.concatenate(found), score(TEXTS[:16]).probabilities, atol=1e-6)


def test_a_replica_is_ill_until_a_batch_succeeds_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replica(model)

    def fail(texts: list[str], split: bool) -> None:
        raise RuntimeError("no memory")

    made.check_health()
    with monkeypatch.context() as broken:
        broken.setattr(made._classifier, "score", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            asyncio.run(made.score([["a"]]))
    with pytest.raises(RuntimeError, match="no memory"):
        made.check_health()
    asyncio.run(made.score([["a"]]))
    made.check_health()


def test_another_model_than_that_of_the_others_is_refused(model: Path) -> None:
    config = ServeConfig(name="some", model=str(model))
    with pytest.raises(JobError, match="has changed since the service was started"):
        Replica(config.model_dump(mode="json"), "0" * 64)
