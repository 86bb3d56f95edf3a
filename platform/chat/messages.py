"""Messages and tools as a template gets them: a copy in plain dicts, lists, text and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chat.errors import messages_invalid
from chat.rendering import LARGEST, SMALLEST, Rendering, kind_of

DEEPEST = 64


def plain(context: Rendering, value: Any, name: str, depth: int = DEEPEST) -> Any:
    """A copy of JSON; `name` is what a refusal calls it."""
    kind = type(value)
    if kind is str or kind is bool or value is None or kind is float:
        return value
    if kind is int:
        if not SMALLEST <= value <= LARGEST:
            raise messages_invalid(f"{name} hold a whole number that 64 bits do not hold")
        return value
    if depth == 0:
        raise messages_invalid(f"{name} are nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        context.spend(2 + 2 * len(value))
        for key in value:
            if type(key) is not str:
                raise messages_invalid(f"{name} hold a key that is {kind_of(key)}, not text")
        return {key: plain(context, part, name, depth - 1) for key, part in value.items()}
    if kind is list or kind is tuple:
        context.spend(2 + len(value))
        return [plain(context, part, name, depth - 1) for part in value]
    raise messages_invalid(f"{name} hold {kind_of(value)}, which JSON does not have")
