import errno
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from botocore import exceptions as botocore

from tests.unit import storages
from tests.unit.storages import Flaky
from threephase_ray import bucket
from threephase_ray.bucket import Bucket
from threephase_ray.storage import StoreError, connect


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr(Flaky, "fault", staticmethod(lambda: None))
    monkeypatch.setattr(Flaky, "after", staticmethod(lambda: None))
    return Bucket(storages.uri("flaky", Path()), patience=1.5)


def failing(times: int, error: Exception) -> tuple[Callable[[], None], list[int]]:
    """A fault that raises so many times, and the list of its calls."""
    calls: list[int] = []

    def fault() -> None:
        calls.append(1)
        if len(calls) <= times:
            raise error

    return staticmethod(fault), calls  # type: ignore[return-value]


PASSING = [
    ConnectionError("reset"),
    TimeoutError("no answer"),
    OSError(errno.EBUSY, "SlowDown"),
    botocore.EndpointConnectionError(endpoint_url="here"),
    botocore.ConnectTimeoutError(endpoint_url="here"),
    botocore.ReadTimeoutError(endpoint_url="here"),
    botocore.ConnectionClosedError(endpoint_url="here"),
    botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    aiohttp.ClientPayloadError("cut short"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_a_request_is_repeated_until_it_succeeds(flaky: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(bucket, "LONGEST_PAUSE", 0.02)
    fault, calls = failing(2, error)
    monkeypatch.setattr(Flaky, "fault", fault)
    flaky.write("a/b", b"1")
    assert len(calls) == 3
    assert flaky.read("a/b") == b"1"


def test_a_lost_answer_does_not_lose_the_creation(flaky: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, calls = failing(1, TimeoutError("no answer"))
    monkeypatch.setattr(Flaky, "after", fault)
    assert flaky.create("locks/a", b"1")
    assert calls
    assert not flaky.create("locks/a", b"2")


def test_patience_ends_with_an_explanation(flaky: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    fault, calls = failing(1000, ConnectionError("connection refused"))
    monkeypatch.setattr(Flaky, "fault", fault)
    monkeypatch.setattr(bucket, "LONGEST_PAUSE", 0.1)
    with pytest.raises(StoreError, match=r"could not be reached for 2 s: connection refused") as caught:
        flaky.write("a/b", b"1")
    assert flaky.uri in str(caught.value)
    assert len(calls) > 4
    assert "does not answer" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("Access Denied"), "no permission for .*: Access Denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (FileNotFoundError("The specified bucket does not exist"), "bucket of .* does not exist"),
        (OSError(errno.EINVAL, "nonsense"), "cannot be read or written: .*nonsense"),
        (botocore.NoCredentialsError(), "check the credentials"),
        (botocore.ParamValidationError(report="no such name"), "cannot be read or written: .*no such name"),
        (RuntimeError("a mistake"), "cannot be read or written: a mistake"),
    ],
)
def test_what_will_not_pass_is_not_repeated(flaky: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    fault, calls = failing(1000, error)
    monkeypatch.setattr(Flaky, "fault", fault)
    with pytest.raises(StoreError, match=words):
        flaky.write("a/b", b"1")
    assert len(calls) == 1


def test_a_store_that_overwrites_instead_of_creating_is_refused() -> None:
    with pytest.raises(StoreError, match="overwrites a file"):
        connect(storages.uri("careless", Path())).create("locks/a", b"1")
