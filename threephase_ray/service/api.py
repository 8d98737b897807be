"""The application itself, without Ray: what requests must be, and what is answered."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator
from starlette.requests import Request

from threephase_ray import __version__
from threephase_ray.predictions.classifier import Floats
from threephase_ray.predictions.work import SCORED, state_of
from threephase_ray.serving import Limits

Score = Callable[[list[str]], Awaitable[Floats]]  # n texts -> probabilities [n, k]
_SHOWN = 200  # characters of a reason


def _characters(text: str) -> str:
    """The text; a ValueError where a JSON escape in it is no character."""
    text.encode()
    return text


class Question(BaseModel):
    """A request. A bad one is left at its first error: a body has room for half a million of them, each with its report."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: Annotated[list[Annotated[str, AfterValidator(_characters)]], Field(min_length=1), FailFast()]
    top: int = Field(1, ge=1, description="labels that are named with their probabilities, the likeliest first")

    @model_validator(mode="before")
    @classmethod
    def _has_no_other_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.keys() - cls.model_fields.keys():
            raise ValueError("has fields other than `texts` and `top`")
        return given


class Likely(BaseModel):
    """A label with its probability."""

    label: str
    probability: float


class Prediction(BaseModel):
    """What is said of a text."""

    label: str | None = Field(description="null where the text was not scored")
    probability: float | None
    state: str = Field(description="scored, empty, or undecodable: with U+FFFD in it")
    top: list[Likely] = Field([], description="left out unless more than one was asked for")


class Answer(BaseModel):
    """Predictions in the order of the texts."""

    predictions: list[Prediction]


class Facts(BaseModel):
    """What is served."""

    labels: list[str]
    model: str = Field(description="SHA-256 over the files of the exported model")


class Health(BaseModel):
    """The model has just scored a text."""

    status: Literal["ok"] = "ok"


def build(score: Score, facts: Facts, limits: Limits) -> FastAPI:
    """The application around what scores texts."""
    made = FastAPI(title="threephase-ray", version=__version__, docs_url=None, redoc_url=None)  # pages that load scripts from elsewhere
    made.add_exception_handler(RequestValidationError, _misunderstood)

    @made.post("/predict", response_model_exclude_unset=True)
    async def predict(question: Question) -> Answer:
        """The likeliest label of each text."""
        _refuse_if_large(question, limits)
        texts = [text.strip() for text in question.texts]
        states = [state_of(text) for text in texts]
        scored = await score([text for text, state in zip(texts, states, strict=True) if state == SCORED])
        return _answer(states, scored, facts.labels, question.top)

    @made.get("/labels")
    async def labels() -> Facts:
        """The labels, and which model gives them."""
        return facts

    @made.get("/healthz")
    async def healthz() -> Health:
        """Whether the model answers."""
        await score(["health"])
        return Health()

    return made


def _refuse_if_large(question: Question, limits: Limits) -> None:
    """Raise 413 where there are too many texts, or one is too long."""
    if len(question.texts) > limits.texts:
        raise HTTPException(413, f"texts: {len(question.texts)} are more than {limits.texts}")
    for number, text in enumerate(question.texts):
        if len(text) > limits.characters:
            raise HTTPException(413, f"texts.{number}: {len(text)} characters are more than {limits.characters}")


async def _misunderstood(_: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, first of all; names in it are the client's, and may hold anything."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = f"{place}: {first['msg'].removeprefix('Value error, ')}"[:_SHOWN].encode("ascii", "backslashreplace").decode()
    return JSONResponse({"detail": reason}, 422)


def _answer(states: list[str], scored: Floats, labels: list[str], top: int) -> Answer:
    """What the probabilities [m, k] of the m texts that were scored say."""
    rows = iter(scored)
    unsaid = (Prediction(label=None, probability=None, state=state) for state in states)
    return Answer(predictions=[_said(next(rows), labels, top) if each.state == SCORED else each for each in unsaid])


def _said(row: Floats, labels: list[str], top: int) -> Prediction:
    """What the probabilities [k] of one text say."""
    likely = [Likely(label=labels[kind], probability=float(row[kind])) for kind in np.argsort(-row, kind="stable")[:top]]
    more = {"top": likely} if top > 1 else {}
    return Prediction(label=likely[0].label, probability=likely[0].probability, state=SCORED, **more)
