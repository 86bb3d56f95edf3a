"""Log-probabilities of tokens, as chat completions and as legacy completions tell them.

A token need not be whole UTF-8: chats tell its bytes too, completions write such a one as `bytes:\\xe2\\x82`. What JSON
has no number for (a token that cannot come, or that nothing came before) is -9999 in a chat, as OpenAI's is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.language.requests import Logprob

LEAST = -9999.0


def of_chat(entries: Sequence[Logprob]) -> dict[str, Any]:
    return {"content": [_entry(entry) for entry in entries], "refusal": None}


def _entry(entry: Logprob) -> dict[str, Any]:
    top = [_token(text, logprob) for _, text, logprob in entry.top]
    return _token(entry.text, entry.logprob) | {"top_logprobs": top}


def _token(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(text)}


def _finite(logprob: float) -> float:
    return logprob if logprob >= LEAST else LEAST  # NaN too


def of_completion(entries: Sequence[Logprob], offset: int = 0) -> dict[str, Any]:
    """`offset`: the characters of the choice before these tokens."""
    tokens = [_text(entry.text) for entry in entries]
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.text.decode("utf-8", "replace"))
    return {
        "tokens": tokens,
        "token_logprobs": [_finite(entry.logprob) for entry in entries],
        "top_logprobs": [_top(entry) for entry in entries] if any(entry.top for entry in entries) else None,
        "text_offset": offsets,
    }


def _top(entry: Logprob) -> dict[str, float] | None:
    if not entry.top:
        return None
    return {_text(text): _finite(logprob) for _, text, logprob in entry.top}


def _text(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)
