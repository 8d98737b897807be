"""Whether ONNX files say what PyTorch says, on texts of various lengths in batches of various sizes."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from transformers import AutoTokenizer

from threephase_ray.exports.graph import INPUTS, OUTPUT
from threephase_ray.predictions.classifier import Floats, TextClassifier

_BATCHES = (1, 2, 5, 16)  # texts in a forward pass, in turn


@dataclass(frozen=True)
class Agreement:
    """Of some texts: the largest difference between two probabilities, and the share with the same likeliest label."""

    texts: int
    difference: float
    same_label: float

    def said(self) -> str:
        """In words."""
        label = f"the same label for {100 * self.same_label:.1f} % of {self.texts} texts"
        return f"probabilities differ from PyTorch's by {self.difference:.1e} at most, {label}"


def expected(model: Path, told: Sequence[str]) -> Floats:
    """Probabilities [n, k] of the texts as prediction in bulk computes them, on the CPU."""
    return TextClassifier(model, torch.device("cpu")).score(told).probabilities


def measure(folder: Path, name: str, told: Sequence[str], reference: Floats) -> Agreement:
    """How well the file `name` of an ONNX folder agrees with probabilities [n, k], computed with the folder's own tokenizer."""
    found = _probabilities(folder, name, told)
    same = found.argmax(axis=1) == reference.argmax(axis=1)
    return Agreement(len(told), float(np.abs(found - reference).max()), float(same.mean()))


def _probabilities(folder: Path, name: str, told: Sequence[str]) -> Floats:
    """Probabilities [n, k] by ONNX Runtime."""
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    parts = []
    for batch in _batches(told):
        found = tokenizer(batch, padding=True, truncation=True, return_tensors="np")
        (logits,) = session.run([OUTPUT], {part: found[part].astype(np.int64) for part in INPUTS})
        parts.append(softmax(logits, axis=1))
    return np.concatenate(parts)


def _batches(told: Sequence[str]) -> Iterator[list[str]]:
    """The texts in turn, in parts of various sizes."""
    rest = iter(told)
    for size in itertools.cycle(_BATCHES):
        if not (batch := list(itertools.islice(rest, size))):
            return
        yield batch
