"""A replica: the model in a process of its own, which scores what several requests ask at once."""

import asyncio
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from ray import serve

from threephase_ray.errors import JobError
from threephase_ray.predictions.classifier import Floats, TextClassifier
from threephase_ray.predictions.fetching import fetched, fingerprint
from threephase_ray.service import api
from threephase_ray.serving import ServeConfig


class Replica:
    """What Ray Serve holds in each process."""

    def __init__(self, config: dict[str, Any], model: str) -> None:
        """`model`: the fingerprint that its files must have, the same for replicas that start later.

        Raises:
            JobError: there is no such model, or it has changed since.
        """
        self._config = ServeConfig(**config)
        compute, batch = self._config.compute, self._config.batch
        torch.set_num_threads(max(1, int(compute.cpus_per_worker)))
        folder = fetched(self._config.model, self._config.scratch)
        if fingerprint(folder) != model:
            raise JobError(f"model: {self._config.model} has changed since the service was started\n  start the service anew")
        device = torch.device("cuda" if compute.use_gpu else "cpu")
        self._classifier = TextClassifier(folder, device, precision=compute.arithmetic, tokens=self._config.batch_tokens)
        self._facts = api.Facts(labels=self._classifier.labels, model=model)
        self.answer = serve.batch(max_batch_size=batch.requests, batch_wait_timeout_s=batch.wait_s)(self.score)
        self._failure: Exception | None = None  # of the last batch

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application, as Ray Serve asks for it."""
        return api.build(self.answer, self._facts, self._config.limits)

    def check_health(self) -> None:
        """Raise what the last batch raised: what breaks a GPU stays with the process, and Ray Serve starts another one."""
        if self._failure is not None:
            raise self._failure

    async def score(self, requests: list[list[str]]) -> list[Floats]:
        """Probabilities [n, k] of the n texts of each request, in a thread, for others arrive meanwhile."""
        texts, split = [text for request in requests for text in request], self._config.long_texts == "split"
        try:
            scores = await asyncio.to_thread(self._classifier.score, texts, split=split)
        except Exception as error:
            self._failure = error
            raise
        self._failure = None
        return np.split(scores.probabilities, np.cumsum([len(request) for request in requests])[:-1])
