"""What a rewritten template is compiled to: filters, under names that no template can write for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chat import operators
from chat.functions import call
from chat.methods import call_method

COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": operators.add,
    "-": operators.subtract,
    "*": operators.multiply,
    "/": operators.divide,
    "//": operators.divide_whole,
    "%": operators.remainder,
    "~": operators.concatenate,
    **{sign: operators.COMPARISONS[name] for name, sign in COMPARED.items()},
    "< <": operators.compare_chain,
    "[.]": operators.item,
    "[:]": operators.cut,
    ".": operators.attribute,
    ".()": call_method,
    "()": call,
    "{{}}": operators.text,
    "{%for%}": operators.each,
    "{%set%}": operators.captured,
    "{%macro%}": operators.enter,
    "[]": operators.literal,
    "{:}": operators.literal_key,
}
