"""The vocabulary in a GGUF head: its tokens, merges and special ids, checked before llama.cpp or a tokenizer sees them.

llama.cpp ends its process over some vocabularies (a token twice) and drops letters silently over others (a byte
without a token): both are refused here. Knows no text and no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from training.data.archive import shown
from training.language.gguf import Field, refused

MOST_TOKENS = 2**20
MOST_TOKEN_BYTES = 1024
_AGAIN = "convert the model again from its own tokenizer"


class TokenKind(IntEnum):
    """GGUF's token types that a byte-level vocabulary has."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# llama.cpp makes tokens of these texts control tokens whatever their type says (llama-vocab.cpp), …
CONTROL_TEXTS = _words(
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> "
    "<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> "
    "[e~[ <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|> "
    "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|> <|fim_middle|> "
    "<fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|> <|fim_pad|> <fim-pad> <fim_pad> "
    "<PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>"
)
# … and of these tokens that are found in any text.
USER_TEXTS = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))


def byte_letters() -> dict[int, str]:
    """How byte-level vocabularies write each byte: printable ones as themselves, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(rest)}


# Without these, text of every day would lose letters. Real vocabularies lack control characters and far planes.
_NEEDED = (0x0A, *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF1))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by their id. `pre` names how text is split before the merges."""

    pre: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[tuple[str, str]]
    begin: int | None
    end: int
    adds_begin: bool | None
    adds_end: bool

    def text(self, token: int | None) -> str:
        return "" if token is None else self.tokens[token]

    def silent_bytes(self) -> list[int]:
        """Bytes that no token stands for: llama.cpp leaves them out of a text."""
        known = frozenset(self.tokens)
        return sorted(byte for byte, letter in byte_letters().items() if letter not in known)

    def specials(self) -> tuple[list[str], list[str]]:
        """The texts of control tokens, and of those found in any text: as llama.cpp sees them."""
        control, user = [], []
        for text, kind in zip(self.tokens, self.kinds, strict=True):
            if text in USER_TEXTS:
                user.append(text)
            elif kind == TokenKind.CONTROL or text in CONTROL_TEXTS:
                control.append(text)
            elif kind == TokenKind.USER_DEFINED:
                user.append(text)
        return control, user


def read(fields: Mapping[str, Field]) -> Vocabulary:
    """The head's vocabulary, after every rule."""
    model = _value(fields, "tokenizer.ggml.model", "text")
    if model != "gpt2":
        raise refused(
            "tokenizer_unknown",
            f"the tokenizer is of the kind {shown(model)}",
            "models with a byte-level BPE tokenizer (gpt2) are served",
        )
    tokens = _tokens(fields)
    begin = _id(fields, "tokenizer.ggml.bos_token_id", len(tokens))
    end = _id(fields, "tokenizer.ggml.eos_token_id", len(tokens))
    if end is None:
        raise refused("vocabulary", "tokenizer.ggml.eos_token_id is missing: no answer would end", _AGAIN)
    return Vocabulary(
        pre=_value(fields, "tokenizer.ggml.pre", "text"),
        tokens=tokens,
        kinds=_kinds(fields, len(tokens)),
        merges=_merges(fields, frozenset(tokens)),
        begin=begin,
        end=end,
        adds_begin=_flag(fields, "tokenizer.ggml.add_bos_token"),
        adds_end=bool(_flag(fields, "tokenizer.ggml.add_eos_token")),
    )


def _value(fields: Mapping[str, Field], key: str, kind: str) -> Any:
    field = fields.get(key)
    if field is None or field.kind != kind:
        problem = f"{key} is missing" if field is None else f"{key} is {field.kind}, not {kind}"
        raise refused("vocabulary", problem, _AGAIN)
    return field.value


def _flag(fields: Mapping[str, Field], key: str) -> bool | None:
    value: bool | None = _value(fields, key, "bool") if key in fields else None
    return value


def _id(fields: Mapping[str, Field], key: str, tokens: int) -> int | None:
    if key not in fields:
        return None
    value: int = _value(fields, key, "u32")
    if value >= tokens:
        raise refused("vocabulary", f"{key} is {value}, there are {tokens} tokens", _AGAIN)
    return value


def _tokens(fields: Mapping[str, Field]) -> list[str]:
    tokens: list[str] = _value(fields, "tokenizer.ggml.tokens", "[text]")
    if not 1 <= len(tokens) <= MOST_TOKENS:
        raise refused("vocabulary", f"there are {len(tokens)} tokens; 1 to {MOST_TOKENS} are served", _AGAIN)
    seen: set[str] = set()
    for place, token in enumerate(tokens):
        if not token or len(token.encode()) > MOST_TOKEN_BYTES:
            raise refused("vocabulary", f"token {place} has {len(token.encode())} bytes", _AGAIN)
        if token in seen:
            raise refused("vocabulary", f"token {place}, {shown(token)}, is there twice", _AGAIN)
        seen.add(token)
    letters = byte_letters()
    missing = next((byte for byte in _NEEDED if letters[byte] not in seen), None)
    if missing is not None:
        raise refused("vocabulary", f"no token stands for the byte 0x{missing:02x}", _AGAIN)
    return tokens


def _kinds(fields: Mapping[str, Field], tokens: int) -> list[int]:
    kinds: list[int] = _value(fields, "tokenizer.ggml.token_type", "[i32]")
    if len(kinds) != tokens:
        raise refused("vocabulary", f"there are {tokens} tokens and {len(kinds)} types of them", _AGAIN)
    for place, kind in enumerate(kinds):
        if kind not in TokenKind._value2member_map_:
            raise refused(
                "vocabulary", f"token {place} has the type {kind}, which byte-level vocabularies have not", _AGAIN
            )
    return kinds


def _merges(fields: Mapping[str, Field], tokens: frozenset[str]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    seen: set[str] = set()
    for place, line in enumerate(_value(fields, "tokenizer.ggml.merges", "[text]")):
        left, space, right = line.partition(" ")
        if not (space and left in tokens and right in tokens and left + right in tokens):
            raise refused("vocabulary", f"merge {place}, {shown(line)}, is not of two tokens into a third", _AGAIN)
        if line in seen:
            raise refused("vocabulary", f"merge {place}, {shown(line)}, is there twice", _AGAIN)
        seen.add(line)
        merges.append((left, right))
    return merges
