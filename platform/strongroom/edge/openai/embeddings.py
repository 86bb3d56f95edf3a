"""The body of POST /v1/embeddings."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from strongroom.edge.openai import parameters, prompts
from strongroom.edge.openai.problems import refusal
from strongroom.edge.openai.prompts import Prompt
from strongroom.edge.openai.requests import Document, Tag

MOST_INPUTS = 2048


class EmbeddingsRequest(Document):
    """`input` has an entry for each vector. Whether the model can do `dimensions` is the handler's to know."""

    refused: ClassVar = parameters.EMBEDDINGS

    model: Annotated[str, Field(min_length=1, max_length=200)]
    input: Annotated[tuple[Prompt, ...], PlainValidator(partial(prompts.read, most=MOST_INPUTS))]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1, le=65_536)] = None
    user: Tag | None = None  # without effect

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "" in self.input:
            raise refusal("invalid_value", "must not be an empty text", "input", self.input.index(""))
        return self
