"""Settings that must stand before torch is imported, and the fixtures that all tests share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

os.environ.update(
    OMP_NUM_THREADS="1",  # one thread a process: workers of a test share few cores
    OMP_WAIT_POLICY="PASSIVE",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    DS_ACCELERATOR="cpu",
    RAY_USAGE_STATS_ENABLED="0",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the golden files anew instead of comparing with them")


@pytest.fixture(scope="session")
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew."""
    return bool(request.config.getoption("--regenerate"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Call it with a data set's name for its folder in ../shared/data; skips where that is absent, or fails if it is required."""

    def folder(name: str) -> Path:
        path = SHARED / name
        if path.is_dir():
            return path
        reason = f"needs the data set {name} in {SHARED}"
        if os.environ.get("THREEPHASE_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    return folder
