"""What an ordinary template has to come out as: plain Jinja, set up the way that `apply_chat_template` documents it.

It bounds nothing, so it gets only templates of ours.
"""

from __future__ import annotations

import json
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
)
ENVIRONMENT.filters["tojson"] = _tojson
ENVIRONMENT.globals["raise_exception"] = _raise_exception


def rendered(source: str, messages: list[Any], tools: list[Any] | None = None, prompt: bool = True) -> str | None:
    """None where the template fails."""
    try:
        return ENVIRONMENT.from_string(source).render(
            messages=messages,
            tools=tools or None,
            documents=None,
            add_generation_prompt=prompt,
            bos_token="<s>",
            eos_token="</s>",
        )
    except Exception:  # a TypeError, an UndefinedError … : whatever it is, it is no prompt
        return None
