"""Tiny random checkpoints of several families, a data set for them, and a whole phase in this process."""

import itertools
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

from tests.unit import tiny
from threephase_ray import data, phases, pretrained
from threephase_ray.config import Config, Encoder
from threephase_ray.loader import DataSet
from threephase_ray.models import save
from threephase_ray.phases.spec import Phase
from threephase_ray.training import loop
from threephase_ray.training.engine import Engine, PlainEngine, Settings

CPU = torch.device("cpu")
torch.set_num_threads(1)  # more only slow down what is tiny
TOPICS = {
    "sport": ["ball", "team", "goal", "match", "coach", "play", "##ing", "##ed"],
    "money": ["bank", "stock", "price", "bond", "trade", "market", "##s", "##er"],
    "food": ["bread", "soup", "salt", "cook", "taste", "oven", "##ful", "##ly"],
}
STOP_WORDS = ["the", "of", "and", "with"]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
PAD_IS_1 = ("roberta", "mpnet")  # their positions start behind the padding token's id
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "type_vocab_size": 1},
    "electra": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "mpnet": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "deberta-v2": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
    },
    "modernbert": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        **dict.fromkeys(("bos_token_id", "cls_token_id"), 2),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), 3),
    },
}


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """WordPiece whose padding token has the id that the family expects."""
    order = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"] if family in PAD_IS_1 else list(SPECIAL.values())
    vocabulary = {piece: number for number, piece in enumerate([*order, *STOP_WORDS, *itertools.chain(*TOPICS.values())])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **SPECIAL)


def checkpoint(folder: Path, family: str, **changes: Any) -> Encoder:
    """A random checkpoint with tokenizer; its large weights make texts differ much."""
    words = tokenizer(family)
    facts = {"vocab_size": len(words), "initializer_range": 0.2, "max_position_embeddings": 40, "pad_token_id": words.pad_token_id}
    config = AutoConfig.for_model(family, **FAMILIES[family] | facts | changes)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return Encoder(path=str(folder))


def text(rng: random.Random, topic: str, words: int) -> str:
    """A text of a topic: some of its words with endings, some stop-words."""
    stems = [piece for piece in TOPICS[topic] if not piece.startswith("##")]
    endings = ["", *(piece[2:] for piece in TOPICS[topic] if piece.startswith("##"))]
    return " ".join(rng.choice([rng.choice(STOP_WORDS), rng.choice(stems) + rng.choice(endings)]) for _ in range(words))


def texts(count: int, longest: int = 12, seed: int = 0) -> list[tuple[str, str]]:
    """Texts and their topics, the first topic twice as often as each other."""
    rng, topics = random.Random(seed), [next(iter(TOPICS)), *TOPICS]  # noqa: S311
    return [(text(rng, topics[i % len(topics)], rng.randint(3, longest)), topics[i % len(topics)]) for i in range(count)]


def prepared(folder: Path, encoder: Encoder) -> DataSet:
    """A small data set, tokenised for the encoder."""
    source = folder / "source"
    for seed, (split, count) in enumerate({"train": 40, "validation": 12, "test": 12}.items()):
        tiny.write_csv(source / f"{split}.csv", texts(count, seed=seed))
    words, limit = pretrained.load_tokenizer(encoder)
    return DataSet(data.prepare(configured(encoder, source=str(source)).data, words, limit, tiny.opened(folder / "store"), seed=0))


def configured(encoder: Encoder, source: str = "unused", **knobs: Any) -> Config:
    """A configuration of a few small steps; `knobs` are sections, whose values win."""
    short = {"steps": 3, "batch": 12, "learning_rate": 3e-3, "validations": 2}
    sections = {name: short | knobs.pop(name, {}) for name in ("dae", "contrastive", "joint")}
    sections["finetune"] = short | {"head_start": "random", "head_learning_rate": 1e-3} | knobs.pop("finetune", {})
    encoder_knobs = encoder.model_dump() | knobs.pop("encoder", {})
    return Config(name="tiny", data={"source": source}, encoder=encoder_knobs, compute={"precision": "fp32"}, **sections, **knobs)


class Unsaved:
    """A keeper for phases that are not to be resumed."""

    def wishes(self) -> tuple[bool, bool, bool]:
        return False, False, False

    def save(self, engine: Engine, course: loop.Course, last: bool) -> None:
        raise AssertionError("nothing asked for a checkpoint")


def setting(phase: Phase, model: nn.Module, **changes: Any) -> loop.Setting:
    """What a phase needs to train on the plain engine; `changes` are fields of it."""
    how = Settings(stage=0, precision="fp32", clip=1.0, epsilon=1e-8, micros=1)
    fields = {"report": lambda event: None, "keeper": Unsaved(), "engine": PlainEngine(model, phase.groups(model), CPU, how)} | changes
    return loop.Setting(name=phase.name, phase=phase, model=model, device=CPU, micro=32, **fields)


def trained(name: str, config: Config, data_set: DataSet, previous: Path | None, folder: Path) -> tuple[Phase, nn.Module, loop.Course]:
    """Train a phase on the plain engine and save what it hands over to `folder`."""
    torch.manual_seed(0)
    phase = phases.build(name, config, data_set)
    model, course = phase.model(previous), loop.Course()
    loop.train(setting(phase, model), course)
    folder.mkdir(parents=True)
    save(phase.hand_over(model), course.weights, folder)
    return phase, model, course
