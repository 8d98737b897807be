"""Three phases with stock libraries, as `demo.py` describes them: `python benchmarks/stock_recipe.py RECIPE.json FOLDER`.

Denoising autoencoder and contrastive pairs (CosineSimilarityLoss; a step encodes as many texts as ours) with sentence-transformers'
trainer, classifier with Hugging Face's Trainer, then the test split. Written as their documentation does it.
"""

import json
import random
import sys
from typing import Any

import numpy as np
import peers
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from threephase_ray import demo

QUIET = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}


def asked(kind: Any, folder: str, knobs: dict[str, Any], batch: int) -> Any:
    """A trainer's settings."""
    steps = {"max_steps": knobs["steps"], "warmup_steps": knobs["steps"] // 10, "learning_rate": knobs["rate"]}
    return kind(folder, per_device_train_batch_size=batch, **steps, **QUIET)


def half_deleted(rng: random.Random, text: str) -> str:
    """A text of which 60 % of the words are gone."""
    kept = [word for word in text.split() if rng.random() > 0.6]
    return " ".join(kept or text.split()[:1])


def pairs(rng: random.Random, texts: list[str], labels: list[int], count: int) -> Dataset:
    """Pairs of one class and of two, in equal shares."""
    rows: dict[str, list[Any]] = {"one": [], "other": [], "label": []}
    while len(rows["label"]) < count:
        first, second = rng.sample(range(len(texts)), 2)
        if (labels[first] == labels[second]) == (len(rows["label"]) % 2 == 0):
            for name, value in zip(rows, (texts[first], texts[second], float(labels[first] == labels[second])), strict=True):
                rows[name].append(value)
    return Dataset.from_dict(rows)


def main(recipe: str, folder: str) -> None:
    """All three phases."""
    with open(recipe, encoding="utf-8") as file:  # noqa: PTH123
        facts = json.load(file)
    texts, labels = facts["train"]
    rng = random.Random(0)  # noqa: S311
    network = peers.denoising(demo.encoder(), "mean")
    model: SentenceTransformer = network.encoder
    model.max_seq_length = facts["length"]
    noisy = Dataset.from_dict({"noisy": [half_deleted(rng, text) for text in texts], "text": texts})
    arguments = asked(SentenceTransformerTrainingArguments, folder, facts["dae"], facts["dae"]["batch"])
    SentenceTransformerTrainer(model, arguments, noisy, loss=network).train()

    encoded = facts["contrastive"]["batch"] // 2
    rows = pairs(rng, texts, labels, encoded * facts["contrastive"]["steps"])
    arguments = asked(SentenceTransformerTrainingArguments, folder, facts["contrastive"], encoded)
    SentenceTransformerTrainer(model, arguments, rows, loss=CosineSimilarityLoss(model)).train()
    model[0].auto_model.save_pretrained(f"{folder}/encoder")

    tokenizer = AutoTokenizer.from_pretrained(demo.encoder())
    sides = [
        Dataset.from_dict(dict(tokenizer(split[0], truncation=True, max_length=facts["length"])) | {"labels": split[1]})
        for split in (facts[name] for name in ("train", "validation", "test"))
    ]
    classifier = AutoModelForSequenceClassification.from_pretrained(f"{folder}/encoder", num_labels=len(facts["labels"]))
    arguments = asked(TrainingArguments, folder, facts["finetune"], facts["finetune"]["batch"])
    trainer = Trainer(classifier, arguments, DataCollatorWithPadding(tokenizer), *sides[:2])
    trainer.train()
    found = trainer.predict(sides[2])
    print("accuracy", float(np.mean(found.predictions.argmax(axis=1) == found.label_ids)))
    trainer.save_model(f"{folder}/classifier")


if __name__ == "__main__":
    main(*sys.argv[1:])
