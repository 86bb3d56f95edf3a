"""What one rendering may spend, and the values that it works on.

A `Rendering` is Jinja's context of one call of `Template.render`, with two purses that only get emptier: steps (time)
and bytes (everything that was ever built, so what is held is less). The compiled template hands it to every operator,
filter, test and call (rewrite.py sees to that); these take from the purses before they work, and hand back no value
that was not paid for.
There is no clock: the same template and messages end the same way on every machine. Knows no syntax.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from sys import getsizeof
from typing import Any

from jinja2.runtime import Context, Macro, Undefined
from jinja2.utils import Namespace

from chat.errors import output_too_large, too_slow

DEEPEST_CALL = 100
LONGEST_TEXT = 4 << 20  # characters, of a value on the way
LONGEST_LIST = 100_000
LONGEST_DUMP = 1 << 20  # characters in what is printed or dumped as a whole: escaping makes up to six of each
ITEM_BYTES = 100  # an element of a literal: its slot, and the number or undefined value that may be new with it
WORD = 1000  # texts up to here cost no step of their own: their operation's weight covers them

SCALARS = frozenset({bool, int, float, type(None)})
SMALLEST, LARGEST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one rendering. A step is 20 to 110 ns of one core of 2023, whatever the template does with it."""

    steps: int = 3_000_000
    built_bytes: int = 32 << 20
    output_bytes: int = 4 << 20


class Rendering(Context):
    """One rendering, in one thread; never shared and never used again."""

    steps: int
    bytes: int
    depth = 0
    now: datetime | None = None

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise too_slow()

    def scan(self, characters: int) -> None:
        """Pay for reading through so many characters."""
        if characters > WORD:
            self.spend(characters >> 5)

    def hold(self, size_bytes: int) -> None:
        self.bytes -= size_bytes
        if self.bytes < 0:
            raise output_too_large("the template builds too much: its values together are beyond the limit")

    def made(self, text: str) -> str:
        """A text that is new, and as long as an operation can make it of texts that were allowed."""
        self.bytes -= getsizeof(text)
        if self.bytes < 0 or len(text) > LONGEST_TEXT:
            raise output_too_large("the template builds a text, or texts in all, beyond the limit")
        return text

    def listed(self, items: list[Any]) -> list[Any]:
        """A list that is new, of items that were paid for."""
        if len(items) > LONGEST_LIST:
            raise output_too_large(f"the template builds a list of more than {LONGEST_LIST} items")
        self.hold(getsizeof(items))
        return items

    def nothing(self, owner: Any, name: object) -> Undefined:
        """What a missing key, item or attribute is."""
        self.hold(ITEM_BYTES)
        return Undefined(
            obj=owner, name=str(name)[:100] if type(name) in (str, int) else f"of type {type(name).__name__}"
        )

    def weigh(self, value: Any) -> int:
        """Pay for going through the whole of `value`, and the characters in it; what is no data is refused."""
        characters, waiting = 0, [value]
        while waiting:
            found = waiting.pop()
            kind = type(found)
            if kind is str:
                characters += len(found)
            elif kind is dict:
                self.spend(4 * len(found) + 2)
                characters += sum(map(len, found))
                waiting.extend(found.values())
            elif kind is list or kind is tuple:
                self.spend(2 * len(found) + 2)
                waiting.extend(found)
            elif kind not in SCALARS and kind is not range and not isinstance(found, Undefined):
                raise TypeError(f"{kind_of(found)} is no data")
        self.scan(characters)
        return characters

    def dumpable(self, value: Any) -> Any:
        """`value`, if a print of the whole of it stays small enough."""
        if self.weigh(value) > LONGEST_DUMP:
            raise output_too_large(f"a value of more than {LONGEST_DUMP >> 20} Mi characters is printed as a whole")
        return value


class Variables(Namespace):
    """What `namespace()` makes: the one thing that a template can assign to, `{% set ns.name = value %}`."""

    __getattribute__ = object.__getattribute__  # Jinja's own answers with its attributes

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __setitem__(self, name: str, value: Any) -> None:
        self.values[name] = value


class Builtin:
    """What Python's own attribute of a value is to a template: something that is defined, and of no use."""

    __slots__ = ()


BUILTIN = Builtin()


def kind_of(value: Any) -> str:
    """What a refusal calls a value: never its content."""
    if isinstance(value, Macro):
        return "a macro"
    return f"a value of type {type(value).__name__}"


def bounded(number: Any) -> Any:
    """A result of arithmetic, if it is one that 64 bits hold."""
    if type(number) is int and not SMALLEST <= number <= LARGEST:
        raise OverflowError("a whole number that 64 bits do not hold")
    return number
