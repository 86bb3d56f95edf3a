"""A request in words and its whole answer: what the engine is asked, and the document of what it said.

One class an endpoint, used for an answer at once (edge/openai/endpoints.py) and for a line of a batch (jobs/asking.py).
Streams are the endpoints' own; nothing here is asked, heard or counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from inference.language.requests import Done, Generate, Logprob, Tokens
from strongroom.deployments.served import Served
from strongroom.errors import FieldError, Invalid
from strongroom.openai import answers, calls, events, requests
from strongroom.openai.answers import Choice, Finish, Head, Json, ToolCall, Usage
from strongroom.openai.chat import ChatRequest
from strongroom.openai.completions import CompletionsRequest
from strongroom.openai.responses import ResponsesRequest
from strongroom.openai.tools import Choice as ToolChoice

Said = Mapping[int, Sequence[Tokens]]  # by the choice's index


class Exchange(Protocol):
    """Made from a JSON document; Invalid with its first problems."""

    places: ClassVar[Mapping[str, str]]  # where the engine's pointers are in the document, if they are called otherwise

    @property
    def asked(self) -> requests.Asked: ...

    def generates(self, served: Served) -> list[Generate]:
        """What the engine is asked. Invalid where this model cannot do it."""

    def answer(self, said: Said, ends: Sequence[Done]) -> Json:
        """The whole document."""


class Chat:
    """POST /v1/chat/completions. `forced`: the answer is a call; `free`: it may hold some."""

    places: ClassVar[Mapping[str, str]] = {}

    def __init__(self, document: Any) -> None:
        self.asked = asked = requests.read(ChatRequest, document)
        self.head = Head.of("chatcmpl", asked.model)
        self.forced, self.free = _mode(asked.tools, asked.tool_choice)

    def generates(self, served: Served) -> list[Generate]:
        return [_with_tools(served, self.asked.generate(), self.free, self.asked.parallel_tool_calls)]

    def answer(self, said: Said, ends: Sequence[Done]) -> Json:
        choices = [self._choice(end, said.get(end.index, ())) for end in in_order(ends)]
        return answers.chat_completion(_told(self.head, ends), choices, Usage.of(ends))

    def _choice(self, end: Done, parts: Sequence[Tokens]) -> Choice:
        text, found = _calls(_text(parts), self.forced, self.free)
        finish: Finish = "tool_calls" if found and end.reason != "length" else finish_of(end)
        return Choice(end.index, text, finish, _logprobs(parts) if self.asked.logprobs else None, found)


class Completions:
    """POST /v1/completions"""

    places: ClassVar[Mapping[str, str]] = {}

    def __init__(self, document: Any) -> None:
        self.asked = requests.read(CompletionsRequest, document)
        self.head = Head.of("cmpl", self.asked.model)

    def generates(self, served: Served) -> list[Generate]:
        return self.asked.generate()

    def answer(self, said: Said, ends: Sequence[Done]) -> Json:
        choices = []
        for end in in_order(ends):
            parts = said.get(end.index, ())
            logprobs = _logprobs(parts) if self.asked.logprobs is not None else None
            choices.append(Choice(end.index, _text(parts), finish_of(end), logprobs))
        return answers.completion(_told(self.head, ends), choices, Usage.of(ends))


class Responses:
    """POST /v1/responses"""

    places: ClassVar[Mapping[str, str]] = {
        "/messages": "/input",
        "/response_format/json_schema/schema": "/text/format/schema",
    }

    def __init__(self, document: Any) -> None:
        self.asked = asked = requests.read(ResponsesRequest, document)
        self.head, self.echo = Head.of("resp", asked.model), asked.echo()
        self.forced, self.free = _mode(asked.tools, asked.tool_choice)

    def generates(self, served: Served) -> list[Generate]:
        return [_with_tools(served, self.asked.generate(), self.free, self.asked.parallel_tool_calls)]

    def answer(self, said: Said, ends: Sequence[Done]) -> Json:
        text, found = _calls(_text(said.get(0, ())), self.forced, self.free)
        status: events.Status = "incomplete" if ends[0].reason == "length" else "completed"
        return events.response(self.head, self.echo, status, events.output(text, found, status), Usage.of(ends))


EXCHANGES: dict[str, type[Chat] | type[Completions] | type[Responses]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completions,
    "/v1/responses": Responses,
}


@contextmanager
def told_by(exchange: Exchange) -> Iterator[None]:
    """What the engine refuses, at the fields that the caller wrote."""
    try:
        yield
    except Invalid as error:
        if not exchange.places:
            raise
        problems = [replace(one, path=exchange.places.get(one.path, one.path)) for one in error.errors]
        raise type(error)(error.detail, code=error.code, errors=problems) from None


def in_order(ends: Sequence[Done]) -> list[Done]:
    return sorted(ends, key=lambda end: end.index)


def finish_of(end: Done) -> Finish:
    return "length" if end.reason == "length" else "stop"


def _mode(tools: Sequence[Any], choice: ToolChoice) -> tuple[bool, bool]:
    """Whether a call is forced, and whether the model may call by itself."""
    return choice.mode == "required", bool(tools) and choice.mode == "auto"


def _with_tools(served: Served, generate: Generate, free: bool, several: bool) -> Generate:
    """The same for a model whose template may know no tools. `free`: it may call some, `several` of them."""
    if served.language.tools:
        return generate if several or not free else calls.at_most_one(generate)
    if free:
        message = f"cannot be given to {served.name!r}: its chat template knows no tools"
        hint = "set tool_choice to 'required' or to a function, which every model can follow"
        raise Invalid.all([FieldError("/tools", "tools_unsupported", message, hint)])
    return replace(generate, messages=tuple(calls.as_text(generate.messages or ())))


def _calls(text: str, forced: bool, free: bool) -> tuple[str, list[ToolCall]]:
    if forced:
        found = calls.forced(text)
        return ("" if found else text), found
    return calls.free(text) if free else (text, [])


def _text(parts: Sequence[Tokens]) -> str:
    return "".join([part.text for part in parts])


def _logprobs(parts: Sequence[Tokens]) -> list[Logprob]:
    return [one for part in parts for one in part.logprobs]


def _told(head: Head, ends: Sequence[Done]) -> Head:
    """With the fingerprint, which comes with the end."""
    return Head(head.id, head.created, head.model, ends[0].fingerprint)
