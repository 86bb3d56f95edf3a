"""What a template may call by name: its own macros, and the four functions that chat templates know.

The clock of `strftime_now` is the one that the caller gave to `Template.render`, else the system's, in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Macro, Undefined

from chat.errors import output_too_large, raised, too_slow
from chat.operators import text
from chat.rendering import DEEPEST_CALL, ITEM_BYTES, LONGEST_LIST, Rendering, Variables, kind_of

DATE_FORMAT = re.compile(r"(?:[^%]|%-?[YmdBbAaHIMSpjyfZz%])*")
LONGEST_DATE_FORMAT = 100


class Function:
    """A function that the template finds under its name."""

    __slots__ = ("body",)

    def __init__(self, body: Callable[..., Any]) -> None:
        self.body = body


def namespace(context: Rendering, given: Any = None, /, **values: Any) -> Variables:
    made = {**given, **values} if type(given) is dict else values
    context.hold(ITEM_BYTES * (4 + len(made)))
    return Variables(made)


def bounded_range(context: Rendering, /, *ends: Any) -> range:
    made = range(*ends)
    if len(made) > LONGEST_LIST:
        raise output_too_large(f"a range of more than {LONGEST_LIST} numbers")
    return made


def raise_exception(context: Rendering, message: Any = "", /) -> None:
    raise raised(text(context, message))


def strftime_now(context: Rendering, layout: Any, /) -> str:
    if type(layout) is not str or len(layout) > LONGEST_DATE_FORMAT or not DATE_FORMAT.fullmatch(layout):
        raise ValueError("strftime_now knows %Y %m %d %B %b %A %a %H %I %M %S %p %j %y %f %Z %z only")
    return context.made((context.now or datetime.now(UTC)).strftime(layout))


FUNCTIONS = {
    "namespace": Function(namespace),
    "range": Function(bounded_range),
    "raise_exception": Function(raise_exception),
    "strftime_now": Function(strftime_now),
}


@pass_context
def call(context: Rendering, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """`name(…)`."""
    if type(function) is Macro:
        return _call_macro(context, function, args, kwargs)
    if type(function) is Function:
        return function.body(context, *args, **kwargs)
    if isinstance(function, Undefined):
        return function()  # says which one it is
    raise TypeError(f"{kind_of(function)} cannot be called")


def _call_macro(context: Rendering, macro: Macro, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if context.depth == DEEPEST_CALL:
        raise too_slow(f"macros call macros more than {DEEPEST_CALL} deep")
    context.depth += 1
    try:
        return context.made(macro(*args, **kwargs))
    finally:
        context.depth -= 1
