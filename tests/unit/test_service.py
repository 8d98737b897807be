"""The service without Ray: what requests may be, how others are refused, what is answered."""

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from threephase_ray.predictions.classifier import Floats
from threephase_ray.service import api, body
from threephase_ray.serving import Limits

LABELS = ["sport", "money", "food & drink"]
LIMITS = Limits(body_bytes=2000, texts=4, characters=50, waiting=2, timeout_s=0.3)
JSON = {"content-type": "application/json"}


async def score(texts: list[str]) -> Floats:
    """Probabilities that the texts' lengths tell."""
    raw = np.array([[len(text), 3.0, 2.0] for text in texts], dtype=np.float32).reshape(len(texts), 3)
    return raw / raw.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def client() -> TestClient:
    facts = api.Facts(labels=LABELS, model="f" * 64)
    return TestClient(body.Bounded(api.build(score, facts, LIMITS), LIMITS), raise_server_exceptions=False)


def test_each_text_has_its_likeliest_label(client: TestClient) -> None:
    answer = client.post("/predict", json={"texts": [" a ", "aaaaa"]})
    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert first == {"label": "money", "probability": pytest.approx(3 / 6), "state": "scored"}
    assert second == {"label": "sport", "probability": pytest.approx(5 / 10), "state": "scored"}


@pytest.mark.parametrize(("top", "count"), [(2, 2), (3, 3), (9, 3)])
def test_more_labels_come_in_order(client: TestClient, top: int, count: int) -> None:
    (found,) = client.post("/predict", json={"texts": ["a"], "top": top}).json()["predictions"]
    expected = [("money", 3 / 6), ("food & drink", 2 / 6), ("sport", 1 / 6)][:count]
    assert found["top"] == [{"label": label, "probability": pytest.approx(probability)} for label, probability in expected]
    assert (found["label"], found["probability"]) == (found["top"][0]["label"], found["top"][0]["probability"])


def test_texts_without_characters_have_no_label_as_in_bulk(client: TestClient) -> None:
    found = client.post("/predict", json={"texts": [" \n", "aaaaa", "caf\ufffd", ""], "top": 2}).json()["predictions"]
    assert [each["state"] for each in found] == ["empty", "scored", "undecodable", "empty"]
    assert [each["label"] for each in found] == [None, "sport", None, None]
    assert [each["probability"] is None for each in found] == [True, False, True, True]
    nothing = client.post("/predict", json={"texts": [""]}).json()["predictions"]
    assert nothing == [{"label": None, "probability": None, "state": "empty"}]


def test_facts_and_health(client: TestClient) -> None:
    assert client.get("/labels").json() == {"labels": LABELS, "model": "f" * 64}
    assert (client.get("/healthz").status_code, client.get("/healthz").json()) == (200, {"status": "ok"})
    assert set(client.get("/openapi.json").json()["paths"]) == {"/predict", "/labels", "/healthz"}


def test_a_model_that_fails_is_not_healthy_and_shows_no_trace() -> None:
    async def broken(texts: list[str]) -> Floats:
        raise RuntimeError("out of memory")

    client = TestClient(api.build(broken, api.Facts(labels=LABELS, model=""), LIMITS), raise_server_exceptions=False)
    for answer in (client.get("/healthz"), client.post("/predict", json={"texts": ["a"]})):
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")


BAD = {
    "no JSON": (b'{"texts": [', 422),
    "nothing": (b"", 422),
    "not UTF-8": (b'{"texts": ["\xff\xfe"]}', 400),
    "very deep": (b"[" * 1999, 400),
    "a list": (b'["a"]', 422),
    "no texts": (b"{}", 422),
    "an empty list": (b'{"texts": []}', 422),
    "a text alone": (b'{"texts": "a"}', 422),
    "a number": (b'{"texts": ["a", 1]}', 422),
    "null": (b'{"texts": [null]}', 422),
    "half a character": (b'{"texts": ["a\\ud800"]}', 422),
    "an unknown field": (b'{"texts": ["a"], "text": "a"}', 422),
    "an unknown field that is none": (b'{"texts": ["a"], "\\ud800": "a"}', 422),
    "a long unknown field": (b'{"texts": ["a"], "' + b"\xc3\xa4" * 900 + b'": "a"}', 422),
    "top as text": (b'{"texts": ["a"], "top": "1"}', 422),
    "top as truth": (b'{"texts": ["a"], "top": true}', 422),
    "top of zero": (b'{"texts": ["a"], "top": 0}', 422),
    "top without end": (b'{"texts": ["a"], "top": 1e999}', 422),
    "top not a number": (b'{"texts": ["a"], "top": NaN}', 422),
    "too many texts": (json.dumps({"texts": ["a"] * 5}).encode(), 413),
    "a long text": (json.dumps({"texts": ["a", "b" * 51]}).encode(), 413),
    "too large": (json.dumps({"texts": ["a"]}).encode() + b" " * 2000, 413),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_in_a_line(client: TestClient, name: str) -> None:
    content, status = BAD[name]
    answer = client.post("/predict", content=content, headers=JSON)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail"}
    assert 0 < len(answer.json()["detail"]) <= 1000
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("given", [{"texts": [1] * 1000}, {"texts": ["a"]} | {str(i): i for i in range(1000)}])
def test_a_bad_request_is_left_at_its_first_error(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        api.Question.model_validate(given)
    assert refused.value.error_count() == 1


def test_other_paths_methods_and_types_are_refused(client: TestClient) -> None:
    good = json.dumps({"texts": ["a"]})
    assert client.get("/docs").status_code == client.post("/", content=good, headers=JSON).status_code == 404
    assert client.get("/predict").status_code == client.delete("/predict").status_code == client.post("/healthz").status_code == 405
    # What a page of another site may send without asking first.
    assert client.post("/predict", content=good, headers={"content-type": "text/plain"}).status_code == 422


def test_limits_themselves_are_kept(client: TestClient) -> None:
    assert client.post("/predict", json={"texts": ["b" * 50] * 4}).status_code == 200
    good = json.dumps({"texts": ["a"]}).encode()
    assert client.post("/predict", content=good.ljust(2000), headers=JSON).status_code == 200


class Caller:
    """Sends a request's parts by hand, and keeps what comes back."""

    def __init__(self, parts: list[bytes], headers: dict[bytes, bytes] | None = None, pause: float = 0.0) -> None:
        self.parts, self.headers, self.pause, self.taken = parts, headers or {}, pause, 0
        self.sent: list[Message] = []
        self.answered = -1  # parts that were taken when the answer came

    async def receive(self) -> Message:
        if self.taken == len(self.parts):
            return {"type": "http.disconnect"}
        await asyncio.sleep(self.pause)
        self.taken += 1
        return {"type": "http.request", "body": self.parts[self.taken - 1], "more_body": self.taken < len(self.parts)}

    async def send(self, message: Message) -> None:
        self.answered = self.taken if not self.sent else self.answered
        self.sent.append(message)

    async def call(self, app: body.Bounded) -> int:
        """The status that came back, 0 for none."""
        await app({"type": "http", "method": "POST", "headers": [*self.headers.items()]}, self.receive, self.send)
        return int(self.sent[0]["status"]) if self.sent else 0


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Gives the body back, if the client is still there."""
    message = await receive()
    if message["type"] == "http.request":
        assert (await receive())["type"] == "http.disconnect"
        await PlainTextResponse(message["body"])(scope, receive, send)


def parts(count: int, size: int) -> list[bytes]:
    return [bytes([65 + i % 26]) * size for i in range(count)]


def test_a_body_in_parts_arrives_whole() -> None:
    caller = Caller(parts(200, 10))
    assert asyncio.run(caller.call(body.Bounded(echo, LIMITS))) == 200
    assert caller.sent[1]["body"] == b"".join(caller.parts)


@pytest.mark.parametrize(("headers", "read"), [({}, 3), ({b"content-length": b"2001"}, 0)])
def test_no_more_is_read_than_the_limit_before_the_answer(headers: dict[bytes, bytes], read: int) -> None:
    caller = Caller(parts(1000, 1000), headers)
    assert asyncio.run(caller.call(body.Bounded(echo, LIMITS))) == 413
    assert (caller.answered, caller.taken) == (read, 1000)  # the rest is read and thrown away, or the client would not see the answer
    assert (b"connection", b"close") in caller.sent[0]["headers"]


def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_LINGER", 0.1)
    caller = Caller(parts(100, 1), pause=0.05)
    assert asyncio.run(caller.call(body.Bounded(echo, LIMITS))) == 408
    assert caller.taken < 20


def test_a_client_that_leaves_is_not_answered() -> None:
    assert asyncio.run(Caller([]).call(body.Bounded(echo, LIMITS))) == 0


def test_only_so_many_bodies_are_held_at_once() -> None:
    async def together() -> Iterator[int]:
        app = body.Bounded(echo, LIMITS)
        found = await asyncio.gather(*(Caller(parts(2, 5), pause=0.05).call(app) for _ in range(5)))
        return iter([*found, await Caller(parts(2, 5)).call(app)])

    assert list(asyncio.run(together())) == [200, 200, 503, 503, 503, 200]


def test_proxies_learn_the_limits_from_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in body.environment(LIMITS).items():
        monkeypatch.setenv(name, value)
    (made,) = body.middleware()
    assert (made.cls, made.kwargs) == (body.Bounded, {"limits": LIMITS})
