"""`tojson`: as transformers' filter writes it, with no HTML escaped, and no longer than a text may be."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import pass_context

from chat.errors import output_too_large
from chat.rendering import LONGEST_TEXT, Rendering

WIDEST_INDENT = 16
LONGEST_SEPARATORS = 16
INDENTED_STEPS = 40  # a value, in the encoder that Python has for indented JSON


@pass_context
def tojson(
    context: Rendering,
    value: Any,
    /,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: Any = False,
) -> str:
    context.dumpable(value)
    if indent is not None:
        _pay_indent(context, value, indent)
    if separators is not None:
        item, key = separators
        if type(item) is not str or type(key) is not str or len(item) + len(key) > LONGEST_SEPARATORS:
            raise ValueError("tojson: separators are two short texts")
    dumped = json.dumps(
        value, ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
    )
    return context.made(dumped)


def _pay_indent(context: Rendering, value: Any, indent: Any) -> None:
    """Every value has a line of its own, as far in as it lies deep, and the encoder passes it up through each depth."""
    width = len(indent) if type(indent) is str else indent
    if not 0 <= width <= WIDEST_INDENT:
        raise ValueError(f"tojson: an indent of 0 to {WIDEST_INDENT}")
    level, depth, indentation = [value], 0, 0
    while level:
        context.spend(len(level) * (INDENTED_STEPS + 3 * depth))
        indentation += len(level) * depth * width
        level = [part for parent in level for part in _parts(parent)]
        depth += 1
    if indentation > LONGEST_TEXT:
        raise output_too_large(f"tojson indents to more than {LONGEST_TEXT >> 20} Mi characters")


def _parts(value: Any) -> Any:
    if type(value) is dict:
        return value.values()
    return value if type(value) in (list, tuple) else ()
