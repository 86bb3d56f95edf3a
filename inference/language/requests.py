"""What a language model is asked and what it answers: the documents of the frames generate, tokens and done.

Both ends use it: the edge makes a Generate, the cell reads it, and back come Tokens, many of them, and one Done for
each choice. The body of a generate frame is `Generate.to_json()`; headers are in docs/formats/processes.md. Knows
neither HTTP nor llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson

from inference.errors import InputRefused, ProtocolError

Reason = Literal["stop", "length", "cancelled", "deadline", "error"]
ConstraintKind = Literal["json_object", "json_schema", "grammar", "tool"]

MOST_CHOICES = 16
MOST_STOPS = 16  # of a caller; the face adds one where an answer ends with a call
MOST_STOP_BYTES = 256
MOST_LOGPROBS = 20
MOST_BIASES = 1024


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the text must be: any JSON object, JSON of a schema, a sentence of a Lark grammar, or a call of a tool.

    `text` is the schema as JSON, the grammar, or for `tool` a JSON list of the tools of which one is called.
    """

    kind: ConstraintKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest; `max_tokens` None goes to the context's end."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    constraint: Constraint | None = None
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Generate:
    """One request: exactly one of `messages` (written by the model's chat template) and `prompt` (text or tokens)."""

    messages: tuple[Mapping[str, Any], ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Sampling = Sampling()
    n: int = 1
    echo: bool = False

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def from_json(cls, body: bytes | memoryview) -> Generate:
        """As `to_json` wrote it; ProtocolError. What a caller may ask at all is checked by the face before."""
        try:
            fields = orjson.loads(body)
            sampling = dict(fields.pop("sampling"))
            constraint = sampling.pop("constraint")
            sampling["stop"] = tuple(_list(sampling["stop"]))
            sampling["logit_bias"] = {int(token): float(bias) for token, bias in sampling["logit_bias"].items()}
            prompt, messages = fields.pop("prompt"), fields.pop("messages")
            read = cls(
                messages=None if messages is None else tuple(_list(messages)),
                prompt=tuple(prompt) if isinstance(prompt, list) else prompt,
                tools=tuple(_list(fields.pop("tools"))),
                sampling=Sampling(**sampling, constraint=None if constraint is None else Constraint(**constraint)),
                **fields,
            )
            sound = read._is_sound()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProtocolError(f"a generate frame without its fields ({type(error).__name__})") from None
        if not sound:
            raise ProtocolError("a generate frame with a field of another kind, or out of its bounds")
        return read

    def _is_sound(self) -> bool:
        """Whether what computes may take every field as its type says, and no field asks for work without end."""
        prompt, objects = self.prompt, (*(self.messages or ()), *self.tools)
        return (
            (prompt is None or isinstance(prompt, str | tuple))
            and (isinstance(prompt, str) or all(type(token) is int for token in prompt or ()))
            and all(isinstance(one, dict) for one in objects)
            and type(self.n) is int
            and 1 <= self.n <= MOST_CHOICES
            and type(self.echo) is bool
            and _is_sound(self.sampling)
        )


def _list(given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise TypeError
    return given


def _is_sound(sampling: Sampling) -> bool:
    stops, biases, constraint = sampling.stop, sampling.logit_bias, sampling.constraint
    shares = (sampling.temperature, sampling.top_p, sampling.min_p)
    penalties = (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty)
    whole = (sampling.max_tokens, sampling.top_k, sampling.seed, sampling.logprobs)
    return (
        all(type(number) in (int, float) and math.isfinite(number) for number in (*shares, *penalties))
        and min(shares) >= 0
        and sampling.repetition_penalty > 0
        and all(type(number) is int for number in whole if number is not None)
        and sampling.top_k is not None
        and sampling.top_k >= 0
        and (sampling.max_tokens is None or sampling.max_tokens >= 1)
        and (sampling.logprobs is None or 0 <= sampling.logprobs <= MOST_LOGPROBS)
        and len(stops) <= MOST_STOPS + 1
        and all(isinstance(stop, str) and len(stop.encode()) <= MOST_STOP_BYTES for stop in stops)
        and len(biases) <= MOST_BIASES
        and all(math.isfinite(bias) for bias in biases.values())
        and (constraint is None or (constraint.kind in get_args(ConstraintKind) and isinstance(constraint.text, str)))
        and type(sampling.ignore_eos) is bool
    )


@dataclass(frozen=True, slots=True)
class Tokens:
    """A piece of one choice: whole UTF-8, what may begin a stop string held back.

    `logprobs` has an entry a token, where they were asked for: its id, its bytes, its log-probability, and the most
    likely ones in its place, each as (id, bytes, log-probability).
    """

    index: int
    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Logprob:
    token: int
    text: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one choice and its exact usage. The prompt is counted with the first choice only."""

    index: int
    reason: Reason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    fingerprint: str
    last: bool = True  # no other choice of the request is running


def check_one_of(generate: Generate) -> None:
    """InputRefused where not exactly one of messages and prompt is there."""
    if (generate.messages is None) == (generate.prompt is None):
        raise InputRefused("/prompt", "one_of", "must have exactly one of messages and prompt")
