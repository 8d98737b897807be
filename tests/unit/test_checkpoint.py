import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from threephase_ray.errors import JobError, ResourceError
from threephase_ray.training import checkpoint
from threephase_ray.training.checkpoint import DamagedCheckpoint, Shards
from threephase_ray.training.engine import PlainEngine, Settings
from threephase_ray.training.fragments import share, whole

CPU = torch.device("cpu")
SETTINGS = Settings(stage=0, precision="fp32", clip=0.5, epsilon=1e-6, micros=1)


def built() -> tuple[nn.Module, PlainEngine]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Dropout(0.4), nn.Linear(5, 1))
    high, low = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups: list[dict[str, Any]] = [{"params": high, "lr": 0.1, "weight_decay": 0.3}, {"params": low, "lr": 0.02, "weight_decay": 0.0}]
    return model, PlainEngine(model, groups, CPU, SETTINGS)


def train(engine: PlainEngine, steps: int) -> None:
    """Steps whose data and dropout come from all three generators."""
    engine.train(True)
    for _ in range(steps):
        rows = torch.from_numpy(np.random.randn(4, 3)).float() * random.gauss(1.0, 0.1)  # the generator that is saved
        engine.backward(engine.apply(lambda model, batch: (model(batch["x"]) ** 2).sum(), {"x": rows}))
        engine.step(1.0)


def saved(engine: PlainEngine, path: Path) -> Path:
    checkpoint.write(checkpoint.snapshot(engine), path)
    return path


def test_a_restored_run_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    np.random.seed(1)
    random.seed(1)
    model, engine = built()
    train(engine, 3)
    path = saved(engine, tmp_path / "rank-0.safetensors")
    train(engine, 4)
    draws = torch.rand(1), np.random.rand(), random.gauss(0.0, 1.0)

    again, restored = built()
    with Shards([path]) as shards:
        restored.load(shards.read, 3)
    checkpoint.restore_rng(path)
    train(restored, 4)
    for mine, theirs in zip(restored.fragments(), engine.fragments(), strict=True):
        for kind in ("weight", "exp_avg", "exp_avg_sq"):
            assert torch.equal(mine.tensors[kind], theirs.tensors[kind]), (mine.name, kind)
    assert draws == (torch.rand(1), np.random.rand(), random.gauss(0.0, 1.0))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_weights_alone_start_the_optimiser_anew(tmp_path: Path) -> None:
    model, engine = built()
    train(engine, 3)
    path = saved(engine, tmp_path / "rank-0.safetensors")
    again, restored = built()
    train(restored, 1)
    with Shards([path]) as shards:
        restored.load(shards.read, 0)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert all(fragment.tensors.keys() == {"weight"} for fragment in restored.fragments())


def test_a_snapshot_is_a_copy_and_can_be_written_over() -> None:
    _, engine = built()
    before = checkpoint.snapshot(engine)
    train(engine, 1)
    first = checkpoint.snapshot(engine, before)  # has moments, which `before` has no room for
    kept = {key: tensor.clone() for key, tensor in first.items()}
    train(engine, 1)
    assert all(torch.equal(first[key], tensor) for key, tensor in kept.items())
    second = checkpoint.snapshot(engine, first)
    parts = [key for key in second if key.startswith("fragment|")]
    assert len(parts) == 3 * 6
    assert all(second[key].data_ptr() == first[key].data_ptr() for key in parts)
    assert not any(torch.equal(second[key], kept[key]) for key in parts)
    assert all(torch.equal(second[f"fragment|{f.name}|0|weight"], f.tensors["weight"]) for f in engine.fragments())


def cut(tensor: Tensor, name: str, pieces: int, files: list[dict[str, Tensor]], draw: np.random.Generator) -> None:
    """Cut `tensor` at random places and lay the pieces into random files."""
    cuts = sorted(draw.choice(np.arange(1, len(tensor)), pieces - 1, replace=False).tolist())
    for start, stop in zip([0, *cuts], [*cuts, len(tensor)], strict=True):
        files[draw.integers(len(files))][f"fragment|{name}|{start}|weight"] = tensor[start:stop].clone()


@pytest.mark.parametrize("seed", range(5))
def test_any_range_is_read_from_any_cutting(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    parameters = {"plain": torch.randn(97), "odd|name": torch.randn(8), "one": torch.randn(1)}
    files: list[dict[str, Tensor]] = [{"rng|torch": torch.zeros(1)} for _ in range(3)]
    for name, tensor in parameters.items():
        cut(tensor, name, min(len(tensor), int(draw.integers(1, 8))), files, draw)
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path, tensors in zip(paths, files, strict=True):
        save_file(tensors, path)
    with Shards(paths) as shards:
        for name, tensor in parameters.items():
            for _ in range(30):
                start, stop = sorted(draw.integers(0, len(tensor) + 1, 2).tolist())
                assert torch.equal(shards.read(name, "weight", start, stop), tensor[start:stop])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"fragment|layer|0|weight": torch.ones(4), "fragment|layer|6|weight": torch.ones(4)}, path)
    with Shards([path]) as shards:
        assert len(shards.read("layer", "weight", 6, 10)) == 4
        for name, kind, start, stop, missing in [
            ("layer", "weight", 2, 8, "from 4 to 8"), ("layer", "weight", 8, 12, "from 10 to 12"), ("layer", "weight", 5, 8, "from 5 to 8"),
            ("layer", "exp_avg", 0, 4, '"exp_avg" of layer'), ("other", "weight", 0, 4, "of other"),
        ]:  # fmt: skip
            with pytest.raises(DamagedCheckpoint, match=missing) as caught:
                shards.read(name, kind, start, stop)
            assert str(path) in str(caught.value)


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("read", [lambda path: Shards([path]), checkpoint.restore_rng])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "header", "text", "pickle", "torch"])
def test_what_is_no_checkpoint_is_refused_and_never_executed(tmp_path: Path, damage: str, read: Any) -> None:
    path, trap = saved(built()[1], tmp_path / "rank-0.safetensors"), tmp_path / "executed"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "torch":
        torch.save({"fragment|0.weight|0|weight": Trap(trap)}, path)
    else:
        damaged = {
            "empty": b"",
            "cut": content[:-7],
            "header": b"\xff" * 8 + content[8:],
            "text": b"no tensors",
            "pickle": pickle.dumps(Trap(trap)),
        }
        path.write_bytes(damaged[damage])
    with pytest.raises(JobError, match="damaged checkpoint: not a whole safetensors file") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 15
    assert not trap.exists()
    if damage == "pickle":  # the trap does work
        pickle.loads(path.read_bytes())  # noqa: S301
        assert trap.exists()


def test_random_states_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"rng|torch": torch.get_rng_state()}, path)
    with pytest.raises(DamagedCheckpoint, match="random states are missing"):
        checkpoint.restore_rng(path)


@pytest.mark.parametrize("waiting", [True, False])
def test_a_normal_number_that_waits_is_kept(tmp_path: Path, waiting: bool) -> None:
    random.seed(3)
    np.random.seed(3)
    if waiting:  # both generators make normal numbers in pairs
        random.gauss(0.0, 1.0)
        np.random.randn()
    path = saved(built()[1], tmp_path / "a.safetensors")
    expected = [random.gauss(0.0, 1.0), random.gauss(0.0, 1.0), np.random.randn(), np.random.rand()]
    checkpoint.restore_rng(path)
    assert [random.gauss(0.0, 1.0), random.gauss(0.0, 1.0), np.random.randn(), np.random.rand()] == expected


def test_a_file_holds_nothing_but_fragments_and_random_states(tmp_path: Path) -> None:
    _, engine = built()
    train(engine, 1)
    tensors = load_file(saved(engine, tmp_path / "a.safetensors"))
    assert {key for key in tensors if key.startswith("rng|")} == {"rng|torch", "rng|numpy", "rng|python"}
    names = [f"{layer}.{part}" for layer in (0, 1, 3) for part in ("weight", "bias")]
    assert {key for key in tensors if not key.startswith("rng|")} == {
        f"fragment|{name}|0|{kind}" for name in names for kind in ("weight", "exp_avg", "exp_avg_sq")
    }


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no such folder" / "a.safetensors"
    with pytest.raises(ResourceError, match="a checkpoint cannot be written") as caught:
        saved(built()[1], path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_whole_parameters_are_shared_out_evenly(workers: int) -> None:
    sizes = [100, 64, 64, 30, 7, 7, 7, 1, 1]
    places = whole({torch.zeros(size): f"p{number}" for number, size in enumerate(sizes)})
    shares = [share(places, rank, workers) for rank in range(workers)]
    assert sorted(place.name for own in shares for place in own) == sorted(place.name for place in places)
    loads = [sum(place.size for place in own) for own in shares]
    assert max(loads) <= max(sum(sizes) / workers + 30, 100)
