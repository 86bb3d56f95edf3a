"""What a cell's frames mean: an error as the platform's error, an answer that is too large, a piece of text, an end.

What a cell sends is checked as strictly as what a stranger sends: a hostile model may have taken it over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import numpy.typing as npt

from inference.interface import Interface, read_interface
from inference.language.requests import MOST_LOGPROBS, Done, Logprob, Tokens
from inference.protocol import Frame, ProtocolError, TensorSpec
from inference.signature import SignatureInvalid
from strongroom.errors import FieldError, Invalid, LimitReached, StrongroomError, Unavailable, Unsupported

# An answer becomes Python's lists and JSON in a process that other tenants share: 100 bytes a number, 500 a row.
MOST_NUMBERS, MOST_ROWS, MOST_TEXTS = 4_000_000, 250_000, 250_000
MOST_TEXT_CHARACTERS = 16 << 20
MOST_TOLD_BYTES = 16 << 20  # of a piece with log-probabilities: 36,000 tokens with 20 likeliest each
MOST_TOKEN_BYTES = 4096
REASONS = frozenset(("stop", "length", "cancelled", "deadline", "error"))


def excess(outputs: Sequence[TensorSpec]) -> Invalid | None:
    """Why an answer is not taken: an axis of nothing counts as one, since its rows are lists all the same."""
    numbers = 0
    for spec in outputs:
        size = 1
        for axis in spec.shape:
            size *= axis or 1
        numbers += size
        rows = spec.shape[0] if spec.shape else 1
        if rows > MOST_ROWS or (spec.datatype == "BYTES" and size > MOST_TEXTS):
            return _too_much(f"{size} values in {rows} rows")
    return _too_much(f"{numbers} values") if numbers > MOST_NUMBERS else None


def _too_much(told: str) -> Invalid:
    hint = f"at most {MOST_NUMBERS} numbers, {MOST_TEXTS} texts and {MOST_ROWS} rows are answered; send fewer items"
    detail = f"the model answered with {told}; {hint}"
    problem = FieldError("", "answer_too_large", f"gives {told}", hint)
    return Invalid(detail, title="The model's answer is too large", errors=[problem])


def interface(body: memoryview) -> Interface:
    """What the model takes and gives, as the cell describes it."""
    try:
        return read_interface(json.loads(bytes(body)))
    except (ValueError, AttributeError, SignatureInvalid):
        raise ProtocolError("the cell described no interface") from None


class Unheard(Unavailable):
    """The deadline passed and the cell had not said anything: what it computed by then is not known."""


def late(kind: type[Unavailable] = Unavailable) -> StrongroomError:
    return kind("the deadline passed before the model answered", code="deadline_exceeded")


def error_of(fields: Mapping[str, Any]) -> StrongroomError:
    """An error frame as the platform's error."""
    code, detail = str(fields.get("code")), str(fields.get("message"))
    if code == "invalid_field":
        errors = [_field_error(problem) for problem in fields.get("problems") or ()]
        return Invalid(detail, title="The input does not fit the model", errors=errors)
    if code == "compute_failed":
        return Invalid(detail, title="The model failed on this input", errors=[FieldError("", code, detail, None)])
    if code == "media_type_unsupported":
        return Unsupported(detail)
    if code == "queue_full":
        return LimitReached(detail, code="queue_full")
    if code == "deadline_exceeded":
        return late()
    if code == "model_loading":
        return Unavailable(detail)
    return StrongroomError("the engine failed on this request")


def _field_error(problem: Any) -> FieldError:
    try:
        path, code, message, hint = problem
    except (TypeError, ValueError):
        raise ProtocolError("a problem without its four parts") from None
    return FieldError(str(path), str(code), str(message), None if hint is None else str(hint))


# --- language ---


def tokens(frame: Frame) -> Tokens:
    """A piece of a choice."""
    fields = frame.fields()
    try:
        logprobs: Sequence[Any] = ()
        if len(frame.body) > MOST_TOLD_BYTES:
            raise ProtocolError("a piece that is too large")
        if len(frame.body):
            body = msgpack.unpackb(frame.body, raw=False, max_ext_len=0)
            fields["text"], logprobs = body["text"], body["logprobs"]
        index, text = fields["index"], fields["text"]
        if type(index) is not int or not isinstance(text, str) or len(text) > MOST_TEXT_CHARACTERS:
            raise ProtocolError("a piece without its index or text")
        return Tokens(index, text, tuple(_logprob(one) for one in logprobs))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a tokens frame that is none ({type(error).__name__})") from None


class Embedded(NamedTuple):
    """FP32 vectors [texts, width] and the tokens of each text."""

    vectors: npt.NDArray[np.float32]
    tokens: list[int]


def embedded(frame: Frame) -> Embedded:
    fields = frame.fields()
    tokens, width = fields.get("tokens"), fields.get("width")
    if not isinstance(tokens, list) or not all(type(count) is int and 0 <= count < 1 << 31 for count in tokens):
        raise ProtocolError("an embedded frame without its counts")
    if type(width) is not int or width < 1 or len(frame.body) != 4 * width * len(tokens):
        raise ProtocolError("an embedded frame whose vectors are not as many as it says")
    return Embedded(np.frombuffer(frame.body, "<f4").reshape(len(tokens), width), tokens)


def _logprob(packed: Any) -> Logprob:
    token, text, logprob, top = packed
    if len(top) > MOST_LOGPROBS:
        raise ValueError("too many of the likeliest")
    return Logprob(*_told(token, text, logprob), tuple(_told(*one) for one in top))


def _told(token: Any, text: Any, logprob: Any) -> tuple[int, bytes, float]:
    if type(token) is not int or type(text) is not bytes or len(text) > MOST_TOKEN_BYTES:
        raise ValueError("no token and its bytes")
    return token, text, _number(logprob)


def _number(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else -9999.0  # JSON has no infinity; OpenAI's own word for it


def done(frame: Frame) -> Done:
    """The end of a choice, with its usage."""
    fields = frame.fields()
    try:
        found = Done(**fields)
    except TypeError:
        raise ProtocolError("a done frame with other fields") from None
    counts = (found.index, found.prompt_tokens, found.completion_tokens, found.cached_tokens)
    if found.reason not in REASONS or not all(type(count) is int and 0 <= count < 1 << 31 for count in counts):
        raise ProtocolError("a done frame without its counts")
    if not isinstance(found.fingerprint, str) or type(found.last) is not bool:
        raise ProtocolError("a done frame without its fingerprint")
    return found
