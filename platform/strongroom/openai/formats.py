"""What form an answer must have: plain text, JSON, JSON of a schema, or a call of a tool."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import Field, PlainValidator, model_validator

from inference.language.requests import Constraint
from strongroom.openai import schemas
from strongroom.openai.problems import refusal
from strongroom.openai.requests import Document

Schema = Annotated[dict[str, Any], PlainValidator(schemas.check)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Description = Annotated[str, Field(max_length=16_384)]
Kind = Literal["text", "json_object", "json_schema"]


class NamedSchema(Document):
    """`strict` changes nothing: an answer fits its schema always."""

    name: Name
    definition: Schema = Field(alias="schema")
    description: Description | None = None
    strict: bool | None = None


class ResponseFormat(Document):
    """As chat completions ask for it."""

    type: Kind
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise refusal("missing_required_parameter", "is missing", "json_schema")
        if self.type != "json_schema" and self.json_schema is not None:
            raise refusal("invalid_value", f"may not be given with the type '{self.type}'", "json_schema")
        return self

    def constraint(self) -> Constraint | None:
        return constraint(self.type, None if self.json_schema is None else self.json_schema.definition)


class TextFormat(Document):
    """As responses ask for it: the schema beside its type."""

    type: Kind = "text"
    name: Name | None = None
    definition: Schema | None = Field(None, alias="schema")
    description: Description | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "json_schema":
            for name, value in (("name", self.name), ("schema", self.definition)):
                if value is None:
                    raise refusal("missing_required_parameter", "is missing", name)
            return self
        for name, given in (("schema", self.definition), ("name", self.name), ("description", self.description)):
            if given is not None:
                raise refusal("invalid_value", f"may not be given with the type '{self.type}'", name)
        return self

    def constraint(self) -> Constraint | None:
        return constraint(self.type, self.definition)


def constraint(kind: Kind, schema: dict[str, Any] | None) -> Constraint | None:
    if kind == "text":
        return None
    return Constraint(kind, "" if schema is None else orjson.dumps(schema).decode())
