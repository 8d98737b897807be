"""Every knob: name, default, range, meaning."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from threephase_ray.machine import Checkpoint, Compute, Section
from threephase_ray.subsetting import Rows, Words
from threephase_ray.tracking import Tracking

Policy = Literal["error", "drop", "keep"]
PhaseName = Literal["dae", "contrastive", "joint", "finetune"]


class Checks(Section):
    """What happens to rows that look wrong; every kind is counted and reported, whatever the policy."""

    empty_text: Policy = Field("drop", description="texts without a visible character")
    bad_encoding: Policy = Field("drop", description="texts with bytes that `data.encoding` cannot decode; `keep` replaces them by U+FFFD")
    missing_label: Policy = Field("drop", description="rows of a labelled split without a label; `keep` lets phase 1 read their texts")
    duplicate: Policy = Field("keep", description="rows repeating text and label of an earlier row of the same split")
    conflicting_label: Policy = Field("keep", description="texts that carry two labels; `drop` removes them from the training split")
    overlap: Policy = Field("keep", description="texts that occur in two splits; `drop` removes them from the training split")
    single_row_class: Policy = Field("keep", description="classes with one training row")
    unseen_label: Policy = Field("keep", description="labels that the training split lacks; rows that are kept count as errors")


class Data(Section):
    """Where the texts are and how they are read."""

    source: str | None = Field(None, description="file, folder with a file per split, glob, fsspec URI, hub id, or demo:reuters-r8")
    train: str | None = Field(None, description="training split: file, folder, glob or URI; a split's name where `source` is a hub id")
    validation: str | None = Field(None, description="validation split, as `train`; none: drawn from the training split")
    test: str | None = Field(None, description="test split, as `train`; none: drawn from the training split")
    unlabelled: str | None = Field(None, description="further texts for phase 1: file, folder, glob or URI")
    text_column: str = Field("text", description="column with the text")
    label_columns: tuple[str, ...] = Field(("label",), min_length=1, description="label column, or several from coarse to fine (Eq. 2)")
    encoding: str = Field("utf-8", description="encoding of CSV, TSV and JSONL files")
    validation_share: float = Field(0.2, gt=0, lt=1, description="share drawn where there is no validation split")
    test_share: float = Field(0.2, gt=0, lt=1, description="share drawn where there is no test split")
    rows: Rows = Field(Rows(), description="subset of each split")
    words: Words = Field(
        None, description="use only texts of so many words between blanks, [least, most], in every split; most null: no limit"
    )
    max_length: int | None = Field(
        None, ge=8, description="tokens kept of a text (empty: longest of a sample times 1.2, capped by the model)"
    )
    shard_rows: int = Field(100_000, ge=1, description="rows in one Arrow file of the prepared data set")
    checks: Checks = Field(Checks(), description="what to do with doubtful rows")

    @model_validator(mode="after")
    def _has_texts(self) -> "Data":
        if self.source is None and self.train is None:
            raise ValueError("needs `source` or `train`: the path, URI or hub id of the labelled texts")
        return self


class Encoder(Section):
    """The pretrained transformer."""

    path: str = Field(min_length=1, description="folder, hub id, or demo:all-minilm-l6-v2")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    pooling: Literal["auto", "cls", "mean"] = Field("auto", description="tokens to embedding; auto: the checkpoint's own, else cls")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout inside the encoder (empty: the checkpoint's)")


class Training(Section):
    """Optimisation of one phase: AdamW with linear warm-up and linear decay."""

    epochs: float = Field(1.0, gt=0, description="passes over the phase's epoch")
    steps: int | None = Field(None, ge=1, description="optimiser steps (empty: as `epochs` says)")
    batch: int | None = Field(None, ge=1, description="texts (pairs, if sampled) per step (empty: compute.global_batch)")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="peak learning rate of the encoder")
    head_learning_rate: float | None = Field(None, gt=0, le=1, description="peak learning rate of new layers (empty: the encoder's)")
    warmup_share: float = Field(0.1, ge=0, le=1, description="share of the steps with rising learning rate")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay; biases and norms have none")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    validations: int = Field(5, ge=1, description="evenly spaced validations; the best one's weights are kept")
    patience: int | None = Field(None, ge=1, description="stop after so many validations without a better one (empty: never)")
    min_steps: int = Field(0, ge=0, description="early stopping acts only after so many steps")
    layer_decay: float = Field(1.0, gt=0, le=1, description="share of the layer above's learning rate that an encoder layer has")


class Representation(Training):
    """Optimisation of a phase that leaves an encoder to the next one."""

    keep: Literal["always", "better"] = Field(
        "always", description="better: drop its weights where they lower the validation accuracy of logistic regression on the embeddings"
    )


class DAE(Representation):
    """Phase 1: adapt the encoder by reconstructing texts from their noisy versions."""

    objective: Literal["denoising", "mlm", "permutation"] = Field(
        "denoising", description="rebuild the text from one vector, its masked tokens, or the last tokens of a random order, one by one"
    )
    noise: Literal["word_deletion", "token_deletion", "masking"] = Field(
        "word_deletion", description="how a text is corrupted; mlm and permutation take whole words (word_deletion) or tokens (the others)"
    )
    noise_ratio: float = Field(0.6, gt=0, lt=1, description="share of the words or tokens that is deleted, masked, or last in the order")
    decoder: Literal["auto", "tied", "fresh"] = Field(
        "auto", description="the checkpoint's causal class with tied weights, or a small new one"
    )
    decoder_layers: int = Field(1, ge=1, le=12, description="layers of a fresh decoder")


class SupervisedContrastive(Section):
    """Supervised contrastive loss over every pair of the batch (Khosla et al. 2020), times its temperature."""

    name: Literal["supervised_contrastive"] = "supervised_contrastive"
    temperature: float = Field(0.05, gt=0, le=10, description="softness of the contrast (supervised_contrastive)")


class CosineRegression(Section):
    """Squared error between pair label and cosine (Eq. 3)."""

    name: Literal["cosine_regression"] = "cosine_regression"
    pairs: Literal["batch", "sampled"] = Field("batch", description="every pair of the batch, or unique balanced pairs (cosine_regression)")


class Imbalance(Section):
    """Imbalance correction by log-oversampling (Eq. 4-6)."""

    min_ratio: float = Field(1.5, ge=1, description="classes with a smaller ratio keep their size")
    max_ratio: float = Field(4.0, ge=1, description="log-oversampling factor: the ratio of a class with one row; 1 with min_ratio 1: none")
    stop_word_deletion: float = Field(0.5, ge=0, le=1, description="share of the stop-words that a copy loses")


class Contrastive(Representation):
    """Phase 2: draw each class together."""

    batch: int | None = Field(48, ge=2, description="texts per step (sampled pairs: pairs per step)")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak learning rate of the encoder")
    loss: Annotated[SupervisedContrastive | CosineRegression, Field(discriminator="name")] = Field(
        SupervisedContrastive(), description="contrastive loss"
    )
    sampling: Literal["uniform", "corrected"] = Field("uniform", description="classes drawn alike, or by their corrected sizes")
    texts_per_class: int = Field(4, ge=2, description="texts of each class drawn into a batch")
    imbalance: Imbalance = Field(Imbalance(), description="imbalance correction")


class Joint(Representation):
    """Phases 1 and 2 as one loss (Eq. 10); noise and contrast as in `dae` and `contrastive`."""

    batch: int | None = Field(48, ge=2, description="texts per step")


class FineTune(Training):
    """Phase 3: train the classifier."""

    batch: int | None = Field(16, ge=1, description="texts per step")
    epochs: float = Field(3.0, gt=0, description="passes over the training split")
    head_learning_rate: float | None = Field(1e-4, gt=0, le=1, description="peak learning rate of the head (empty: the encoder's)")
    patience: int | None = Field(5, ge=1, description="stop after so many validations without a better one (empty: never)")
    min_steps: int = Field(250, ge=0, description="early stopping acts only after so many steps")
    validations: int = Field(10, ge=1, description="evenly spaced validations; the best one's weights are kept")
    head: Literal["mlp", "logistic"] = Field(
        "mlp", description="two-layer head trained with the encoder, or logistic regression on embeddings"
    )
    head_start: Literal["logistic", "random"] = Field(
        "logistic", description="where head mlp starts: at logistic regression on the embeddings, or anywhere"
    )
    head_dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the head")
    freeze_encoder: bool = Field(False, description="train the head alone")
    class_weight: Literal["none", "balanced"] = Field("none", description="rows count alike, or inversely to the size of their class")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread evenly over all classes (head mlp)")
    contrastive_weight: float = Field(0.0, ge=0, lt=1, description="share of a supervised contrastive loss in the loss (head mlp)")
    contrastive_temperature: float = Field(0.1, gt=0, le=10, description="softness of that contrast")

    @model_validator(mode="after")
    def _losses_have_something_to_train(self) -> "FineTune":
        if self.head == "logistic" and (self.label_smoothing or self.contrastive_weight):
            raise ValueError("label_smoothing, contrastive_weight: logistic regression has a loss of its own; set head to mlp")
        if self.freeze_encoder and self.contrastive_weight:
            raise ValueError("contrastive_weight: a frozen encoder learns nothing from it; set it to 0")
        return self


class Baseline(FineTune):
    """Plain fine-tuning of the pretrained encoder, without other phases, to compare with."""

    learning_rate: float = Field(3e-4, gt=0, le=1, description="peak learning rate of the encoder")
    head_learning_rate: float | None = Field(None, gt=0, le=1, description="peak learning rate of the head (empty: the encoder's)")
    head_start: Literal["logistic", "random"] = Field("random", description="where head mlp starts: as is usual, or as in phase 3")
    same_budget: bool = Field(True, description="steps: as many passes of texts through the encoder as all phases cost together")


class Job(BaseSettings):
    """What every job has."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?$", description="the run: small letters, digits and dashes, at most 47")
    store: str = Field("store", min_length=1, description="for data sets, phases, runs: a folder that all nodes share, or a URI (s3://...)")
    scratch: str = Field("~/.cache/threephase-ray", min_length=1, description="folder of each node for copies of what a URI holds")
    compute: Compute = Field(Compute(), description="machine")

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Take values from the merged files and flags alone, never from the environment."""
        return (init_settings,)


class Config(Job):
    """One run."""

    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    phases: tuple[PhaseName, ...] = Field(("dae", "contrastive", "finetune"), min_length=1, description="what to train, in this order")
    data: Data = Field(description="texts")
    encoder: Encoder = Field(description="pretrained encoder")
    dae: DAE = Field(DAE(), description="phase 1")
    contrastive: Contrastive = Field(Contrastive(), description="phase 2")
    joint: Joint = Field(Joint(), description="phases 1 and 2 as one loss")
    finetune: FineTune = Field(FineTune(), description="phase 3")
    baseline: Baseline | None = Field(None, description="plain fine-tuning of the pretrained encoder, to compare with")
    predict: Literal["test", "validation"] = Field(
        "test", description="split that finished classifiers predict; validation: the test split stays unread, while one still chooses"
    )
    calibrate: bool = Field(
        True, description="divide the logits of finished classifiers by the temperature that fits validation best; labels stay as they are"
    )
    probe: bool = Field(True, description="look at the embeddings before and after each phase, on validation (10,000 rows at most)")
    checkpoint: Checkpoint = Field(Checkpoint(), description="saving in the middle of a phase")
    skip_nonfinite: int = Field(0, ge=0, description="steps of a phase whose loss or gradient is not finite that are left out, not fatal")
    tracking: Tracking = Field(Tracking(), description="experiment tracking")

    @model_validator(mode="after")
    def _phases_fit_together(self) -> "Config":
        if len(set(self.phases)) != len(self.phases):
            raise ValueError(f"phases: {', '.join(self.phases)} names a phase twice")
        if "finetune" in self.phases[:-1]:
            raise ValueError("phases: finetune must be the last one")
        for name, batch in (("contrastive", self.contrastive.batch), ("joint", self.joint.batch)):
            if batch is not None and batch < 2 * self.contrastive.texts_per_class:
                raise ValueError(f"{name}.batch: must hold at least two groups of contrastive.texts_per_class texts")
        return self
