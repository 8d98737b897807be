import pytest

from tests.faults.processes import free_port
from threephase_ray.errors import ResourceError
from threephase_ray.training.cluster import cluster, reach


def test_a_dead_address_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(ResourceError, match="no Ray cluster answers"), cluster():
        pytest.fail("there is no cluster")


@pytest.mark.parametrize("word", ["auto", "local"])
def test_words_are_left_to_ray(word: str) -> None:
    reach(word)
