"""Weights and vocabulary from a descriptor: text to tokens and back, facts of the file, and what is no model."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import ComputeFailed, LoadFailed
from inference.language.llama import Context, Weights
from tests.inference.language import reference, tiny
from tests.inference.language.driving import LONG

TEXTS = st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace").decode())


@pytest.fixture
def context(exact: Weights) -> Iterator[Context]:
    made = exact.context(sequences=3, cells=256, chunk=128, threads=1)
    yield made
    made.free()


@given(text=TEXTS)
def test_the_pieces_of_a_texts_tokens_are_the_text(small: Weights, text: str) -> None:
    tokens = small.vocabulary.tokens(text, special=False)
    assert b"".join(small.vocabulary.piece(token) for token in tokens).decode() == text


@given(parts=st.lists(st.sampled_from((*tiny.CONTROL, tiny.NOTE, "the", "<|", "x")), max_size=8))
def test_control_tokens_are_found_where_they_are_meant_only(small: Weights, parts: list[str]) -> None:
    vocabulary, text = small.vocabulary, "".join(parts)
    plain, special = (vocabulary.tokens(text, special=meant) for meant in (False, True))
    assert not any(vocabulary.is_control(token) for token in plain)
    assert sum(map(vocabulary.is_control, special)) == sum(text.count(control) for control in tiny.CONTROL)
    assert b"".join(vocabulary.piece(token, special=True) for token in special).decode() == text


def test_a_vocabulary_knows_its_ends_and_has_no_text_for_control_tokens(small: Weights) -> None:
    vocabulary = small.vocabulary
    assert (vocabulary.size, vocabulary.eos, vocabulary.bos, vocabulary.adds_bos) == (300, 2, 1, False)
    assert vocabulary.ends == {0, 2}
    assert [vocabulary.piece(token) for token in range(4)] == [b"", b"", b"", b"<note>"]
    assert [vocabulary.is_special(token) for token in range(5)] == [True, True, True, False, False]


def test_facts_of_the_file_are_read_whole(small: Weights) -> None:
    assert small.context_length == tiny.CONTEXT
    assert small.metadata("tokenizer.chat_template") == tiny.TEMPLATE
    assert small.metadata("llama.block_count") == "2"
    assert small.metadata("no.such.key") is None
    assert small.kept_tokens == 256
    assert small.kv_bytes_a_token == 2 * 2 * 2 * 2 * 16


def test_a_file_that_is_read_from_its_middle_on_is_read_from_its_begin() -> None:
    with tiny.memory(tiny.gguf()) as descriptor:
        os.lseek(descriptor, 1000, os.SEEK_SET)
        first, second = Weights(descriptor), Weights(descriptor, share=True)
        for loaded in (first, second):
            assert loaded.vocabulary.size == 300
            loaded.free()


@pytest.mark.parametrize("content", [b"", b"no GGUF", tiny.gguf()[:-2000], tiny.gguf()[:300], tiny.adapter()], ids=len)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with tiny.memory(content) as descriptor, pytest.raises(LoadFailed):
        Weights(descriptor)


def test_numbers_that_are_none_are_found_where_one_looks() -> None:
    content = bytearray(tiny.gguf("F32"))
    content[-4:] = np.float32(np.nan).tobytes()
    with tiny.memory(bytes(content)) as descriptor:
        Weights(descriptor).free()
        with pytest.raises(LoadFailed):
            Weights(descriptor, check=True)


def test_what_is_no_adapter_of_the_base_is_refused(small: Weights) -> None:
    wrong = bytearray(tiny.adapter())
    wrong[wrong.index(b"attn_q") + 5] = ord("x")  # blk.0.attn_x: the base has no such tensor
    for content in (b"", tiny.gguf(), bytes(wrong), tiny.adapter()[:-100]):
        with tiny.memory(content) as descriptor, pytest.raises(LoadFailed):
            small.adapter(descriptor)


def test_weights_are_freed_once_with_their_adapters() -> None:
    loaded = tiny.weights(tiny.gguf())
    with tiny.memory(tiny.adapter()) as descriptor:
        kept, gone = loaded.adapter(descriptor), loaded.adapter(descriptor)
    loaded.free_adapter(gone)
    loaded.free()
    loaded.free()
    assert kept != gone


class TestContext:
    def expected(self, tokens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return reference.logprobs(tokens)[-1]

    def told(self, context: Context) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        logits = context.decode().astype("f8")
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def test_logits_are_those_of_the_tokens_that_were_wanted_in_order(self, context: Context) -> None:
        context.add(0, LONG[:20], 0, wanted=True)
        context.add(1, LONG[:10], 0, wanted=False)
        context.add(2, LONG[20:50], 0, wanted=True)
        rows = self.told(context)
        assert rows.shape == (2, 300)
        for row, tokens in zip(rows, (LONG[:20], LONG[20:50]), strict=True):
            np.testing.assert_allclose(row, self.expected(tokens), atol=reference.TOLERANCE)

    def test_what_is_shared_and_what_is_forgotten_is_as_if_computed_anew(self, context: Context) -> None:
        context.add(0, LONG[:60], 0, wanted=False)
        assert context.decode().shape == (0, 300)
        context.copy(0, 1, 40)
        context.truncate(0, 50)
        context.add_one(0, LONG[99], 50)
        context.add_one(1, LONG[98], 40)
        rows = self.told(context)
        for row, tokens in zip(rows, ([*LONG[:50], LONG[99]], [*LONG[:40], LONG[98]]), strict=True):
            np.testing.assert_allclose(row, self.expected(tokens), atol=reference.TOLERANCE)

    def test_what_was_added_can_be_dropped(self, context: Context) -> None:
        context.add(0, LONG[:60], 0, wanted=True)
        context.drop()
        context.add(0, LONG[60:80], 0, wanted=True)
        np.testing.assert_allclose(self.told(context)[0], self.expected(LONG[60:80]), atol=reference.TOLERANCE)

    def test_a_step_that_cannot_be_is_told_and_the_next_one_is_computed(self, context: Context) -> None:
        context.add(0, [1 << 20], 0, wanted=True)
        with pytest.raises(ComputeFailed):
            context.decode()
        context.add(0, LONG[:20], 0, wanted=True)
        np.testing.assert_allclose(self.told(context)[0], self.expected(LONG[:20]), atol=reference.TOLERANCE)

    def test_more_than_there_is_room_for_is_a_failure_that_changes_nothing(self, context: Context) -> None:
        context.add(0, LONG, 0, wanted=False)
        context.decode()
        context.add(1, LONG, 0, wanted=False)
        context.decode()
        context.add(2, LONG, 0, wanted=True)  # 300 tokens in 256 cells
        with pytest.raises(ComputeFailed):
            context.decode()
        context.truncate(1, 0)
        context.add_one(0, LONG[5], 100)
        np.testing.assert_allclose(self.told(context)[0], self.expected([*LONG, LONG[5]]), atol=reference.TOLERANCE)
