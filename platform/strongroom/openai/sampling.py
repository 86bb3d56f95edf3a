"""The fields of chat and legacy completions that steer which tokens are taken, and their way into a Sampling."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator

from inference.language.requests import MOST_BIASES, MOST_CHOICES, MOST_STOP_BYTES, MOST_STOPS, Constraint, Sampling
from strongroom.openai.problems import refusal, shown
from strongroom.openai.requests import Asked, StreamOptions, Tokens

MOST_TOKEN = 2**31 - 1


def _stops(given: Any) -> tuple[str, ...]:
    if type(given) is str:
        given = [given]
    if type(given) is not list:
        raise refusal("invalid_type", f"must be a text or a list of texts, is {shown(given)}")
    if len(given) > MOST_STOPS:
        raise refusal("array_above_max_length", f"must have at most {MOST_STOPS} entries, has {len(given)}")
    for index, stop in enumerate(given):
        if type(stop) is not str:
            raise refusal("invalid_type", f"must be a text, is {shown(stop)}", index)
        if not 1 <= len(stop.encode()) <= MOST_STOP_BYTES:
            size = len(stop.encode())
            raise refusal("invalid_value", f"must be a text of 1 to {MOST_STOP_BYTES} bytes, has {size}", index)
    return tuple(given)


def _biases(given: Any) -> dict[int, float]:
    if type(given) is not dict:
        raise refusal("invalid_type", f"must be an object of token id to bias, is {shown(given)}")
    if len(given) > MOST_BIASES:
        raise refusal("object_above_max_properties", f"must have at most {MOST_BIASES} tokens, has {len(given)}")
    return dict(_bias(name, value) for name, value in given.items())


def _bias(name: str, value: Any) -> tuple[int, float]:
    if not (name.isascii() and name.isdigit() and len(name) <= 10 and int(name) <= MOST_TOKEN):
        raise refusal("invalid_value", 'is not a token id: names are whole numbers, such as "50256"', name)
    if type(value) not in (int, float) or not -100 <= value <= 100:
        raise refusal("invalid_value", f"must be a number from -100 to 100, is {shown(value)}", name)
    return int(name), float(value)


class Sampled(Asked):
    """A request for one or more choices of tokens."""

    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    max_tokens: Tokens | None = None
    stop: Annotated[tuple[str, ...], PlainValidator(_stops)] = ()
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[dict[int, float], PlainValidator(_biases)] = {}

    @model_validator(mode="after")
    def _check_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refusal("invalid_value", "may be given only where 'stream' is true", "stream_options")
        return self

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a chunk of the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def is_padded(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_obfuscation

    def sampling(self, most: int | None, logprobs: int | None, constraint: Constraint | None = None) -> Sampling:
        """How the tokens are chosen, at most `most` of them; None goes to the context's end."""
        return Sampling(
            max_tokens=most,
            seed=self.seed,
            stop=self.stop,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            logprobs=logprobs,
            constraint=constraint,
            **self.chosen(),
        )
