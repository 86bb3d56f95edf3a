"""A tokenizer rebuilt from a GGUF head's own vocabulary, to split text exactly as llama.cpp does.

One line for each way of splitting (`tokenizer.ggml.pre`) that a test proves token by token. Only ways for which
llama.cpp has code of its own are here: for the others it runs std::regex, whose depth grows with the text, so that a
long word of a caller's would end the process that serves it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from training.data.archive import shown
from training.errors import ImportRefused
from training.language.vocabulary import Vocabulary, byte_letters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# llama.cpp's own writing of the contractions: (?i:'s) would also take the long s, U+017F.
_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # %s: how numbers are cut


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is cut before the merges. `splits` come in turn, `gpt2` is GPT-2's own cut behind them."""

    splits: tuple[str, ...]
    gpt2: bool
    whole_words: bool = False  # a word that is a token stays whole, whatever the merges say
    adds_begin: bool = False  # where the head does not say


_DIGITS = Splitting((r"\p{N}",), gpt2=True)
_GPT2 = Splitting((), gpt2=True)
_LLAMA3 = Splitting((_CONTRACTIONS + _WORDS % r"\p{N}{1,3}",), gpt2=False, whole_words=True, adds_begin=True)
_SMAUG = Splitting(_LLAMA3.splits, gpt2=False)
_QWEN2 = Splitting((_CONTRACTIONS + _WORDS % r"\p{N}",), gpt2=False)

SPLITTINGS: Mapping[str, Splitting] = MappingProxyType(
    {
        "smollm": _DIGITS,
        "gpt-2": _GPT2,
        "llama-bpe": _LLAMA3,
        "llama3": _LLAMA3,
        "llama-v3": _LLAMA3,
        "falcon3": _LLAMA3,
        "smaug-bpe": _SMAUG,
        "qwen2": _QWEN2,
    }
)


def splitting(pre: str) -> Splitting:
    """ImportRefused where nothing proves that text is split alike."""
    if pre not in SPLITTINGS:
        raise ImportRefused(
            f"the tokenizer splits text by {shown(pre)}",
            f"known are {', '.join(SPLITTINGS)}",
            code="tokenizer_unknown",
        )
    return SPLITTINGS[pre]


def adds_begin(vocabulary: Vocabulary) -> bool:
    """Whether a begin token goes before every prompt, as llama.cpp decides it."""
    told = vocabulary.adds_begin
    return splitting(vocabulary.pre).adds_begin if told is None else told


class Rebuilt:
    """The tokenizer of a vocabulary; it puts nothing before or after a text by itself."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        library = imported()
        way = splitting(vocabulary.pre)
        self._count = len(vocabulary.tokens)
        ids = {token: place for place, token in enumerate(vocabulary.tokens)}
        # Letters of bytes that have no token: they keep their neighbours from being merged and are left out at last.
        for letter in sorted(set(byte_letters().values()) - ids.keys()):
            ids[letter] = len(ids)
        model = library.models.BPE(vocab=ids, merges=list(vocabulary.merges), ignore_merges=way.whole_words)
        self._tokenizer: Tokenizer = library.Tokenizer(model)
        cuts: list[Any] = [library.pre_tokenizers.Split(library.Regex(split), "isolated") for split in way.splits]
        cuts.append(library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=way.gpt2))
        self._tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(cuts)
        self._tokenizer.decoder = library.decoders.ByteLevel()
        control, user = vocabulary.specials()
        special = [library.AddedToken(text, special=True, normalized=False) for text in control]
        self._tokenizer.add_special_tokens(special)
        self._tokenizer.add_tokens([library.AddedToken(text, special=False, normalized=False) for text in user])

    def ids(self, text: str, *, special: bool) -> list[int]:
        """The text's tokens; `special`: its control tokens count as such, and are not spelled out."""
        return [token for token in ids(self._tokenizer, text, special=special) if token < self._count]

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens say, control tokens among it."""
        found: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return found


def ids(tokenizer: Tokenizer, text: str, *, special: bool) -> list[int]:
    """The same of any tokenizer of the package."""
    tokenizer.encode_special_tokens = not special
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def imported() -> Any:
    """The package tokenizers, kept from starting threads of its own."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    return tokenizers
