"""The README of a folder with ONNX files: what they take and give, how they are used, how well they agree with PyTorch."""

from collections.abc import Mapping
from pathlib import Path

from transformers import AutoTokenizer

from threephase_ray.exports.agreement import Agreement
from threephase_ray.exports.graph import MODEL

CARD = """---
library_name: onnx
pipeline_tag: text-classification
---
# Text classifier, ONNX

Takes `input_ids` and `attention_mask`, int64 [texts, tokens], of any number of texts of up to {length} tokens. Gives `logits`,
float32 [texts, labels]; their softmax are the probabilities. `labels.json` has the labels in their order.

{agreement}

```python
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = "."  # this one
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation({length})
tokenizer.enable_padding(pad_id={pad_id}, pad_token="{pad_token}")
session = onnxruntime.InferenceSession(f"{{folder}}/{model}")
with open(f"{{folder}}/labels.json", encoding="utf-8") as file:
    labels = json.load(file)

found = tokenizer.encode_batch(["a text", "another, longer text"])
ids, mask = (np.array([getattr(each, part) for each in found], dtype=np.int64) for part in ("ids", "attention_mask"))
(logits,) = session.run(["logits"], {{"input_ids": ids, "attention_mask": mask}})
print([labels[number] for number in logits.argmax(axis=1)])
```
"""


def write(folder: Path, found: Mapping[str, Agreement]) -> None:
    """Write `README.md` into a folder that is otherwise whole; `found`: agreement of each file in it with PyTorch."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    said = "\n".join(f"- `{name}`: {each.said()}" for name, each in found.items())
    words = {"length": tokenizer.model_max_length, "pad_id": tokenizer.pad_token_id, "pad_token": tokenizer.pad_token}
    (folder / "README.md").write_text(CARD.format(agreement=said, model=MODEL, **words), encoding="utf-8")
