"""The body of POST /v1/chat/completions, and the Generate that it asks for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from inference.language.requests import MOST_LOGPROBS, Generate
from strongroom.openai import parameters, tools
from strongroom.openai.formats import ResponseFormat
from strongroom.openai.messages import Messages
from strongroom.openai.problems import refusal
from strongroom.openai.requests import Tokens
from strongroom.openai.sampling import Sampled
from strongroom.openai.tools import ChatChoice, ChatTools, Choice, Function


class ChatRequest(Sampled):
    refused: ClassVar = parameters.CHAT

    messages: Messages
    max_completion_tokens: Tokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None
    response_format: ResponseFormat | None = None
    tools: ChatTools = []
    tool_choice: ChatChoice = Choice()
    parallel_tool_calls: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        most, most_too = self.max_tokens, self.max_completion_tokens
        if most is not None and most_too is not None and most != most_too:
            said = f"says {most_too} where 'max_tokens' says {most}"
            raise refusal("invalid_value", said, "max_completion_tokens", hint="give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise refusal("invalid_value", "may be given only where 'logprobs' is true", "top_logprobs")
        if self.stream and self.logprobs and self.tools and self.tool_choice.mode != "none":
            said = "cannot be streamed beside tools: a call's pieces have no place for them"
            raise refusal(
                "unsupported_value", said, "logprobs", hint="leave out 'stream', or set 'tool_choice' to 'none'"
            )
        tools.check(self.functions, self.tool_choice, self.response_format, "response_format")
        return self

    @property
    def functions(self) -> list[Function]:
        return [tool.function for tool in self.tools]

    def generate(self) -> Generate:
        """What the engine is asked."""
        most = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        functions = self.functions
        constraint = tools.constraint(functions, self.tool_choice, self.response_format)
        return Generate(
            messages=tuple([message.turn() for message in self.messages]),
            tools=tools.offered(functions, self.tool_choice),
            sampling=self.sampling(most, logprobs, constraint),
            n=self.n,
        )
