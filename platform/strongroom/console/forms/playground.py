"""What is set beside the box in which one asks a model in words. It is only shown: the script makes requests of it."""

from __future__ import annotations

from django import forms

from strongroom.console.forms.document import long_text, number, whole
from strongroom.openai.completions import USUAL_TOKENS

SCHEMA = """{"type": "object",
 "properties": {"city": {"type": "string"}},
 "required": ["city"],
 "additionalProperties": false}"""


class ChatForm(forms.Form):
    """The fields of POST /v1/chat/completions that the chat box sends, by their names; empty: the model's default."""

    system = long_text("System prompt", rows=2)
    temperature = number("Temperature", initial=0.2, min_value=0, max_value=2, help="0: the likeliest word.")
    top_p = number("Top p", initial=0.9, min_value=0, max_value=1)
    max_tokens = whole("Max tokens", initial=512, min_value=1, help="Empty: to the context's end.")
    seed = whole("Seed", help="The same seed draws alike.")
    stop = long_text("Stop at", rows=2, help=r"A text a line; \n stands for a new line.")
    schema = long_text("Answer as JSON of this schema", rows=4, code=True, placeholder=SCHEMA)

    of_chats = ("system", "schema")  # what a model without a chat template does not know
    wide = frozenset({"system", "stop", "schema"})

    def __init__(self, *, chats: bool, exact: bool = False) -> None:
        """`exact`: begins with the likeliest words, so that two models are compared by what they are."""
        super().__init__(prefix="chat", initial={"temperature": 0, "max_tokens": 128} if exact else None)
        if not chats:
            for name in self.of_chats:
                del self.fields[name]
            self.fields["max_tokens"].help_text = f"Empty: {USUAL_TOKENS}."
