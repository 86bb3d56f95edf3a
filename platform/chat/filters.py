"""The filters that chat templates use, each one paid for. A name that is not in FILTERS is refused at construction.

They answer as Jinja's do without autoescape, and as transformers' own `tojson`; what Jinja makes a generator is a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import pass_context
from jinja2.filters import do_title
from jinja2.runtime import Undefined

from chat import methods
from chat.dump import tojson
from chat.operators import each, item, text
from chat.predicates import TESTS
from chat.rendering import ITEM_BYTES, SCALARS, Rendering, bounded, kind_of

LONGEST_NUMBER = 400  # characters of a number that is text
SORTED_ITEM_STEPS = 40


@pass_context
def default(context: Rendering, value: Any, /, default_value: Any = "", boolean: Any = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


@pass_context
def length(context: Rendering, value: Any, /) -> int:
    return len(each(context, value, 0))


@pass_context
def first(context: Rendering, values: Any, /) -> Any:
    for value in each(context, values, 0):
        return value
    return context.nothing(values, "first")


@pass_context
def last(context: Rendering, values: Any, /) -> Any:
    for value in reversed(each(context, values, 0)):
        return value
    return context.nothing(values, "last")


@pass_context
def as_list(context: Rendering, values: Any, /) -> list[Any]:
    if type(values) in (str, range):
        context.hold(ITEM_BYTES * len(values))
    return context.listed(list(each(context, values, 1)))


@pass_context
def backwards(context: Rendering, values: Any, /) -> Any:
    return context.made(values[::-1]) if type(values) is str else as_list(context, values)[::-1]


@pass_context
def items(context: Rendering, value: Any, /) -> Any:
    if isinstance(value, Undefined):
        return ()
    return methods.call_method(context, value, "items")


@pass_context
def dictsort(
    context: Rendering, value: Any, /, case_sensitive: Any = False, by: Any = "key", reverse: Any = False
) -> list[Any]:
    if by not in ("key", "value"):
        raise ValueError("dictsort sorts by 'key' or by 'value'")
    pairs = items(context, value)
    lengths = [len(place) for pair in pairs if type(place := pair[by == "value"]) is str]
    context.spend(len(pairs) * (SORTED_ITEM_STEPS + max(lengths, default=0)) + 2 * sum(lengths))
    keys = [_place(pair[by == "value"], bool(case_sensitive)) for pair in pairs]
    order = sorted(range(len(pairs)), key=keys.__getitem__, reverse=bool(reverse))
    return context.listed([pairs[at] for at in order])


def _place(value: Any, case_sensitive: bool) -> Any:
    if type(value) is str:
        return value if case_sensitive else value.lower()
    if type(value) not in SCALARS:
        raise TypeError(f"dictsort: {kind_of(value)} has no place in an order")
    return value


@pass_context
def join(context: Rendering, values: Any, /, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        values = mapped(context, values, attribute=attribute)
    return methods.join(context, text(context, d), [text(context, value) for value in each(context, values, 2)])


@pass_context
def replace(context: Rendering, value: Any, old: Any, new: Any, /, count: Any = None) -> str:
    was, sought, becomes = (text(context, given) for given in (value, old, new))
    return methods.replace(context, was, sought, becomes, -1 if count is None else count)


def _method(name: str) -> Callable[..., Any]:
    @pass_context
    def of_text(context: Rendering, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        return methods.call_method(context, text(context, value), name, *args, **kwargs)

    return of_text


@pass_context
def title(context: Rendering, value: Any, /) -> str:
    written = text(context, value)
    context.spend(10 * len(written))
    return context.made(do_title(written))


@pass_context
def whole(context: Rendering, value: Any, /, default: Any = 0, base: Any = 10) -> Any:
    """`int`: what has no whole part is the default."""
    try:
        return bounded(int(_number_text(value), base) if type(value) is str else int(_number_text(value)))
    except (TypeError, ValueError):
        try:
            cut = int(float(_number_text(value)))
        except (TypeError, ValueError, OverflowError):
            return default
        return bounded(cut)


@pass_context
def fraction(context: Rendering, value: Any, /, default: Any = 0.0) -> Any:
    """`float`."""
    try:
        return float(_number_text(value))
    except (TypeError, ValueError):
        return default


def _number_text(value: Any) -> Any:
    if type(value) is str and len(value) > LONGEST_NUMBER:
        raise ValueError("longer than a number")
    return value


@pass_context
def absolute(context: Rendering, value: Any, /) -> Any:
    return bounded(abs(value))


@pass_context
def mapped(context: Rendering, values: Any, /, name: Any = None, *args: Any, **kwargs: Any) -> list[Any]:
    """`map('upper')` or `map(attribute='role', default=…)`."""
    found = each(context, values, 10) if values else ()  # nothing at all is no items here, as in Jinja
    if name is not None:
        apply = _named(FILTERS, name)
        return context.listed([apply(context, value, *args, **kwargs) for value in found])
    path = _path(context, kwargs["attribute"])
    return context.listed([_reach(context, value, path, kwargs.get("default")) for value in found])


def _path(context: Rendering, attribute: Any) -> list[Any]:
    """`a.b.0`, as Jinja reads it."""
    if type(attribute) is not str:
        return [attribute]
    context.scan(len(attribute))
    return [int(part) if part.isdigit() else part for part in attribute.split(".", 10)]


def _reach(context: Rendering, value: Any, path: list[Any], instead: Any = None) -> Any:
    for part in path:
        value = item(context, value, part)
        if instead is not None and isinstance(value, Undefined):
            value = instead
    return value


def _picked(keep: bool, by_attribute: bool) -> Callable[..., list[Any]]:
    @pass_context
    def picked(context: Rendering, values: Any, /, *args: Any) -> list[Any]:
        path = _path(context, args[0]) if by_attribute else []
        test, *others = args[by_attribute:] or (None,)
        holds = _truth if test is None else _named(TESTS, test)
        found = each(context, values, 10) if values else ()
        return context.listed(
            [value for value in found if bool(holds(context, _reach(context, value, path), *others)) is keep]
        )

    return picked


def _truth(context: Rendering, value: Any) -> bool:
    return bool(value)


def _named(table: dict[str, Callable[..., Any]], name: Any) -> Callable[..., Any]:
    if type(name) is not str or name not in table:
        raise ValueError("map and select take the name of a filter or test that is allowed")
    return table[name]


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": absolute,
    "capitalize": _method("capitalize"),
    "count": length,
    "d": default,
    "default": default,
    "dictsort": dictsort,
    "first": first,
    "float": fraction,
    "int": whole,
    "items": items,
    "join": join,
    "last": last,
    "length": length,
    "list": as_list,
    "lower": _method("lower"),
    "map": mapped,
    "reject": _picked(keep=False, by_attribute=False),
    "rejectattr": _picked(keep=False, by_attribute=True),
    "replace": replace,
    "reverse": backwards,
    "safe": text,
    "select": _picked(keep=True, by_attribute=False),
    "selectattr": _picked(keep=True, by_attribute=True),
    "string": text,
    "title": title,
    "tojson": tojson,
    "trim": _method("strip"),
    "upper": _method("upper"),
}
