"""The methods that a template may call on text and dicts; each one paid for.

A method is looked up here by its name and the value's type, never on the value: there are no bound methods to pass on.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getsizeof
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Undefined

from chat.errors import output_too_large
from chat.operators import attribute, each, search
from chat.rendering import LONGEST_LIST, LONGEST_TEXT, Rendering, kind_of

PIECE_BYTES = 60  # a short text of its own


def split(context: Rendering, value: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    context.scan(len(value)) if sep is None else search(context, value, sep)
    return _pieces(context, value, value.split(sep, maxsplit if 0 <= maxsplit < LONGEST_LIST else LONGEST_LIST))


def rsplit(context: Rendering, value: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    context.spend(len(value) * (1 if sep is None else len(sep)) >> 5)  # at worst: CPython's search from the right
    return _pieces(context, value, value.rsplit(sep, maxsplit if 0 <= maxsplit < LONGEST_LIST else LONGEST_LIST))


def _pieces(context: Rendering, whole: str, pieces: list[str]) -> list[str]:
    context.hold(PIECE_BYTES * len(pieces) + getsizeof(whole))
    return context.listed(pieces)


def _strip(kind: str) -> Callable[..., str]:
    stripped: Callable[[str, str | None], str] = getattr(str, kind)

    def strip(context: Rendering, value: str, chars: str | None = None) -> str:
        context.spend(len(value) * (1 if chars is None else len(chars)) >> 5)  # each is looked for in `chars`
        return context.made(stripped(value, chars))

    return strip


def _case(kind: str) -> Callable[..., str]:
    changed: Callable[[str], str] = getattr(str, kind)

    def case(context: Rendering, value: str) -> str:
        quick = value.isascii() and kind in ("upper", "lower")
        context.spend(len(value) >> 4 if quick else 2 * len(value))  # else CPython takes 12 bytes and 20 ns for each
        return context.made(changed(value))

    return case


def _edge(kind: str) -> Callable[..., bool]:
    matches: Callable[[str, Any], bool] = getattr(str, kind)

    def edge(context: Rendering, value: str, affix: Any) -> bool:
        affixes = affix if type(affix) is tuple else (affix,)
        context.spend(len(affixes))
        context.scan(sum(map(len, affixes)))
        return matches(value, affixes)

    return edge


def replace(context: Rendering, value: str, old: str, new: str, count: int = -1) -> str:
    search(context, value, old)
    found = value.count(old)
    found = found if count < 0 else min(found, count)
    if len(value) + found * (len(new) - len(old)) > LONGEST_TEXT:
        raise output_too_large(f"replace makes a text of more than {LONGEST_TEXT >> 20} Mi characters")
    return context.made(value.replace(old, new, count))


def join(context: Rendering, separator: str, values: Any) -> str:
    texts = list(each(context, values, 2))
    if sum(map(len, texts)) + len(separator) * len(texts) > LONGEST_TEXT:
        raise output_too_large(f"join makes a text of more than {LONGEST_TEXT >> 20} Mi characters")
    return context.made(separator.join(texts))


def get(context: Rendering, value: dict[str, Any], key: Any, default: Any = None) -> Any:
    if type(key) is not str:
        return default
    context.scan(len(key))
    return value.get(key, default)


def items(context: Rendering, value: dict[str, Any]) -> list[Any]:
    context.hold(PIECE_BYTES * len(value))
    return context.listed(list(value.items()))


def keys(context: Rendering, value: dict[str, Any]) -> list[Any]:
    return context.listed(list(value))


def values(context: Rendering, value: dict[str, Any]) -> list[Any]:
    return context.listed(list(value.values()))


METHODS: dict[str, tuple[type, Callable[..., Any]]] = {
    **{name: (str, _strip(name)) for name in ("strip", "lstrip", "rstrip")},
    **{name: (str, _case(name)) for name in ("upper", "lower", "title", "capitalize")},
    **{name: (str, _edge(name)) for name in ("startswith", "endswith")},
    "split": (str, split),
    "rsplit": (str, rsplit),
    "replace": (str, replace),
    "join": (str, join),
    "get": (dict, get),
    "items": (dict, items),
    "keys": (dict, keys),
    "values": (dict, values),
}


@pass_context
def call_method(context: Rendering, owner: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """`owner.name(…)`."""
    kind, method = METHODS[name]
    if type(owner) is not kind:
        missing = attribute(context, owner, name)
        if isinstance(missing, Undefined):
            missing()  # says what is missing where
        raise TypeError(f"{kind_of(owner)} has no method {name}")
    return method(context, owner, *args, **kwargs)
