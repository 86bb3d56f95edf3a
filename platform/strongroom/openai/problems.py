"""What is wrong with a request to `/v1`: pydantic's errors and our own refusals as FieldErrors with OpenAI's codes.

Paths are JSON pointers, as everywhere; errors.py writes them as OpenAI does. At most 20 problems are told, and what a
caller wrote is repeated in brief only.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from strongroom.errors import FieldError
from strongroom.rest import problem

MOST_PROBLEMS = 20
MOST_SHOWN = 60  # characters of a caller's value in a message
UNIONS = ("messages", "input")  # lists of which pydantic's path has the kind of an entry behind its index


def refusal(code: str, message: str, *at: str | int, hint: str | None = None) -> PydanticCustomError:
    """To raise from a validator; `at` is the path below the value that is validated."""
    context = {"message": message, "at": at, "hint": hint}
    return PydanticCustomError(code, "{message}", context)


def translate(error: ValidationError) -> list[FieldError]:
    """The first problems of those that pydantic found: validators stop at the first wrong entry of a long list."""
    return [_translate(one) for one in islice(error.errors(include_url=False), MOST_PROBLEMS)]


def _translate(error: ErrorDetails) -> FieldError:
    context: dict[str, Any] = error.get("ctx", {})
    keys = list(error["loc"])
    if len(keys) > 2 and keys[0] in UNIONS and isinstance(keys[1], int):
        del keys[2]
    if "at" in context:
        return FieldError(pointer([*keys, *context["at"]]), error["type"], context["message"], context["hint"])
    kind, value = error["type"], error["input"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(keys, value, context)
    code, message = _said(kind, value, context, error["msg"])
    return FieldError(pointer(keys), code, message)


def _wrong_kind(keys: list[str | int], value: Any, context: dict[str, Any]) -> FieldError:
    name = str(context["discriminator"]).strip("'")
    path = pointer([*keys, name])
    if not isinstance(value, dict) or value.get(name) is None:
        return FieldError(path, "missing_required_parameter", "is missing")
    return FieldError(path, "invalid_value", f"must be one of {context['expected_tags']}, is {shown(value[name])}")


TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
}
COMPARISONS = {
    "greater_than": ("greater than", "gt", "below_min"),
    "greater_than_equal": ("at least", "ge", "below_min"),
    "less_than_equal": ("at most", "le", "above_max"),
}
LENGTHS = {
    "too_short": ("at least", "entries", "min_length", "empty_array"),
    "too_long": ("at most", "entries", "max_length", "array_above_max_length"),
    "string_too_short": ("at least", "characters", "min_length", "empty_string"),
    "string_too_long": ("at most", "characters", "max_length", "string_above_max_length"),
}


def _said(kind: str, value: Any, context: dict[str, Any], fallback: str) -> tuple[str, str]:
    """OpenAI's code, and the message."""
    if kind in TYPES:
        return "invalid_type", f"must be {TYPES[kind]}, is {shown(value)}"
    if kind in COMPARISONS:
        words, key, code = COMPARISONS[kind]
        number = "integer" if isinstance(value, int) else "decimal"
        return f"{number}_{code}_value", f"must be {words} {context[key]:g}, is {shown(value)}"
    if kind in LENGTHS:
        words, what, key, code = LENGTHS[kind]
        return code, f"must have {words} {context[key]} {what}, has {context.get('actual_length', len(value))}"
    if kind == "missing":
        return "missing_required_parameter", "is missing"
    if kind == "literal_error":
        return "invalid_value", f"must be {context['expected']}, is {shown(value)}"
    if kind == "string_pattern_mismatch":
        return "invalid_value", f"{shown(value)} is not of the form {context['pattern']}"
    return "invalid_value", fallback[:1].lower() + fallback[1:]


NAMES = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}


def shown(value: object) -> str:
    """A caller's value in a message: its kind where it is long or deep, else itself in brief."""
    if isinstance(value, str):
        return repr(value) if len(value) <= MOST_SHOWN else repr(value[:MOST_SHOWN]) + "…"
    return NAMES.get(type(value)) or str(value)[:MOST_SHOWN]


def pointer(keys: Iterable[str | int]) -> str:
    """RFC 6901, with long names cut."""
    return "".join("/" + str(key)[: problem.MAX_NAME].replace("~", "~0").replace("/", "~1") for key in keys)
