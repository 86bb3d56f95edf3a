"""The functions that a model may call, and whether it may, must, or must not.

Chat completions and responses write the same in two shapes; the engine is told the chat's. A call that is forced is a
Constraint of kind `tool`, whose text is the JSON list of the names and parameters to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import FailFast, Field, PlainValidator

from inference.language.requests import Constraint
from strongroom.openai.formats import Description, Name, ResponseFormat, Schema, TextFormat
from strongroom.openai.problems import refusal, shown
from strongroom.openai.requests import Document

MOST_TOOLS = 128
MOST_FORCED_BYTES = 256 * 1024  # of the tools that one call is chosen from: it becomes one grammar
Spoken = dict[str, Any]


class Function(Document):
    name: Name
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None

    @property
    def schema_of_arguments(self) -> dict[str, Any]:
        return {"type": "object", "properties": {}} if self.parameters is None else self.parameters

    def spoken(self) -> Spoken:
        """As the chat template and the engine read it."""
        said: Spoken = {"name": self.name}
        if self.description is not None:
            said["description"] = self.description
        said["parameters"] = self.schema_of_arguments
        if self.strict is not None:
            said["strict"] = self.strict
        return {"type": "function", "function": said}


class ChatTool(Document):
    type: Literal["function"]
    function: Function


class ResponseTool(Function):
    type: Literal["function"]


@dataclass(frozen=True, slots=True)
class Choice:
    """`auto`: the model chooses; `required`: it calls `name`, or any where that is None."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None


def _choice(given: Any, *keys: str) -> Choice:
    """`keys` lead to the function's name in the object of a choice."""
    if type(given) is str:
        if given in ("none", "auto", "required"):
            return Choice(given)  # type: ignore[arg-type]  # one of the three
        raise refusal("invalid_value", f"must be 'none', 'auto', 'required' or a function, is {shown(given)}")
    if type(given) is not dict:
        raise refusal("invalid_type", f"must be a text or an object, is {shown(given)}")
    if given.get("type") != "function":
        raise refusal("unsupported_value", f"must be 'function', is {shown(given.get('type'))}", "type")
    name: Any = given
    for key in keys:
        name = name.get(key) if type(name) is dict else None
    if type(name) is not str:
        raise refusal("missing_required_parameter", "must be the name of a function", *keys)
    return Choice("required", name)


def _chat_choice(given: Any) -> Choice:
    return _choice(given, "function", "name")


def _response_choice(given: Any) -> Choice:
    return _choice(given, "name")


ChatTools = Annotated[list[ChatTool], FailFast(), Field(max_length=MOST_TOOLS)]
ResponseTools = Annotated[list[ResponseTool], FailFast(), Field(max_length=MOST_TOOLS)]
ChatChoice = Annotated[Choice, PlainValidator(_chat_choice)]
ResponseChoice = Annotated[Choice, PlainValidator(_response_choice)]


def check(functions: Sequence[Function], choice: Choice, form: ResponseFormat | TextFormat | None, at: str) -> None:
    """What holds across the fields; `at` is where `form` stands."""
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        raise refusal("invalid_value", "name a function twice", "tools")
    if choice.mode == "required" and not functions:
        raise refusal("invalid_value", "may be given only with tools", "tool_choice")
    if choice.name is not None and choice.name not in names:
        raise refusal("invalid_value", f"names {shown(choice.name)}, which is not one of the tools", "tool_choice")
    is_free = form is None or form.type == "text"
    if choice.mode == "auto" and functions and not is_free:
        said = "cannot be JSON while the model may call a tool: it could never call one"
        raise refusal("unsupported_value", said, *at.split("/"), hint="set 'tool_choice' to 'none' or 'required'")
    if choice.mode == "required":
        size = len(forced(functions, choice).text)
        if size > MOST_FORCED_BYTES:
            said = f"must have at most {MOST_FORCED_BYTES} bytes as JSON where a call is required, have {size}"
            raise refusal("invalid_value", said, "tools")


def offered(functions: Sequence[Function], choice: Choice) -> tuple[Spoken, ...]:
    """The tools that the model is told of: none where it must not call any."""
    return () if choice.mode == "none" else tuple(function.spoken() for function in functions)


def forced(functions: Sequence[Function], choice: Choice) -> Constraint:
    """One call, of the named tool or of any."""
    chosen = [
        {"name": function.name, "parameters": function.schema_of_arguments}
        for function in functions
        if choice.name in (None, function.name)
    ]
    return Constraint("tool", orjson.dumps(chosen).decode())


def constraint(
    functions: Sequence[Function], choice: Choice, form: ResponseFormat | TextFormat | None
) -> Constraint | None:
    """What the text of the answer must be."""
    if choice.mode == "required":
        return forced(functions, choice)
    return None if form is None else form.constraint()
