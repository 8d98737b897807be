"""The job: what is asked for is looked at first, then ONNX is written, then models are sent to a hub."""

import importlib.util
from pathlib import Path

from threephase_ray import console
from threephase_ray.errors import ConfigError
from threephase_ray.exporting import ExportConfig
from threephase_ray.exports import hub
from threephase_ray.exports.texts import texts
from threephase_ray.predictions.fetching import fetched, place
from threephase_ray.results import Store

PACKAGES = ("onnx", "onnxruntime", "onnxscript")  # an extra


def export(config: ExportConfig, dry_run: bool = False) -> None:
    """Do what is asked for.

    Raises:
        JobError: with what is wrong, where, and what to do.
    """
    store, folder = Store(config.store, config.scratch), f"exports/{config.name}"
    model = fetched(place(config.model, store), config.scratch)
    parcels = hub.parcels(config.push, model)
    told = texts(config.onnx) if config.onnx else []
    if config.onnx:
        check_installed()
    show(config, model, parcels, len(told), f"{store.storage.uri}/{folder}/onnx")
    if dry_run:
        return
    if config.onnx:
        from threephase_ray.exports.files import deliver  # here, so that a plan and a push need no PyTorch
        from threephase_ray.pipeline import alone

        with alone(store, folder):
            deliver(model, told, store, folder, int8=config.onnx.int8, threads=max(1, int(config.compute.cpus_per_worker)))
    for parcel in parcels:
        assert config.push
        console.console.print(f"sent: {hub.send(parcel, private=config.push.private)}", highlight=False, soft_wrap=True)


def check_installed() -> None:
    """Raise a ConfigError where what writes and runs ONNX is missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f'onnx: needs {", ".join(missing)}; run: pip install "threephase-ray[onnx]"\n  or go without: --onnx null')


def show(config: ExportConfig, model: Path, parcels: list[hub.Parcel], count: int, where: str) -> None:
    """Say what will be done."""
    lines = [["model", str(model)]]
    if config.onnx:
        lines += [["ONNX", where], ["int8", "yes" if config.onnx.int8 else "no"], ["texts to compare on", f"{count:,}"]]
    if config.push:
        kind = "private" if config.push.private else "public"
        lines += [[f"{parcel.folder.name} to", f"{parcel.repo} ({kind} if it is new)"] for parcel in parcels]
    console.table("export", ["", ""], lines)
