"""The operators of the template language, each one paid for: what rewrite.py puts in the place of Jinja's own.

They answer as Python's do on the plain values that a template has (text, numbers, lists, dicts, ranges), and reach no
attribute of any object: `x.name` and `x['name']` look into dicts, the loop and namespaces only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from sys import getsizeof
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import LoopContext, Undefined

from chat.errors import output_too_large
from chat.rendering import BUILTIN, ITEM_BYTES, LONGEST_TEXT, SCALARS, Rendering, Variables, bounded, kind_of

LOOP_ATTRIBUTES = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem")
)
DICT_ATTRIBUTES = frozenset(dir(dict))
SEQUENCES = (list, tuple, str, range)
PLAIN = (*SEQUENCES, dict, int, float, bool)
MISSING = object()


@pass_context
def text(context: Rendering, value: Any, /) -> str:
    """What an output and `~` make of a value."""
    if type(value) is str:
        return value
    if isinstance(value, Undefined):
        return ""
    return context.made(str(context.dumpable(value)))


@pass_context
def concatenate(context: Rendering, /, *values: Any) -> str:
    return context.made(_joined([text(context, value) for value in values]))


@pass_context
def add(context: Rendering, /, *values: Any) -> Any:
    """`a + b + c` at once: a chain of texts is one join."""
    for value in values:
        if type(value) is not str:
            return reduce(lambda left, right: _add_two(context, left, right), values)
    return context.made(_joined(values))


def _joined(texts: Sequence[str]) -> str:
    if sum(map(len, texts)) > LONGEST_TEXT:
        raise output_too_large(f"texts are joined to more than {LONGEST_TEXT >> 20} Mi characters")
    return "".join(texts)


def _add_two(context: Rendering, left: Any, right: Any) -> Any:
    total = left + right
    if type(total) is str:
        return context.made(total)
    if type(total) in (list, tuple):
        return context.listed(total)
    return bounded(total)


@pass_context
def subtract(context: Rendering, left: Any, right: Any, /) -> Any:
    return bounded(_number(left, "-") - _number(right, "-"))


@pass_context
def multiply(context: Rendering, left: Any, right: Any, /) -> Any:
    if type(left) is int and type(right) is str:
        left, right = right, left
    if type(left) is str and type(right) is int:
        if len(left) * right > LONGEST_TEXT:
            raise output_too_large(f"a text is repeated to more than {LONGEST_TEXT >> 20} Mi characters")
        return context.made(left * right)
    return bounded(_number(left, "*") * _number(right, "*"))


@pass_context
def divide(context: Rendering, left: Any, right: Any, /) -> Any:
    return _number(left, "/") / _number(right, "/")


@pass_context
def divide_whole(context: Rendering, left: Any, right: Any, /) -> Any:
    return bounded(_number(left, "//") // _number(right, "//"))


@pass_context
def remainder(context: Rendering, left: Any, right: Any, /) -> Any:
    return bounded(_number(left, "%") % _number(right, "%"))


def _number(value: Any, sign: str) -> Any:
    """A number only: `text % values` and `list * 1000` make much of little, and no chat template needs them."""
    if type(value) in (int, float, bool) or isinstance(value, Undefined):
        return value  # arithmetic with an undefined value says by itself which one it is
    raise TypeError(f"{kind_of(value)} has no operator {sign}")


@pass_context
def equal(context: Rendering, left: Any, right: Any, /) -> bool:
    if type(left) is str and type(right) is str:
        if len(left) == len(right):
            context.scan(len(left))
    elif type(left) not in SCALARS and type(right) not in SCALARS:
        context.weigh(left)
        context.weigh(right)
    return bool(left == right)


@pass_context
def unequal(context: Rendering, left: Any, right: Any, /) -> bool:
    return not equal(context, left, right)


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[..., bool]:
    @pass_context
    def ordered(context: Rendering, left: Any, right: Any, /) -> bool:
        context.weigh(left)
        context.weigh(right)
        return bool(compare(left, right))

    return ordered


less, at_most = _ordered(operator.lt), _ordered(operator.le)
more, at_least = _ordered(operator.gt), _ordered(operator.ge)


@pass_context
def contained(context: Rendering, needle: Any, stack: Any, /) -> bool:
    kind = type(stack)
    if kind is str:
        if type(needle) is str:
            search(context, stack, needle)
    elif kind is dict:
        if type(needle) in (dict, list, tuple):
            raise TypeError(f"{kind_of(needle)} is no key")
        context.scan(len(needle) if type(needle) is str else 0)
    elif kind in (list, tuple, range):
        context.spend(len(stack) * (1 + (len(needle) >> 5 if type(needle) is str else 0)))
        if type(needle) in (dict, list, tuple):
            context.weigh(needle)
            context.weigh(stack)
    elif not isinstance(stack, Undefined):
        raise TypeError(f"nothing is in {kind_of(stack)}")
    return needle in stack


@pass_context
def not_contained(context: Rendering, needle: Any, stack: Any, /) -> bool:
    return not contained(context, needle, stack)


COMPARISONS: dict[str, Callable[..., bool]] = {
    "eq": equal,
    "ne": unequal,
    "lt": less,
    "lteq": at_most,
    "gt": more,
    "gteq": at_least,
    "in": contained,
    "notin": not_contained,
}


@pass_context
def compare_chain(context: Rendering, first: Any, /, *others: Any) -> bool:
    """`a < b <= c`, with the comparisons' names before the values."""
    values = (first, *others[1::2])
    return all(COMPARISONS[name](context, *values[at : at + 2]) for at, name in enumerate(others[0::2]))


@pass_context
def item(context: Rendering, owner: Any, key: Any, /) -> Any:
    """`owner[key]`; where there is no such item, `owner.key`, as in Jinja."""
    kind = type(owner)
    if type(key) is str:
        context.scan(len(key))
        if kind is dict and (value := owner.get(key, MISSING)) is not MISSING:
            return value
        return attribute(context, owner, key)
    if kind in SEQUENCES and type(key) in (int, bool):
        try:
            return owner[key]
        except IndexError:
            return context.nothing(owner, key)
    return owner[key] if isinstance(owner, Undefined) else context.nothing(owner, key)


@pass_context
def attribute(context: Rendering, owner: Any, name: str, /) -> Any:
    """`owner.name`. Where Python has an attribute of that name, it hides the key, as in Jinja."""
    kind = type(owner)
    if kind is dict:
        if name not in DICT_ATTRIBUTES:
            value = owner.get(name, MISSING)
            return value if value is not MISSING else context.nothing(owner, name)
        return BUILTIN
    if kind is LoopContext and name in LOOP_ATTRIBUTES:
        return getattr(owner, name)
    if kind is Variables and name in owner.values:
        return owner.values[name]
    if isinstance(owner, Undefined):
        return owner[name]  # says which one it is
    return BUILTIN if kind in PLAIN and hasattr(kind, name) else context.nothing(owner, name)


@pass_context
def cut(context: Rendering, owner: Any, start: Any, stop: Any, step: Any, /) -> Any:
    """`owner[start:stop:step]`."""
    part = owner[start:stop:step]
    context.hold(getsizeof(part))
    context.scan(len(part))
    return part


@pass_context
def each(context: Rendering, values: Any, steps: int, /) -> Any:
    """What a loop over `values` goes through; all turns are paid at once, those too that a `break` saves."""
    if isinstance(values, Undefined):
        return ()
    if type(values) not in SEQUENCES and type(values) is not dict:
        raise TypeError(f"{kind_of(values)} has no items")
    context.spend(steps * len(values))
    return values


@pass_context
def literal(context: Rendering, value: Any, /) -> Any:
    """A list, tuple or dict that is written out in the template."""
    context.hold(ITEM_BYTES * (len(value) + 1))
    return value


@pass_context
def captured(context: Rendering, value: str, /) -> str:
    """What `{% set name %}…{% endset %}` wrote."""
    return context.made(value)


@pass_context
def enter(context: Rendering, steps: int, /) -> None:
    """A macro begins."""
    context.spend(steps)


@pass_context
def literal_key(context: Rendering, key: Any, /) -> str:
    if type(key) is not str:
        raise TypeError(f"the keys of a dict are text, not {kind_of(key)}")
    return key


def search(context: Rendering, haystack: str, needle: str) -> None:
    """Pay for a search from the left at its worst: CPython compares every place with the whole needle in a short text,
    with a needle of less than 100 in one of 30,000, and is linear in longer ones (Objects/stringlib/fastsearch.h)."""
    length, compared = len(haystack), len(needle)
    if length >= 2_500:
        compared = min(compared, 100) if length < 30_000 else 4
    context.scan(length * (compared + 1))
