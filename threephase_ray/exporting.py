"""Every knob of taking exported models further: ONNX, and a hub."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from threephase_ray.config import Job
from threephase_ray.machine import Compute, Section
from threephase_ray.predicting import Input


def _repository(name: str) -> str:
    """The name of a repository, as the hub takes it."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # here, since few configurations need it

    if name.count("/") != 1:
        raise ValueError("needs owner/name")
    validate_repo_id(name)
    return name


Repository = Annotated[str, AfterValidator(_repository)]


class Onnx(Section):
    """The classifier as an ONNX file, compared with PyTorch."""

    int8: bool = Field(False, description="also `model_int8.onnx`, with weights of 8 bits: a quarter of the size, less exact")
    texts: Input | None = Field(None, description="texts on which it is compared with PyTorch; none: a passage that comes along")
    rows: int = Field(256, ge=1, description="texts that are compared: the first ones")


class Push(Section):
    """Exported models sent to a hub. The token is no knob: it comes from HF_TOKEN or `hf auth login`."""

    repo: Repository | None = Field(None, description="owner/name of the repository for the classifier (empty: stays here)")
    encoder_repo: Repository | None = Field(None, description="owner/name of the repository for the encoder (empty: stays here)")
    private: bool = Field(True, description="make private repositories, and send nothing to one that is public")

    @model_validator(mode="after")
    def _goes_somewhere(self) -> "Push":
        if self.repo is None and self.encoder_repo is None:
            raise ValueError("needs `repo` or `encoder_repo`")
        return self


class ExportConfig(Job):
    """What is made of a run's exported models."""

    compute: Compute = Field(Compute(), description="machine: `cpus_per_worker` is the number of threads, the others have no effect")
    model: str = Field(min_length=1, description="a finished run's name, or its `model` folder: a path or a URI")
    onnx: Onnx | None = Field(Onnx(), description="the classifier as an ONNX file (null: none)")
    push: Push | None = Field(None, description="classifier and encoder sent to a hub; off unless a repository is named")

    @model_validator(mode="after")
    def _does_something(self) -> "ExportConfig":
        if self.onnx is None and self.push is None:
            raise ValueError("onnx, push: one of them must be asked for")
        return self
