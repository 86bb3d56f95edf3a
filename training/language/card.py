"""What a language model says of itself, for people and for who serves it; and its chat template, tried once.

Read from the head that is served, never from what came with it.
"""

from __future__ import annotations

import re
from typing import Any

from training.errors import ImportRefused
from training.language import structure
from training.language.gguf import Head, refused
from training.language.structure import Hyperparameters
from training.language.vocabulary import Vocabulary

MOST_TEMPLATE_BYTES = 64 * 2**10
_MOST_CHARACTERS = 200
_TOOLS = re.compile(r"\btools\b")


def card(head: Head, hyperparameters: Hyperparameters, vocabulary: Vocabulary, template: str | None) -> dict[str, Any]:
    return {
        "architecture": structure.ARCHITECTURE,
        "name": _text(head, "general.name"),
        "license": _text(head, "general.license"),
        "parameters": structure.parameters(head.tensors),
        "type": structure.majority_type(head.tensors),
        "size_bytes": head.size_bytes,
        "context_length": hyperparameters.context_length,
        "embedding_length": hyperparameters.width,
        "blocks": hyperparameters.blocks,
        "vocabulary": hyperparameters.vocabulary,
        "tokenizer": vocabulary.pre,
        "chat_template": template is not None,
        # Calls that a model makes by itself are read in one form only, that of Hermes and Qwen.
        "tools": template is not None and bool(_TOOLS.search(template)) and "<tool_call>" in template,
    }


def chat_template(head: Head, vocabulary: Vocabulary) -> str | None:
    """The template, after a first message was put through it."""
    field = head.fields.get("tokenizer.chat_template")
    if field is None:
        return None
    if field.kind != "text":
        raise refused("chat_template", f"tokenizer.chat_template is {field.kind}, not text", "convert the model again")
    source: str = field.value
    if len(source.encode()) > MOST_TEMPLATE_BYTES:
        raise refused(
            "chat_template",
            f"the chat template has {len(source.encode())} bytes",
            f"{MOST_TEMPLATE_BYTES} are the most of a template",
        )
    _try(source, vocabulary)
    return source


def _try(source: str, vocabulary: Vocabulary) -> None:
    from chat import Template, TemplateRefused

    try:
        template = Template(source, bos=vocabulary.text(vocabulary.begin), eos=vocabulary.text(vocabulary.end))
        template.render([{"role": "user", "content": "Is anybody there?"}])
    except TemplateRefused as problem:
        raise ImportRefused(f"the chat template: {problem.message}", problem.hint, code=problem.code) from None


def _text(head: Head, key: str) -> str | None:
    field = head.fields.get(key)
    return field.value[:_MOST_CHARACTERS] if field is not None and field.kind == "text" else None
