"""Whole answers of `/v1` as plain documents: chat completions, completions, embeddings, models. No model classes: a
dict is what is written. Streams are in chunks.py and events.py.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from inference.language.requests import Done, Logprob
from strongroom import ids
from strongroom.openai import logprobs

Finish = Literal["stop", "length", "tool_calls"]
Json = dict[str, Any]


def fresh(prefix: str) -> str:
    """`chatcmpl-01k9zq6v8m3x5r2t7w4y0b1c2d`, `resp_…`: a dash after OpenAI's own completions, an underscore else."""
    dash = "-" if prefix.endswith("cmpl") else "_"
    return prefix + dash + ids.base32(ids.new().int, 26)


@dataclass(frozen=True, slots=True)
class Head:
    """What all documents of one answer share. `model` is as it was asked for."""

    id: str
    created: int
    model: str
    fingerprint: str | None = None

    @classmethod
    def of(cls, prefix: str, model: str, fingerprint: str | None = None) -> Head:
        return cls(fresh(prefix), int(time()), model, fingerprint)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, of all its choices."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    @classmethod
    def of(cls, ends: Iterable[Done]) -> Usage:
        """The sum; the engine counts a prompt with its first choice only."""
        prompt = completion = cached = 0
        for end in ends:
            prompt += end.prompt_tokens
            completion += end.completion_tokens
            cached += end.cached_tokens
        return cls(prompt, completion, cached)

    def of_completion(self) -> Json:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def of_response(self) -> Json:
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it: `arguments` is JSON, as text."""

    id: str
    name: str
    arguments: str

    @classmethod
    def of(cls, name: str, arguments: str) -> ToolCall:
        return cls(fresh("call"), name, arguments)

    def to_json(self) -> Json:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer of several. `logprobs` is None where they were not asked for."""

    index: int
    text: str
    finish: Finish
    logprobs: Sequence[Logprob] | None = None
    tool_calls: Sequence[ToolCall] = field(default=())


def chat_completion(head: Head, choices: Sequence[Choice], usage: Usage) -> Json:
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [_chat_choice(choice) for choice in choices],
        "usage": usage.of_completion(),
        "system_fingerprint": head.fingerprint,
    }


def _chat_choice(choice: Choice) -> Json:
    is_call = bool(choice.tool_calls)
    message: Json = {"role": "assistant", "content": None if is_call and not choice.text else choice.text}
    message["refusal"] = None
    if is_call:
        message["tool_calls"] = [call.to_json() for call in choice.tool_calls]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": None if choice.logprobs is None else logprobs.of_chat(choice.logprobs),
        "finish_reason": choice.finish,
    }


def completion(head: Head, choices: Sequence[Choice], usage: Usage) -> Json:
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "choices": [
            {
                "index": choice.index,
                "text": choice.text,
                "logprobs": None if choice.logprobs is None else logprobs.of_completion(choice.logprobs),
                "finish_reason": choice.finish,
            }
            for choice in choices
        ],
        "usage": usage.of_completion(),
        "system_fingerprint": head.fingerprint,
    }


def embeddings(model: str, vectors: NDArray[np.float32], form: Literal["float", "base64"], tokens: int) -> bytes:
    """The body, written; a row of `vectors` for each input. Base64 is of little-endian float32, as the SDK reads it."""
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if form == "base64" else row,
        }
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    document = {"object": "list", "data": data, "model": model, "usage": usage}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def model(name: str, created: int, owned_by: str) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": owned_by}


def models(found: Sequence[Json]) -> Json:
    return {"object": "list", "data": list(found)}
