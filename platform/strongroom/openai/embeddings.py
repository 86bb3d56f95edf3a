"""The body of POST /v1/embeddings."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from strongroom.errors import FieldError, Invalid
from strongroom.openai import parameters, prompts
from strongroom.openai.problems import refusal
from strongroom.openai.prompts import Prompt
from strongroom.openai.requests import Document, Tag

MOST_INPUTS = 2048


class EmbeddingsRequest(Document):
    """`input` has an entry for each vector. Whether the model can do `dimensions` is known after it was asked."""

    refused: ClassVar = parameters.EMBEDDINGS

    model: Annotated[str, Field(min_length=1, max_length=200)]
    input: Annotated[tuple[Prompt, ...], PlainValidator(partial(prompts.read, most=MOST_INPUTS))]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1, le=65_536)] = None
    user: Tag | None = None  # without effect

    @property
    def texts(self) -> list[str]:
        """What is encoded; Invalid where tokens were given."""
        texts = [text for text in self.input if isinstance(text, str)]
        if len(texts) < len(self.input):
            message = "must be text: the model has a tokenizer of its own, and its tokens are none of the caller's"
            raise Invalid.all([FieldError("/input", "unsupported_value", message, None)])
        return texts

    def check_width(self, width: int) -> None:
        """Invalid where the vectors have another than was asked for."""
        if self.dimensions not in (None, width):
            message = f"must be {width} or left out: the model was not trained to be cut, is {self.dimensions}"
            raise Invalid.all([FieldError("/dimensions", "unsupported_value", message, None)])

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "" in self.input:
            raise refusal("invalid_value", "must not be an empty text", "input", self.input.index(""))
        return self
