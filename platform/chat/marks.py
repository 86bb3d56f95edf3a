"""What is said in a conversation stays words: text like <|im_end|> never becomes the token of that name, so nobody
writes another's turn. Serving and training guard alike.

While a template is rendered, other letters stand in for those of a control token's text that somebody says; so where
such a text is found in what comes out, it is the template's own. Where a template puts one together from pieces of what
is said, all brackets, bars and the like that are said are stood in for. Knows texts, no tokens and no template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

STAND_INS: Final = 0x10F000  # the last letters for private use: one for each letter of the control tokens' texts
DEEPEST: Final = 64  # of messages; the template refuses what is nested deeper


class Marks:
    """For the texts of one vocabulary's control tokens. Any thread's."""

    def __init__(self, controls: Iterable[str]) -> None:
        longest_first = sorted(set(controls) - {""}, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
        letters = sorted({letter for text in longest_first for letter in text})
        self._stand_ins = {ord(letter): chr(STAND_INS + place) for place, letter in enumerate(letters)}
        self._signs = {ord(letter): self._stand_ins[ord(letter)] for letter in letters if _is_sign(letter)}
        self._private = {ord(letter): "\ufffd" for letter in self._stand_ins.values()}
        self._own = {ord(letter): chr(place) for place, letter in self._stand_ins.items()}

    def rendered(self, render: Callable[[Any], str], said: Any) -> tuple[str, Any]:
        """What `render` makes of what is said, and the guarded copy of it that this is of."""
        guarded = self._guarded(said, {})
        text = render(guarded)
        strictly = self._guarded(guarded, self._signs)
        if strictly != guarded:
            strict = render(strictly)
            if self.parts(text)[1::2] != self.parts(strict)[1::2]:
                return strict, strictly
        return text, guarded

    def parts(self, rendered: str) -> list[str]:
        """Text, a control token's text, text, a control token's text, …, text; `words` are what a text says."""
        return [rendered] if self._control is None else self._control.split(rendered)

    def words(self, part: str) -> str:
        return part.translate(self._own)

    def _guarded(self, value: Any, signs: Mapping[int, str], depth: int = DEEPEST + 2) -> Any:
        """A copy in which other letters stand in for the texts of control tokens, or also for all of these signs."""
        if isinstance(value, str):
            return value.translate(signs) if signs else self._without_controls(value)
        if depth and isinstance(value, Mapping):
            return {
                self._guarded(key, signs, 0): self._guarded(inner, signs, depth - 1) for key, inner in value.items()
            }
        if depth and isinstance(value, list | tuple):
            return [self._guarded(inner, signs, depth - 1) for inner in value]
        return value

    def _without_controls(self, said: str) -> str:
        if self._control is None:
            return said
        said = said.translate(self._private)
        return self._control.sub(lambda found: found[0].translate(self._stand_ins), said)


def _is_sign(letter: str) -> bool:
    """No letter of which the names of fields and roles are made."""
    return not (letter.isalnum() or letter.isspace() or letter == "_")
