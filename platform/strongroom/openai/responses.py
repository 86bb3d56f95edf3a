"""The body of POST /v1/responses: the part of it that is text and functions. Nothing is kept, whatever `store` says."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, FailFast, Field, Tag, model_validator

from inference.language.requests import Generate, Sampling
from strongroom.openai import parameters, tools
from strongroom.openai.formats import TextFormat
from strongroom.openai.messages import MOST_MESSAGES, Id, ItemContent, Name, Turn, call
from strongroom.openai.problems import refusal, shown
from strongroom.openai.requests import Asked, Document, Tokens
from strongroom.openai.tools import Choice, ResponseChoice, ResponseTools

Status = Literal["in_progress", "completed", "incomplete"]


class MessageItem(Document):
    """A message, as written by the caller or as answered by us: then with an id, a status and a phase."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: ItemContent
    id: Id | None = None  # without effect, with the next two
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    def add_to(self, turns: list[Turn]) -> None:
        role = "system" if self.role == "developer" else self.role
        turns.append({"role": role, "content": self.content})


class CallItem(Document):
    """A call that the model made: part of the assistant's turn before it."""

    type: Literal["function_call"]
    call_id: Id
    name: Name
    arguments: str
    id: Id | None = None
    status: Status | None = None

    def add_to(self, turns: list[Turn]) -> None:
        if not turns or turns[-1]["role"] != "assistant":
            turns.append({"role": "assistant", "content": ""})
        turns[-1].setdefault("tool_calls", []).append(call(self.call_id, self.name, self.arguments))


class OutputItem(Document):
    """What the caller's function answered."""

    type: Literal["function_call_output"]
    call_id: Id
    output: ItemContent
    id: Id | None = None
    status: Status | None = None

    def add_to(self, turns: list[Turn]) -> None:
        turns.append({"role": "tool", "content": self.output, "tool_call_id": self.call_id})


KINDS = ("message", "function_call", "function_call_output")


def _kind(given: Any) -> str:
    """An item without a type is a message; no kind has the name ""."""
    kind = given.get("type") if type(given) is dict else None
    return "message" if kind is None else kind if type(kind) is str else ""


def _known(given: Any) -> Any:
    if type(given) is dict and _kind(given) not in KINDS:
        listed = ", ".join(f"'{kind}'" for kind in KINDS)
        raise refusal("unsupported_value", f"must be one of {listed}, is {shown(given['type'])}", "type")
    return given


def _items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if type(given) is str else given


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[OutputItem, Tag("function_call_output")],
    Discriminator(_kind),
    BeforeValidator(_known),
]
Items = Annotated[list[Item], FailFast(), Field(min_length=1, max_length=MOST_MESSAGES), BeforeValidator(_items)]


class TextConfig(Document):
    refused: ClassVar = parameters.TEXT

    format: TextFormat = TextFormat()


class StreamOptions(Document):
    refused: ClassVar = parameters.STREAM


class ResponsesRequest(Asked):
    refused: ClassVar = parameters.RESPONSES

    input: Items
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    text: TextConfig = TextConfig()
    tools: ResponseTools = []
    tool_choice: ResponseChoice = Choice()
    parallel_tool_calls: bool = True
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        tools.check(self.tools, self.tool_choice, self.text.format, "text/format")
        return self

    def generate(self) -> Generate:
        """What the engine is asked."""
        constraint = tools.constraint(self.tools, self.tool_choice, self.text.format)
        return Generate(
            messages=tuple(self._turns()),
            tools=tools.offered(self.tools, self.tool_choice),
            sampling=Sampling(max_tokens=self.max_output_tokens, constraint=constraint, **self.chosen()),
        )

    def _turns(self) -> list[Turn]:
        turns: list[Turn] = []
        if self.instructions is not None:
            turns.append({"role": "system", "content": self.instructions})
        for item in self.input:
            item.add_to(turns)
        return turns

    def echo(self) -> dict[str, Any]:
        """The request's own words, as every document of its response repeats them."""
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "model": self.model,
            "parallel_tool_calls": self.parallel_tool_calls,
            "previous_response_id": None,
            "temperature": self.temperature,
            "text": {"format": _format(self.text.format)},
            "tool_choice": _choice(self.tool_choice),
            "tools": [_tool(tool) for tool in self.tools],
            "top_p": self.top_p,
            "truncation": "disabled",
        }


def _format(form: TextFormat) -> dict[str, Any]:
    return form.model_dump(by_alias=True, exclude_none=True)


def _choice(choice: Choice) -> Any:
    return choice.mode if choice.name is None else {"type": "function", "name": choice.name}


def _tool(tool: tools.Function) -> dict[str, Any]:
    return tool.model_dump(include={"type", "name", "description", "parameters", "strict"})
