"""Texts → vectors of length 1: tokens by the bundle's tokenizer, batches by length, the graph of an array engine.

    vectors, tokens = TextEncoder(engine, parts.tokenizer, parts.card).embed(texts)

Knows the card (docs/formats/bundle.md) and nothing of faces, queues or frames. The vectors are the model's own, and so
is what must stand before a text ("query: "): who calls puts it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from inference.engine import ArrayEngine
from inference.errors import InputRefused, LoadFailed
from inference.protocol import Array

KIND: Final = "text_encoder"
OUTPUT: Final = "embedding"
MOST_TOKENS: Final = 512  # of a batch, filled up; more at once is no faster (2,048: 8 % slower) and takes more memory
RUN_TOKENS: Final = 32  # what a further run of the graph costs, in tokens; filling up may cost as much
Vectors = Array


class TextEncoder:
    """One loaded encoder. `embed` runs the engine: one thread at a time calls it; the rest may be called beside it."""

    def __init__(self, engine: ArrayEngine, tokenizer: bytes, card: Mapping[str, Any]) -> None:
        self._engine = engine
        self.width, self.max_tokens, self._pad = (_number(card, key) for key in ("width", "max_tokens", "pad_token"))
        if card.get("kind") != KIND or engine.signature.by_name.keys() != {"input_ids", "attention_mask"}:
            raise LoadFailed("the model is no text encoder: its card or its graph is another's")
        self._tokenizer = _opened(tokenizer)

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, the two special ones included."""
        return [len(ids) for ids in self._ids(texts)]

    def embed(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        """FP32 [texts, width] and the tokens of each text. InputRefused names a text that is too long, uncut."""
        rows = self._ids(texts)
        counts = [len(row) for row in rows]
        self._check(counts)
        vectors = np.empty((len(rows), self.width), dtype=np.float32)
        for batch in batches(counts):
            vectors[batch] = self._run([rows[index] for index in batch])
        return vectors, counts

    def check(self, texts: Sequence[str]) -> None:
        """What `embed` would refuse, before any part of it is computed."""
        self._check(self.count(texts))

    def _check(self, counts: Sequence[int]) -> None:
        for index, count in enumerate(counts):
            if count > self.max_tokens:
                raise InputRefused(
                    f"/input/{index}",
                    "too_long",
                    f"text {index} has {count} tokens",
                    f"{self.max_tokens} are the most of one text",
                )

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        except (TypeError, UnicodeEncodeError):
            raise InputRefused("/input", "datatype", "holds what is no text", "expected texts in UTF-8") from None

    def _run(self, rows: Sequence[Sequence[int]]) -> Array:
        ids = np.full((len(rows), max(map(len, rows))), self._pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return self._engine.run({"input_ids": ids, "attention_mask": mask}, [OUTPUT])[0]


def batches(counts: Sequence[int]) -> Iterator[list[int]]:
    """Texts that are run together: neighbours in length, until filling up costs more than a run of their own."""
    batch: list[int] = []
    for index in sorted(range(len(counts)), key=counts.__getitem__):
        if batch:
            longer = (counts[index] - counts[batch[-1]]) * len(batch)
            if longer > RUN_TOKENS or counts[index] * (len(batch) + 1) > MOST_TOKENS:
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch


def _number(card: Mapping[str, Any], key: str) -> int:
    value = card.get(key)
    if type(value) is not int or not 0 <= value < 2**31:
        raise LoadFailed(f"the model's card has no {key}")
    return value


def _opened(tokenizer: bytes) -> Any:
    try:
        import tokenizers
    except ImportError:
        raise LoadFailed("this node has no tokenizers: install the extra `language` (make language)") from None
    try:
        return tokenizers.Tokenizer.from_str(tokenizer.decode())
    except Exception as error:  # the library raises nothing finer; its text may name the tenant's words
        raise LoadFailed(f"the model's tokenizer does not open ({type(error).__name__})") from None
