"""The body of POST /v1/completions, the legacy endpoint: text goes on from a prompt, without a chat template."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Self

from pydantic import Field, PlainValidator, model_validator

from inference.language.requests import Generate
from strongroom.openai import parameters, prompts
from strongroom.openai.problems import refusal
from strongroom.openai.prompts import Prompt
from strongroom.openai.sampling import Sampled

MOST_PROMPTS = 128
MOST_LOGPROBS = 5  # OpenAI's, of this endpoint
USUAL_TOKENS = 16  # likewise, where the request says nothing


class CompletionsRequest(Sampled):
    refused: ClassVar = parameters.COMPLETIONS

    prompt: Annotated[tuple[Prompt, ...], PlainValidator(partial(prompts.read, most=MOST_PROMPTS))]
    echo: bool = False
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n * len(self.prompt) > MOST_PROMPTS:
            said = f"asks for {self.n} choices of {len(self.prompt)} prompts, more than {MOST_PROMPTS} in all"
            raise refusal("invalid_value", said, "n", hint="send fewer prompts a request")
        return self

    def generate(self) -> list[Generate]:
        """One for each prompt. Choice `j` of prompt `i` is answered with the index `i * n + j`."""
        most = USUAL_TOKENS if self.max_tokens is None else self.max_tokens
        sampling = self.sampling(most, self.logprobs)
        return [Generate(prompt=prompt, sampling=sampling, n=self.n, echo=self.echo) for prompt in self.prompt]
