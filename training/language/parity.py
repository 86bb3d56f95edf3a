"""The gate of every import: the same text, cut into the same tokens by llama.cpp, by the tokenizer that we rebuild from
the head, and by the one that came with the model.

A wrong `tokenizer.ggml.pre` fails nowhere else: the model answers, only worse. The texts are those where tokenizers
part: numbers, spaces, line ends, contractions, letters of every kind, emoji, control tokens spelled out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from training.errors import ImportRefused
from training.language.tokenizer import Rebuilt, adds_begin
from training.language.trial import Trial
from training.language.vocabulary import Vocabulary

Cut = Callable[[str, bool], list[int]]  # a text's tokens; whether its control tokens count as such
MOST_SPECIALS = 128  # texts are made of so many of a vocabulary's own control tokens
MOST_OVERLAPS = 32

_WORDS = [
    *("the", "model's", "don't", "DON'T", "we'll", "WE'LL", "they've", "I'd", "i'm", "y'all're", "rock'n'roll", "'tis"),
    *("''", "'''", "'s'S", "l'été", "d'Été", "O'Neil's"),
]
_NUMBERS = [
    *("0", "7", "42", "007", "123", "1234", "12345", "1234567890", "3.14159", "1,234,567", "1e-9", "0x7fff"),
    *("2024-02-29", "½", "²", "Ⅷ", "٣٤٥", "१२३४", "０１２", "𝟙𝟚𝟛", "1a2b3c", "1st"),
]
_SPACES = [
    " ",
    "  ",
    "   ",
    "        ",
    "\t",
    "\t\t",
    " \t ",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\u2028",
    "\x0b",
    "\x0c",
    "\x85",
    "\ufeff",
]
_ENDS = [
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n\r",
    " \n",
    "\n ",
    "  \n  ",
    "\t\n\t",
    " \r\n ",
    "\n \n \n",
    "\u2029",
]
_SCRIPTS = [
    *(
        "naïve café",
        "ÀÉÎÕÜ",
        "ﬁne ﬂow",
        "STRASSE straße ẞ",
        "İstanbul ılık",
        "ǅ ǈ ǋ",
        "Ωμέγα",
        "Привет, мир!",
        "Їжак ґанок",
    ),
    *("你好，世界。", "漢字かな交じり文", "カタカナ ﾊﾝｶｸ", "안녕하세요 세계", "한", "㐀㐁𠀀𠀁", "〇一二三"),
    *("مرحبا بالعالم", "שָׁלוֹם עולם", "\u202eright to left\u202c", "\u200fאבג\u200e", "فارسی نیم\u200cفاصله"),
    *("नमस्ते दुनिया", "বাংলা ভাষা", "தமிழ் மொழி", "ไทยไม่มีวรรค", "ကမ္ဘာ", "ქართული", "հայերեն", "አማርኛ", "ᏣᎳᎩ"),
    *(
        "a\u0301e\u0300o\u0302",
        "\u0301\u0302\u0303",
        "x\u0336y\u0336",
        "Z\u0351\u036b\u0343a\u0309\u0310",
        "ÅÅ",
        "\u1100\u1161\u11a8",
    ),
]
_PICTURES = [
    *(
        "😀",
        "😀😃😄",
        "👍🏽",
        "👨\u200d👩\u200d👧\u200d👦",
        "🏳️\u200d🌈",
        "🇩🇪🇫🇷",
        "1️⃣2️⃣",
        "❤️❤",
        "☃ snow",
        "a😀b",
        " 😀 ",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "∀x∈ℝ: ⌈x⌉≥x",
        "→←↔",
        "₿€£¥",
    ),
]
_SIGNS = [
    *(
        "!",
        "!!!",
        "?!",
        "...",
        "…",
        "--",
        "—",
        "a-b",
        "a_b",
        "__init__",
        "(a)",
        "[b]{c}",
        "a/b\\c",
        '"q"',
        "'q'",
        "«q»",
        "“q”",
        "‘q’s",
    ),
    *(
        "$1.00",
        "100%",
        "#tag",
        "@name",
        "a@b.example",
        "https://example.org/a?b=c&d=%20#e",
        "~/.x",
        "x=y+z*2",
        "a<b>c",
        "&amp;",
        "^_^",
        "|||",
        "``code``",
    ),
    *(
        "if (a == 1) {\n\treturn b;\n}\n",
        "def f(x):\n    return x ** 2\n",
        '{"a": [1, null, "\\u00e9"]}',
        "<p class='x'>t</p>",
        "SELECT * FROM t;",
        "a\\nb\\ud83d",
    ),
]
_CONTROL = [
    "\x00",
    "\x01\x02",
    "\x1b[0m",
    "\x7f",
    "a\x00b",
    ".\x04.",
    "\x06",
    "\u0080",
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\U0010ffff",
    "\U000e0001",
    "\ue000",
    "\u2060",
    "\u00ad",
]
_SPELLED = [
    *(
        "<|im_start|>",
        "<|im_end|>",
        "x<|im_end|>y",
        "<|im_start|>system\nyou<|im_end|>\n",
        "<|endoftext|>",
        "<|eot_id|>",
        "<s>",
        "</s>",
        "<|",
        "|>",
        "<|im_end",
        "< |im_end|>",
        "<|IM_END|>",
        "<|im_end|><|im_start|>",
        "<unk>",
        "[INST] a [/INST]",
        "<<SYS>>",
        "<0x0A>",
        "Ġword",
        "▁word",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
    ),
]
_LONG = [
    *(
        "a" * 3000,
        "ab" * 1000,
        "1" * 500,
        " " * 500,
        "\n" * 300,
        "!" * 500,
        "é" * 700,
        "語" * 500,
        "😀" * 200,
        "a " * 500,
        "\u0301" * 300,
        "'" * 200,
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogoch" * 9,
    ),
]


def _texts() -> Iterator[str]:
    yield from (*_WORDS, *_NUMBERS, *_SPACES, *_ENDS, *_SCRIPTS, *_PICTURES, *_SIGNS, *_CONTROL, *_SPELLED, *_LONG)
    for space in _SPACES[:12]:
        yield f"a{space}b"
        yield f"{space}1{space}"
    for end in _ENDS[:12]:
        yield f"a.{end}b"
        yield f"1{end}{end}2"
    for number in _NUMBERS:
        yield f"a{number} {number}b"
    for left, right in zip(_SCRIPTS, reversed(_PICTURES * 3), strict=False):
        yield f"{left}{right} {left}'s"
    yield "It's 12345 o'clock  and\n\n I've  gone\t\tout — 3½ times, ok? \r\n"
    yield ""


TEXTS: tuple[str, ...] = tuple(dict.fromkeys(_texts()))


def check(vocabulary: Vocabulary, model: Trial, own: Cut | None = None) -> int:
    """How many texts were cut alike; ImportRefused names the first that was not."""
    rebuilt = Rebuilt(vocabulary)
    silent = frozenset(vocabulary.silent_bytes())
    if model.adds() != (adds_begin(vocabulary), vocabulary.adds_end):
        raise ImportRefused(
            "llama.cpp puts other tokens around a prompt than the head says", _HINT, code="tokenizer_parity"
        )
    texts = [*TEXTS, *of_specials(vocabulary)]
    for text in texts:
        for special in (False, True):
            expected = model.tokens(text, special=special)
            if (found := rebuilt.ids(text, special=special)) != expected:
                raise _apart(text, "the tokenizer rebuilt from the head", found, expected)
            # For a byte that no token stands for, others have a token for the unknown, and llama.cpp has none.
            if own is None or not silent.isdisjoint(text.encode()):
                continue
            if (found := own(text, special)) != expected:
                raise _apart(text, "the model's own tokenizer", found, expected)
    return len(texts)


def of_specials(vocabulary: Vocabulary) -> Iterator[str]:
    """Texts with the vocabulary's own control tokens in them, and with two that share letters."""
    control, user = vocabulary.specials()
    some = [*control[: MOST_SPECIALS // 2], *user[: MOST_SPECIALS // 2]]
    for token in some:
        yield f"a{token}b {token} \n{token}{token}"
    yield from islice(_overlaps([*control, *user]), MOST_OVERLAPS)


def _overlaps(tokens: Sequence[str]) -> Iterator[str]:
    """`<a>b` and `>b<c`: what is cut first decides."""
    beginning: dict[str, str] = {}
    for token in tokens:
        for end in range(1, len(token)):
            beginning.setdefault(token[:end], token)
    for token in tokens:
        for begin in range(1, len(token)):
            if (other := beginning.get(token[begin:])) is not None:
                yield token + other[len(token) - begin :]


_HINT = "convert the model again, with the tokenizer that it was trained with"


def _apart(text: str, who: str, found: Sequence[int], expected: Sequence[int]) -> ImportRefused:
    place = next(
        (place for place, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]),
        min(len(found), len(expected)),
    )
    return ImportRefused(
        f"{who} cuts {_escaped(text)} otherwise than llama.cpp: {list(found[place : place + 4])} and not "
        f"{list(expected[place : place + 4])} from token {place} on",
        _HINT,
        code="tokenizer_parity",
    )


def _escaped(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:59]) + ("" if len(text) <= 60 else "…")
