"""The ONNX folder: written, compared with PyTorch, sealed, and only then put in its place."""

import shutil
from pathlib import Path

import torch

from threephase_ray import console, pretrained, sums
from threephase_ray.errors import JobError
from threephase_ray.exports import agreement, card, graph
from threephase_ray.results import Store

TOLERANCE = 1e-4  # between probabilities of ONNX and of PyTorch


def deliver(model: Path, told: list[str], store: Store, name: str, *, int8: bool, threads: int) -> None:
    """Make the folder `onnx` of an export from a `model` folder; `told`: the texts to compare on.

    Raises:
        JobError: ONNX does not say what PyTorch says; what was there before stays.
    """
    pretrained.quiet()
    torch.set_num_threads(threads)
    made, folder = store.attempt(name, 0), f"{name}/onnx"
    try:
        graph.write(model, made, int8=int8)
        card.write(made, check(made, model, told))
        sums.seal(made)
        store.storage.remove(folder)
        shutil.rmtree(store.place(folder), ignore_errors=True)  # of an earlier export, on its way to an object store
        made.rename(store.place(folder))
    finally:
        store.discard(name, 0)
    store.put(store.place(folder), folder)
    console.console.print(f"ONNX: {store.storage.uri}/{folder}", highlight=False, soft_wrap=True)


def check(made: Path, model: Path, told: list[str]) -> dict[str, agreement.Agreement]:
    """How well each ONNX file agrees with PyTorch.

    Raises:
        JobError: the one in full precision does not.
    """
    reference, names = agreement.expected(model, told), sorted(path.name for path in made.glob("*.onnx"))
    found = {name: agreement.measure(made, name, told, reference) for name in names}
    for name, each in found.items():
        console.console.print(f"{name}: {each.said()}", highlight=False, soft_wrap=True)
    if not found[graph.MODEL].difference <= TOLERANCE:  # so that what is not a number is none, too
        raise JobError(
            f"onnx: {graph.MODEL} does not say what PyTorch says: {found[graph.MODEL].said()}\n"
            f"  {TOLERANCE} is allowed; nothing was written: try other versions of torch and onnxruntime"
        )
    return found
