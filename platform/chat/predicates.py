"""The tests (`x is string`) that chat templates use. A name that is not in TESTS is refused at construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import pass_context, tests
from jinja2.runtime import Undefined

from chat.operators import COMPARISONS, SEQUENCES
from chat.rendering import Rendering, kind_of


def _whole(value: Any) -> int:
    """Only a whole number is odd, even or divisible: `%` on text would format it."""
    if type(value) not in (int, bool):
        raise TypeError(f"{kind_of(value)} is no whole number")
    return int(value)


def _iterable(value: Any) -> bool:
    return type(value) in SEQUENCES or type(value) is dict or isinstance(value, Undefined)


PREDICATES: dict[str, Callable[..., bool]] = {
    "defined": tests.test_defined,
    "undefined": tests.test_undefined,
    "none": tests.test_none,
    "boolean": tests.test_boolean,
    "true": tests.test_true,
    "false": tests.test_false,
    "integer": tests.test_integer,
    "float": tests.test_float,
    "number": tests.test_number,
    "string": tests.test_string,
    "mapping": tests.test_mapping,
    "iterable": _iterable,
    "sequence": _iterable,
    "sameas": tests.test_sameas,
    "odd": lambda value: _whole(value) % 2 == 1,
    "even": lambda value: _whole(value) % 2 == 0,
    "divisibleby": lambda value, by: _whole(value) % _whole(by) == 0,
}


def _with_context(predicate: Callable[..., bool]) -> Callable[..., bool]:
    @pass_context
    def test(context: Rendering, /, *values: Any) -> bool:
        return predicate(*values)

    return test


COMPARED = {
    "eq": ("eq", "equalto", "=="),
    "ne": ("ne", "!="),
    "lt": ("lt", "lessthan", "<"),
    "lteq": ("le", "<="),
    "gt": ("gt", "greaterthan", ">"),
    "gteq": ("ge", ">="),
    "in": ("in",),
}
TESTS: dict[str, Callable[..., bool]] = {
    **{name: _with_context(predicate) for name, predicate in PREDICATES.items()},
    **{alias: COMPARISONS[name] for name, aliases in COMPARED.items() for alias in aliases},
}
