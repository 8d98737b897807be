"""A service as its clients see it: on this machine, on a running cluster; many requests at once, bad ones, its end."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest

from tests.faults import processes
from tests.faults.processes import Limit, free_port
from tests.integration.places import Place, listens
from tests.unit import test_export, tiny_models
from threephase_ray.predictions.classifier import TextClassifier

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
TEXTS = [f"{text} {number}" for number, (text, _) in enumerate(tiny_models.texts(200, longest=30, seed=4))]
NAME = f"api-{os.getpid()}"
SECRET = "zanzibar"  # noqa: S105  # a word of texts that is looked for in logs


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    process: subprocess.Popen[bytes]
    address: str
    mark: str
    output: Path

    def ask(self, *texts: str, **more: object) -> httpx2.Response:
        return httpx2.post(f"{self.address}/predict", json={"texts": texts, **more}, timeout=60)

    def ended(self, signum: int) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout=100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return test_export.classifier_of_a_run(tmp_path_factory.mktemp("served"))


def command(place: Place, model: Path, port: int, *knobs: str) -> list[str]:
    job = [sys.executable, str(place.root / "jobs" / "serve.py"), "--name", NAME, "--store", str(place.store)]
    return [*job, "--model", str(model), "--port", str(port), *knobs]


@contextlib.contextmanager
def running(place: Place, model: Path, folder: Path, *knobs: str) -> Iterator[Service]:
    port, mark, output = free_port(), f"serve-{os.getpid()}", folder / "output"
    process = processes.start(command(place, model, port, *knobs), place.environment, mark, str(output))
    try:
        Limit(150).until(lambda: b"serving at" in output.read_bytes() or process.poll() is not None, "the service", 0.1)
        assert process.poll() is None, output.read_text()[-3000:]
        yield Service(process, f"http://127.0.0.1:{port}", mark, output)
    finally:
        processes.end(mark, Limit(60))


@pytest.fixture(scope="module")
def logs() -> Iterator[Path]:
    """Ray's own files; its sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def service(place: Place, model: Path, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    own = Place(place.root, place.environment | {"RAY_TMPDIR": str(logs)}, place.config, place.store)
    with running(own, model, tmp_path_factory.mktemp("service"), "--limits.body_bytes", "100000") as started:
        yield started


def at_once(service: Service, bodies: list[dict], count: int = 200) -> list[httpx2.Response]:
    """The answers to requests of which `count` are sent at the same time."""

    async def send() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=count)
        async with httpx2.AsyncClient(base_url=service.address, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(client.post("/predict", json=each) for each in bodies))

    return asyncio.run(send())


def memory(service: Service) -> dict[str, int]:
    """Bytes of the processes that requests pass through, by their names."""
    named = {each: " ".join(each.cmdline()) for each in processes.marked(service.mark)}
    found = {name: each.memory_info().rss for each, name in named.items() if "ServeReplica" in name or "ProxyActor" in name}
    assert len(found) == 2, named.values()
    return found


def test_requests_at_once_have_the_answers_of_the_classifier(service: Service, model: Path) -> None:
    bodies = [{"texts": TEXTS[i : i + 1 + i % 3], "top": 3} for i in range(200)]
    answers = at_once(service, bodies)
    assert {answer.status_code for answer in answers} == {200}
    classifier = TextClassifier(model, tiny_models.CPU)
    for body, answer in zip(bodies, answers, strict=True):
        for expected, found in zip(classifier.score(body["texts"]).probabilities, answer.json()["predictions"], strict=True):
            told = {each["label"]: each["probability"] for each in found["top"]}
            np.testing.assert_allclose([told[label] for label in classifier.labels], expected, atol=1e-5)
            assert found["label"] == classifier.labels[int(expected.argmax())]


def test_memory_does_not_grow(service: Service) -> None:
    def round_of_requests() -> dict[str, int]:
        answers = at_once(service, [{"texts": [text]} for text in TEXTS], count=32)
        assert {answer.status_code for answer in answers} == {200}
        return memory(service)

    before = round_of_requests()
    after = [round_of_requests() for _ in range(9)][-1]
    assert {name: size / before[name] for name, size in after.items() if size > 1.05 * before[name]} == {}


def test_health_and_labels(service: Service) -> None:
    assert httpx2.get(f"{service.address}/healthz", timeout=60).status_code == 200
    assert httpx2.get(f"{service.address}/labels", timeout=60).json()["labels"] == test_export.LABELS


def test_bad_requests_are_refused_and_no_text_is_logged(service: Service, logs: Path) -> None:
    text = f"{SECRET} ball"
    good = json.dumps({"texts": [text]}).encode()
    cases = {
        good[:-1]: 422,
        json.dumps({"texts": [text], SECRET: 1}).encode(): 422,
        json.dumps({"texts": []}).encode(): 422,
        b'{"texts": ["\xff' + good: 400,
        json.dumps({"texts": [text] * 65}).encode(): 413,
        json.dumps({"texts": [text * 2000]}).encode(): 413,
        good + b" " * 100_000: 413,
    }
    with httpx2.Client(base_url=service.address, headers={"content-type": "application/json"}, timeout=60) as client:
        for content, status in cases.items():
            answer = client.post("/predict", content=content)
            assert (answer.status_code, set(answer.json())) == (status, {"detail"}), content[:80]
        assert client.post("/predict", content=(good for _ in range(10_000))).status_code == 413  # its length is not told
        assert client.get("/predict").status_code == 405
        assert client.get("/predictions").status_code == 404
    assert service.ask(text).status_code == 200
    read = [path.read_bytes() for path in [service.output, *logs.rglob("*")] if path.is_file()]
    assert any(b"/predict" in each for each in read)  # requests are logged
    assert not [each for each in read if SECRET.encode() in each]


def test_a_port_that_is_taken_is_told_at_once(service: Service, place: Place, model: Path) -> None:
    port = int(service.address.rpartition(":")[2])
    done = subprocess.run(command(place, model, port), env=place.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, f"port {port}" in done.stderr) == (4, True), done.stderr


def test_sigterm_ends_it_and_leaves_nothing(service: Service) -> None:
    assert service.ended(signal.SIGTERM) == 128 + signal.SIGTERM
    assert not [each.cmdline() for each in processes.marked(service.mark)]


def test_on_a_cluster_overload_is_refused_and_its_end_leaves_the_cluster(cluster: Place, model: Path, tmp_path: Path) -> None:
    few = ["--limits.ongoing", "1", "--limits.waiting", "2", "--batch.requests", "1"]
    with running(cluster, model, tmp_path, *few) as service:
        port = int(service.address.rpartition(":")[2])
        slow = [{"texts": [f"{number} {i} {'ball ' * 3000}" for i in range(40)]} for number in range(20)]
        statuses = [answer.status_code for answer in at_once(service, slow)]
        assert set(statuses) == {200, 503}
        assert service.ask("ball").status_code == 200  # afterwards as before
        assert service.ended(signal.SIGINT) == 128 + signal.SIGINT
        assert not listens(port)
    titles = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    assert not [title for title in titles if f"ServeReplica:{NAME}" in title]
