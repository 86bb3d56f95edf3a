"""A request's words → the model's tokens: the chat template applied, or a prompt as it is.

What a caller says stays words: text like <|im_end|> never becomes the token of that name, so nobody writes another's
turn. While the template is rendered, other letters stand in for those of a control token's text that a caller says; so
where such a text is found in what comes out, it is the template's own. Where a template puts one together from pieces
of what is said, all brackets, bars and the like that a caller says are stood in for. Template and messages are hostile
input (chat bounds what they may cost). Knows no sampling.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chat import Template, TemplateRefused
from inference.errors import InputRefused
from inference.language.llama import Vocabulary
from inference.language.requests import Generate, check_one_of

STAND_INS: Final = 0x10F000  # the last letters for private use: one for each letter of the control tokens' texts
DEEPEST: Final = 64  # of messages; chat refuses what is nested deeper


class Wording:
    """One model's vocabulary and template. Any thread's."""

    def __init__(self, vocabulary: Vocabulary, template: str | None) -> None:
        self._vocabulary = vocabulary
        self._controls = _controls(vocabulary)
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
        letters = sorted({letter for text in self._controls for letter in text})
        self._stand_ins = {ord(letter): chr(STAND_INS + place) for place, letter in enumerate(letters)}
        self._signs = {ord(letter): self._stand_ins[ord(letter)] for letter in letters if _is_sign(letter)}
        self._private = {ord(letter): "\ufffd" for letter in self._stand_ins.values()}
        self._own = {ord(letter): chr(place) for place, letter in self._stand_ins.items()}
        bos, eos = (vocabulary.text_of(token) if token >= 0 else "" for token in (vocabulary.bos, vocabulary.eos))
        self.template = None if template is None else Template(template, bos=bos, eos=eos)

    def tokens(self, generate: Generate) -> array[int]:
        """The prompt; InputRefused."""
        check_one_of(generate)
        if generate.messages is not None:
            return self._chat(generate.messages, generate.tools)
        if isinstance(generate.prompt, str):
            return self._begun(self._vocabulary.tokens(generate.prompt, special=True))
        wrong = [token for token in generate.prompt or () if not 0 <= token < self._vocabulary.size]
        if wrong:
            hint = f"expected 0 to {self._vocabulary.size - 1}"
            raise InputRefused("/prompt", "token", f"holds the token {wrong[0]}", hint)
        return array("i", generate.prompt or ())

    def _chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> array[int]:
        if self.template is None:
            raise InputRefused("/messages", "chat_template", "cannot be taken: the model has no chat template")
        said = self._guarded([messages, tools], {})
        strictly = self._guarded(said, self._signs)
        try:
            parts = self._parts(self.template.render(said[0], tools=said[1]))
            if strictly != said:
                strict = self._parts(self.template.render(strictly[0], tools=strictly[1]))
                parts = parts if parts[1::2] == strict[1::2] else strict
        except TemplateRefused as refusal:
            raise InputRefused("/messages", refusal.code, refusal.message, refusal.hint) from None
        tokens = array("i")
        for place, part in enumerate(parts):
            if place % 2:
                tokens.append(self._controls[part])
            elif part:
                tokens += self._vocabulary.tokens(part.translate(self._own), special=False)
        return self._begun(tokens)

    def _parts(self, text: str) -> list[str]:
        """Text, control token, text, control token, …, text."""
        return [text] if self._control is None else self._control.split(text)

    def _begun(self, tokens: array[int]) -> array[int]:
        bos = self._vocabulary.bos
        if self._vocabulary.adds_bos and bos >= 0 and (not tokens or tokens[0] != bos):
            tokens.insert(0, bos)
        return tokens

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


def _controls(vocabulary: Vocabulary) -> dict[str, int]:
    """The tokens that text becomes in a template only."""
    found = {vocabulary.text_of(token): token for token in range(vocabulary.size) if vocabulary.is_special(token)}
    return {text: token for text, token in found.items() if text}


def _is_sign(letter: str) -> bool:
    """No letter of which the names of fields and roles are made."""
    return not (letter.isalnum() or letter.isspace() or letter == "_")
