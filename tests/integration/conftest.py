"""What tests share: a place for whole jobs, a cluster for them, an S3 server and the ways to it."""

from collections.abc import Iterator

import pytest
import s3fs

from tests.integration import places, s3
from tests.integration.places import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny checkpoint and data set, and no cluster."""
    return places.make(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="session")
def cluster(place: Place) -> Iterator[Place]:
    """The same on a running cluster."""
    with places.cluster(place) as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    with s3.Server(tmp_path_factory.mktemp("s3") / "journal") as running:
        yield running


@pytest.fixture
def direct(server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> s3.Server:
    """The server, to which clients of this process and its children go."""
    s3fs.S3FileSystem.clear_instance_cache()  # clients remember where they went
    for name, value in (s3.credentials() | {"AWS_ENDPOINT_URL": server.endpoint}).items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def proxy(direct: s3.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Proxy]:
    """The way to the server, good until a test makes it bad."""
    with s3.Proxy(direct.port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """A place in the bucket that no other test uses."""
    return f"s3://{s3.BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"
