"""The messages of a chat, as the chat template reads them: a role, a text, calls of tools and what they answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import FailFast, Field, PlainValidator, model_validator

from strongroom.openai import parameters
from strongroom.openai.problems import refusal, shown
from strongroom.openai.requests import Document

MOST_MESSAGES = 2048
MOST_PARTS = 1024
MOST_CALLS = 128
Turn = dict[str, Any]
CHAT_PARTS = {"text": "text", "refusal": "refusal"}
RESPONSE_PARTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
WITHOUT_EFFECT = frozenset({"annotations", "logprobs"})  # of a part that we answered and that comes back


def text_of(given: Any, kinds: Mapping[str, str]) -> str:
    """A text, or parts of text as lines of one. `kinds` has the field of each kind of part that holds its text."""
    if type(given) is str:
        return given
    if type(given) is not list:
        raise refusal("invalid_type", f"must be a text or a list of parts, is {shown(given)}")
    if not given:
        raise refusal("empty_array", "must have at least 1 part, has 0")
    if len(given) > MOST_PARTS:
        raise refusal("array_above_max_length", f"must have at most {MOST_PARTS} parts, has {len(given)}")
    return "\n".join([_part(part, kinds, index) for index, part in enumerate(given)])


def _part(part: Any, kinds: Mapping[str, str], index: int) -> str:
    if type(part) is not dict:
        raise refusal("invalid_type", f"must be an object, is {shown(part)}", index)
    kind = part.get("type")
    field = kinds.get(kind) if type(kind) is str else None
    if field is None:
        if type(kind) is str and kind in parameters.PARTS:
            raise refusal("unsupported_value", f"{kind!r} is not supported: {parameters.PARTS[kind]}", index, "type")
        listed = ", ".join(f"'{known}'" for known in kinds)
        raise refusal("invalid_value", f"must be one of {listed}, is {shown(kind)}", index, "type")
    text = part.get(field)
    if type(text) is not str:
        raise refusal("invalid_type", f"must be a text, is {shown(text)}", index, field)
    for name, value in part.items():
        if name not in ("type", field) and name not in WITHOUT_EFFECT and value is not None:
            raise refusal("unknown_parameter", "is not a known parameter", index, name)
    return text


def _content(kinds: Mapping[str, str]) -> Callable[[Any], str]:
    return partial(text_of, kinds=kinds)


Content = Annotated[str, PlainValidator(_content(CHAT_PARTS))]
ItemContent = Annotated[str, PlainValidator(_content(RESPONSE_PARTS))]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class SystemMessage(Document):
    """A developer is a system to the models served here."""

    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None

    def turn(self) -> Turn:
        return _named({"role": "system", "content": self.content}, self.name)


class UserMessage(Document):
    role: Literal["user"]
    content: Content
    name: Name | None = None

    def turn(self) -> Turn:
        return _named({"role": "user", "content": self.content}, self.name)


class CalledFunction(Document):
    name: Name
    arguments: str


class Call(Document):
    id: Id
    type: Literal["function"]
    function: CalledFunction

    def spoken(self) -> Turn:
        return call(self.id, self.function.name, self.function.arguments)


class AssistantMessage(Document):
    """What a model answered before, with the fields that the SDK's own message has."""

    refused: ClassVar = parameters.MESSAGE

    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    name: Name | None = None
    tool_calls: Annotated[list[Call], FailFast(), Field(max_length=MOST_CALLS)] = []
    annotations: list[Any] = []  # without effect

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise refusal("missing_required_parameter", "is missing", "content", hint="or give 'tool_calls'")
        return self

    def turn(self) -> Turn:
        said: Turn = {"role": "assistant", "content": self.content or self.refusal or ""}
        if self.tool_calls:
            said["tool_calls"] = [one.spoken() for one in self.tool_calls]
        return _named(said, self.name)


class ToolMessage(Document):
    role: Literal["tool"]
    content: Content
    tool_call_id: Id
    name: Name | None = None

    def turn(self) -> Turn:
        return _named({"role": "tool", "content": self.content, "tool_call_id": self.tool_call_id}, self.name)


def call(id: str, name: str, arguments: str) -> Turn:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _named(turn: Turn, name: str | None) -> Turn:
    return turn if name is None else turn | {"name": name}


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
Messages = Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MOST_MESSAGES)]
