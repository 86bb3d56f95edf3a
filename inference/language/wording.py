"""A request's words → the model's tokens: the chat template applied, or a prompt as it is.

What a caller says stays words (chat.Marks): text like <|im_end|> never becomes the token of that name, so nobody writes
another's turn. Template and messages are hostile input (chat bounds what they may cost). Knows no sampling.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from chat import Marks, Template, TemplateRefused
from inference.errors import InputRefused
from inference.language.llama import Vocabulary
from inference.language.requests import Generate, check_one_of


class Wording:
    """One model's vocabulary and template. Any thread's."""

    def __init__(self, vocabulary: Vocabulary, template: str | None) -> None:
        self._vocabulary = vocabulary
        self._controls = _controls(vocabulary)
        self._marks = Marks(self._controls)
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
        template = self.template
        try:
            text, _ = self._marks.rendered(lambda said: template.render(said[0], tools=said[1]), [messages, tools])
        except TemplateRefused as refusal:
            raise InputRefused("/messages", refusal.code, refusal.message, refusal.hint) from None
        tokens = array("i")
        for place, part in enumerate(self._marks.parts(text)):
            if place % 2:
                tokens.append(self._controls[part])
            elif part:
                tokens += self._vocabulary.tokens(self._marks.words(part), special=False)
        return self._begun(tokens)

    def _begun(self, tokens: array[int]) -> array[int]:
        bos = self._vocabulary.bos
        if self._vocabulary.adds_bos and bos >= 0 and (not tokens or tokens[0] != bos):
            tokens.insert(0, bos)
        return tokens


def _controls(vocabulary: Vocabulary) -> dict[str, int]:
    """The tokens that text becomes in a template only."""
    found = {vocabulary.text_of(token): token for token in range(vocabulary.size) if vocabulary.is_special(token)}
    return {text: token for text, token in found.items() if text}
