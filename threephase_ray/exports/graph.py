"""An exported classifier, in either of its stock formats, as a folder with ONNX files that needs neither PyTorch nor this project."""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from threephase_ray.errors import JobError
from threephase_ray.export import LABELS
from threephase_ray.models import Embedder
from threephase_ray.predictions import classifier

MODEL, INT8 = "model.onnx", "model_int8.onnx"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"


class _Network(nn.Module):
    """Logits [b, k] of token ids and attention mask [b, t]. The softmax is left to who uses them, as in stock classifiers."""

    def __init__(self, embedder: Embedder, head: nn.Module) -> None:
        super().__init__()
        self.embedder, self.head = embedder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedder(input_ids, attention_mask.bool()))
        return logits


def write(model: Path, folder: Path, *, int8: bool) -> None:
    """Write the classifier in `model` as ONNX, with tokenizer, labels and configuration, into an empty folder.

    Raises:
        JobError: PyTorch cannot write a network of this family.
    """
    embedder, head, labels = classifier.load(model / "classifier")
    _trace(embedder, head, folder / MODEL)
    if int8:
        _quantize(folder / MODEL, folder / INT8)
    config = copy.deepcopy(embedder.encoder.config)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: number for number, label in enumerate(labels)}
    config.save_pretrained(folder)
    (folder / LABELS).write_text(json.dumps(labels, indent=1, ensure_ascii=False), encoding="utf-8")
    AutoTokenizer.from_pretrained(model / "classifier", trust_remote_code=False).save_pretrained(folder)


def _trace(embedder: Embedder, head: nn.Module, path: Path) -> None:
    """The network as a graph for any number of texts of any length; padded, since its own attention is for PyTorch alone."""
    if embedder.packs:
        embedder.packs = False
        embedder.encoder.set_attn_implementation("sdpa")
    ids, mask = torch.ones(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    try:
        with _quiet():
            torch.onnx.export(
                _Network(embedder, head).eval(),
                (ids, mask),
                path,
                input_names=INPUTS,
                output_names=[OUTPUT],
                dynamic_shapes=dict.fromkeys(INPUTS, axes),
                dynamo=True,
                external_data=False,  # all in one file up to 1.5 GB; beyond that the weights come to lie beside it
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        kind, reason = embedder.encoder.config.model_type, str(error).strip().splitlines()[0][:200]
        raise JobError(f"onnx: PyTorch cannot write a {kind} classifier as ONNX\n  {reason}") from error


def _quantize(path: Path, out: Path) -> None:
    """Weights as 8-bit integers; what they are multiplied with becomes so at run time, by its own range."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # an extra

    beside = path.with_name(f"{path.name}.data").exists()
    with _quiet():  # it advises a preparation that changes nothing here
        quantize_dynamic(path, out, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=beside)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about the inner workings of PyTorch and ONNX Runtime; what is wrong with the files is found by comparing."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
