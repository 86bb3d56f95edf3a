"""Texts become the vectors that sentence-transformers give for them, in batches that are filled up a little, uncut."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import OnnxEngine
from inference.errors import InputRefused, LoadFailed
from inference.language import embedding
from inference.language.embedding import TextEncoder, batches
from inference.protocol import Array
from inference.signature import Signature
from tests.sandbox.inside import inside
from tests.training.importing.encoders import minilm

KNOWN = json.loads((Path(__file__).parents[2] / "vectors" / "encoder" / "minilm.json").read_text())


class Watched:
    """The engine, and the shapes of what it was asked."""

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine, self.signature = engine, engine.signature
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        self.shapes.append(inputs["input_ids"].shape)
        return self._engine.run(inputs, outputs)


@functools.cache
def made() -> tuple[TextEncoder, Watched]:
    imported = minilm()
    parts = imported.parts
    assert parts.weights is not None
    assert parts.tokenizer is not None
    engine = OnnxEngine(
        parts.graph, Signature.from_json(imported.signature), threads=2, weights=bytearray(parts.weights)
    )
    watched = Watched(engine)
    return TextEncoder(watched, parts.tokenizer, json.loads(parts.card or b"")), watched


@pytest.fixture
def encoder() -> TextEncoder:
    return made()[0]


@pytest.fixture
def shapes() -> list[tuple[int, ...]]:
    made()[1].shapes.clear()
    return made()[1].shapes


@pytest.mark.slow
def test_vectors_and_counts_are_sentence_transformers_own(encoder: TextEncoder) -> None:
    vectors, counts = encoder.embed(KNOWN["texts"])
    assert counts == KNOWN["tokens"] == encoder.count(KNOWN["texts"])
    assert (vectors.dtype, vectors.shape) == (np.dtype("f4"), (len(counts), 384))
    np.testing.assert_allclose(vectors[:, :24], KNOWN["vectors"], atol=2e-6)
    np.testing.assert_allclose(vectors @ vectors.T, KNOWN["similarities"], atol=2e-5)


@pytest.mark.slow
def test_a_text_has_the_same_vector_in_any_company(encoder: TextEncoder) -> None:
    texts = ["word " * length for length in (200, 1, 90, 3, 40, 3, 7, 120, 30)]
    together, _ = encoder.embed(texts)
    alone = np.concatenate([encoder.embed([text])[0] for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)


@pytest.mark.slow
def test_texts_of_one_length_are_run_together_and_long_ones_apart(
    encoder: TextEncoder, shapes: list[tuple[int, ...]]
) -> None:
    encoder.embed(["one two three"] * 20 + ["word " * 200] * 3)
    assert shapes == [(20, 5), (2, 202), (1, 202)]


@pytest.mark.slow
def test_no_text_gives_no_vector(encoder: TextEncoder, shapes: list[tuple[int, ...]]) -> None:
    vectors, counts = encoder.embed([])
    assert (vectors.shape, counts, shapes) == ((0, 384), [], [])


@pytest.mark.slow
def test_a_text_that_is_too_long_is_named_and_nothing_is_computed(
    encoder: TextEncoder, shapes: list[tuple[int, ...]]
) -> None:
    with pytest.raises(InputRefused) as caught:
        encoder.embed(["short", "word " * 300, "word " * 400])
    assert (caught.value.path, caught.value.reason) == ("/input/1", "too_long")
    assert caught.value.message == "text 1 has 302 tokens, 256 are the most of one text"
    assert shapes == []


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, 7, b"bytes", ["a"], "\ud800"])
def test_what_is_no_text_is_refused(encoder: TextEncoder, text: Any) -> None:
    with pytest.raises(InputRefused):
        encoder.embed(["short", text])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"kind": "other"}, {"width": None}, {"max_tokens": "256"}, {"pad_token": -1}, {"max_tokens": True}],
)
def test_a_card_that_is_no_text_encoders_is_refused(change: dict[str, Any]) -> None:
    parts = minilm().parts
    with pytest.raises(LoadFailed):
        TextEncoder(made()[1], parts.tokenizer or b"", json.loads(parts.card or b"") | change)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [b"", b"{}", b'{"model": {"type": "WordPiece"}}'])
def test_a_tokenizer_that_does_not_open_is_refused(tokenizer: bytes) -> None:
    with pytest.raises(LoadFailed, match="tokenizer"):
        TextEncoder(made()[1], tokenizer, json.loads(minilm().parts.card or b""))


@given(st.lists(st.integers(2, 600), max_size=60))
def test_every_text_is_in_one_batch_and_batches_are_small_and_hardly_filled_up(counts: list[int]) -> None:
    found = list(batches(counts))
    assert sorted(index for batch in found for index in batch) == list(range(len(counts)))
    for batch in found:
        longest = max(counts[index] for index in batch)
        assert longest * len(batch) <= embedding.MOST_TOKENS or len(batch) == 1
        assert sum(longest - counts[index] for index in batch) <= embedding.RUN_TOKENS * len(batch)


@pytest.mark.slow
def test_an_encoder_works_inside_a_cells_walls() -> None:
    def embed(size: int, signature: dict[str, object], texts: list[str]) -> object:
        import os

        from inference import bundle
        from inference.engine import OnnxEngine
        from inference.language.embedding import TextEncoder
        from inference.signature import Signature

        class File:
            size_bytes = size

            def readinto(self, out, offset=0, *, workers=1):
                done = 0
                while done < len(out):
                    done += os.preadv(4, [out[done:]], offset + done)
                return done

        parts = bundle.read(File())
        engine = OnnxEngine(parts.graph, Signature.from_json(signature), threads=2, weights=parts.weights)
        vectors, counts = TextEncoder(engine, parts.tokenizer, parts.card).embed(texts)
        return [counts, vectors[:, :3].tolist()]

    descriptor = os.memfd_create("bundle")
    try:
        size = sum(os.write(descriptor, piece) for piece in minilm().parts.pieces())
        facts = {"size": size, "signature": minilm().signature, "texts": KNOWN["texts"]}
        answer = inside(embed, profile="cell-cpu", facts=facts, descriptors=[descriptor], memory_bytes=1 << 30)
    finally:
        os.close(descriptor)
    assert answer.error is None
    assert answer.value[0] == KNOWN["tokens"]
    np.testing.assert_allclose(answer.value[1], np.array(KNOWN["vectors"])[:, :3], atol=2e-6)
