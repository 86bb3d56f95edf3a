"""What the text must be, as a mask over the next token: JSON, JSON of a schema, a grammar, a call of a tool.

By llguidance, whose tokenizer is made from the model's own vocabulary once. Schemas and grammars are callers' input:
their size is bounded by the face, the parser's work by llguidance's limits; one that cannot be is InputRefused. What
comes upon a limit only while tokens are chosen fails there.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import llguidance
import numpy as np
import numpy.typing as npt

from inference.errors import InputRefused
from inference.language.closed import closed
from inference.language.llama import Vocabulary
from inference.language.requests import Constraint

KEPT: Final = 16  # compiled grammars a model, each of up to 50 MB
MOST_USES: Final = 32  # of one: its copies share an automaton that grows with all that they say, up to a limit
COMPACT: Final[Any] = {"whitespace_flexible": False}  # a small model would fill the answer with line ends
MESSAGE_CHARACTERS: Final = 300
MEETING_PATTERNS: Final = 2
LARGEST_MULTIPLE: Final = 100_000  # of the last decimal place: the automaton grows with it, to 600 MB at 1,234,567


@dataclass(slots=True)
class _Kept:
    """A compiled grammar, and how it fared."""

    matcher: Any
    uses: int = 0
    failed: bool = False  # one of its copies came upon a limit, so all will


class Grammars:
    """Compiled grammars of one model, each copied for its sequences. One thread at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens(vocabulary)), eos_token=sorted(vocabulary.ends) or None
        )
        self._kept: OrderedDict[Constraint, _Kept] = OrderedDict()

    def matcher(self, constraint: Constraint) -> Matcher:
        """A fresh mask of the constraint; InputRefused."""
        kept = self._kept.get(constraint)
        if kept is None or kept.failed or kept.uses == MOST_USES:
            kept = self._kept[constraint] = _Kept(self._compiled(constraint))
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        kept.uses += 1
        self._kept.move_to_end(constraint)
        return Matcher(kept, self._tokenizer.vocab_size)

    def _compiled(self, constraint: Constraint) -> Any:
        try:
            grammar = grammar_of(constraint)
            limits = llguidance.LLParserLimits(verbose_errors=False)
            matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        except ValueError as error:
            raise _refused(constraint, str(error)) from None
        except (KeyError, TypeError, AttributeError, RecursionError, ArithmeticError):
            raise _refused(constraint, "") from None
        tried = matcher.deep_copy()
        tried.compute_bitmask()  # some errors show at the first mask only
        if tried.is_error():
            raise _refused(constraint, tried.get_error())
        return matcher


class Matcher:
    """One sequence's place in its grammar: sampling.py's Mask."""

    def __init__(self, kept: _Kept, size: int) -> None:
        self._kept, self._matcher, self._size = kept, kept.matcher.deep_copy(), size
        self._bits = np.zeros((size + 31) // 32, dtype=np.int32)

    @property
    def ended(self) -> bool:
        """Nothing may come any more: the sentence is whole."""
        return bool(self._matcher.is_stopped())

    @property
    def failed(self) -> bool:
        """It came upon a limit: what was said is not what it must be."""
        if self._matcher.is_error():
            self._kept.failed = True
            return True
        return False

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        return np.unpackbits(self._bits.view(np.uint8), count=self._size, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)


class _Tokens:
    """A vocabulary as llguidance asks for it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id, self.bos_token_id = vocabulary.eos, vocabulary.bos
        control = [token for token in range(vocabulary.size) if vocabulary.is_control(token)]
        self.special_token_ids = control
        # A byte that no UTF-8 text has marks what no text may ask for.
        self.tokens = [vocabulary.piece(token) for token in range(vocabulary.size)]
        for token in control:
            self.tokens[token] = b"\xff" + vocabulary.piece(token, special=True)

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._vocabulary.tokens(text, special=False).tolist()


def grammar_of(constraint: Constraint) -> str:
    """llguidance's grammar. ValueError where it is no JSON."""
    grammar: str
    if constraint.kind == "grammar":
        grammar = llguidance.LLMatcher.grammar_from_lark(constraint.text)
        return grammar
    schema: Any = {"type": "object"} if constraint.kind == "json_object" else json.loads(constraint.text)
    if constraint.kind == "tool":
        schema = call_schema(schema)
    _check_work(schema)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(closed(schema)), overrides=COMPACT)
    return grammar


def call_schema(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of a call of one of the tools: its name and its arguments.

    A tool's parameters have an id of their own, so that what they refer to (#/$defs/…) is found in themselves.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["name"]},
                "arguments": {**(tool.get("parameters") or {"type": "object"}), "$id": f"urn:tool:{number}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _check_work(schema: Any) -> None:
    """ValueError for what would take the compiler gigabytes: it knows no limit there. Automata add up where they stand
    apart, and multiply where two may hold of one value."""
    steps: list[float] = []
    patterns, meets, waiting = 0, False, [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            multiple = found.get("multipleOf")
            if isinstance(multiple, int | float) and not isinstance(multiple, bool):
                steps.append(_steps(multiple))
                if steps[-1] > LARGEST_MULTIPLE:
                    raise ValueError(f"multipleOf is {multiple}, {LARGEST_MULTIPLE} steps are the most")
            patterns += isinstance(found.get("pattern"), str)
            meets = meets or "allOf" in found or ("$ref" in found and len(found) > 1)
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
    together = math.prod(steps) if meets else sum(steps)
    if together > LARGEST_MULTIPLE:
        raise ValueError(f"{len(steps)} multipleOf take too many steps together, {LARGEST_MULTIPLE} are the most")
    if meets and patterns > MEETING_PATTERNS:
        raise ValueError(f"beside allOf or $ref there are {patterns} patterns, {MEETING_PATTERNS} are the most")


def _steps(multiple: float) -> float:
    """In units of its last decimal place."""
    _, digits, exponent = Decimal(str(multiple)).as_tuple()
    return abs(multiple) if not isinstance(exponent, int) or exponent >= 0 else int("".join(map(str, digits)))


def _refused(constraint: Constraint, said: str) -> InputRefused:
    path = {"grammar": "/grammar", "tool": "/tools"}.get(constraint.kind, "/response_format/json_schema/schema")
    message = f"cannot be followed: {said.splitlines()[0][:MESSAGE_CHARACTERS] if said else 'not understood'}"
    return InputRefused(path, "constraint", message, "use a simpler schema of the supported keywords")
