"""Every knob of prediction in bulk."""

from typing import Literal

from pydantic import Field

from threephase_ray.config import Job
from threephase_ray.machine import Section


class Input(Section):
    """The texts to score."""

    files: str = Field(min_length=1, description="file, folder, glob or fsspec URI: CSV, TSV, JSONL, Parquet, perhaps compressed")
    text_column: str = Field("text", description="column with the text; all others are handed on as they are")
    encoding: str = Field("utf-8", description="encoding of CSV, TSV and JSONL files")


class Output(Section):
    """What is written beside the columns that came in."""

    prefix: str = Field("predicted_", pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="of the new columns' names")
    top: int | None = Field(1, ge=1, description="labels that are named with their probabilities, the likeliest first (empty: all)")
    embedding: bool = Field(False, description="also the text's embedding, as `model/encoder` gives it")
    abstain_below: float | None = Field(None, gt=0, le=1, description="no label where the likeliest one has a smaller probability")
    shard_rows: int = Field(10_000, ge=1, description="rows of one file that is written; at most one is lost when the job is killed")


class Scoring(Job):
    """What every use of a finished classifier has."""

    model: str = Field(min_length=1, description="a finished run's name, or its `model` folder: a path that all nodes have, or a URI")
    long_texts: Literal["truncate", "split"] = Field(
        "truncate",
        description="what exceeds the model's length is cut off, or split into pieces whose probabilities are averaged by length",
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="tokens in one forward pass, of texts of like length (empty: 8192 on a GPU, 1024 on a CPU)"
    )


class PredictConfig(Scoring):
    """Scoring of any number of files with a finished classifier."""

    input: Input = Field(description="texts")
    output: Output = Field(Output(), description="results")
