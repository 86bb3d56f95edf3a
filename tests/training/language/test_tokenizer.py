"""The rebuilt tokenizer cuts as llama.cpp does, token by token, for every way of splitting that is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.depth import examples
from tests.training.language import making
from tests.training.language.making import TOKENS, fields, refusal
from training.language import gguf, parity, tokenizer, vocabulary
from training.language.gguf import Field
from training.language.memory_file import MemoryFile
from training.language.tokenizer import SPLITTINGS, Rebuilt
from training.language.trial import Trial
from training.language.vocabulary import Vocabulary, byte_letters


@contextmanager
def tried(**changes: Any) -> Iterator[tuple[Vocabulary, Trial]]:
    """A vocabulary as we read it, and as llama.cpp does."""
    file = MemoryFile()
    head = fields(**changes)
    gguf.Writer(file.write, head, []).close()
    with Trial(file, threads=1, vocabulary_only=True) as trial:
        yield vocabulary.read(head), trial


def kinds(*added: int) -> list[int]:
    return [3 if token in making.SPECIALS else 1 for token in TOKENS] + list(added)


@pytest.mark.parametrize("pre", SPLITTINGS)
def test_each_way_of_splitting_cuts_every_hostile_text_as_llama_does(pre: str) -> None:
    with tried(pre=pre) as (words, model):
        assert parity.check(words, model) > 300


@pytest.mark.parametrize("pre", SPLITTINGS)
@settings(max_examples=examples(150))
@given(
    text=st.text(max_size=60) | st.text(alphabet="the 1'sS\n\r\t.<|im_end|>é😀\u0301\u200d", max_size=60),
    special=st.booleans(),
)
def test_any_text_is_cut_alike(pre: str, text: str, special: bool) -> None:
    with tried(pre=pre) as (words, model):
        assert Rebuilt(words).ids(text, special=special) == model.tokens(text, special=special)


def test_the_ways_of_splitting_differ_so_that_a_wrong_one_is_found() -> None:
    """Each but its aliases gives other tokens for some text of the gate."""
    cuts = {}
    for pre in ("smollm", "gpt-2", "llama-bpe", "smaug-bpe", "qwen2"):
        with tried(pre=pre) as (words, _):
            rebuilt = Rebuilt(words)
            cuts[pre] = tuple(tuple(rebuilt.ids(text, special=False)) for text in (*parity.TEXTS, "zq"))
    assert len(set(cuts.values())) == 5


@pytest.mark.parametrize(("said", "true"), [("gpt-2", "smollm"), ("llama-bpe", "qwen2"), ("smollm", "llama-bpe")])
def test_a_wrong_name_of_the_splitting_is_refused_with_the_first_text_that_differs(said: str, true: str) -> None:
    with tried(pre=true) as (words, model):
        wrong = Vocabulary(said, words.tokens, words.kinds, words.merges, 1, 2, model.adds()[0], False)
        problem = refusal(lambda: parity.check(wrong, model))
    assert problem.code == "tokenizer_parity"
    assert "otherwise than llama.cpp" in problem.message
    assert problem.message.isascii()
    assert len(problem.message) < 400


def test_another_tokenizer_is_compared_too() -> None:
    with tried() as (words, model):
        problem = refusal(lambda: parity.check(words, model, lambda text, special: []))
    assert (problem.code, "the model's own tokenizer" in problem.message) == ("tokenizer_parity", True)


def test_control_tokens_that_share_letters_are_tried_over_each_other() -> None:
    head = vocabulary.read(fields(ggml_tokens=[*TOKENS, "<a>b", "b<c>"], token_type=kinds(3, 3)))
    assert "<a>b<c>" in set(parity.of_specials(head))


def test_control_tokens_over_each_other_that_are_cut_apart_are_refused() -> None:
    """llama.cpp looks for the longest token in the whole text first, others for the first in the text."""
    with tried(ggml_tokens=[*TOKENS, "<a>b", "b<cc>"], token_type=kinds(3, 3)) as (words, model):
        assert refusal(lambda: parity.check(words, model)).code == "tokenizer_parity"


def test_control_tokens_count_only_where_they_are_asked_for() -> None:
    with tried() as (words, model):
        rebuilt = Rebuilt(words)
        assert rebuilt.ids("<|im_end|>", special=True) == [2]
        assert 2 not in rebuilt.ids("<|im_end|>", special=False)
        assert rebuilt.ids("<|im_end|>", special=False) == model.tokens("<|im_end|>", special=False)
        assert rebuilt.text([1, *rebuilt.ids("naïve 😀", special=False), 2]) == "<|im_start|>naïve 😀<|im_end|>"


@pytest.mark.parametrize(
    ("name", "kind"), [("<|eot_id|>", 1), ("<|end|>", 4), ("<|start|>", 3), ("<mine>", 4), ("<unused>", 5), ("<c>", 3)]
)
def test_a_token_counts_as_control_or_as_text_as_it_does_for_llama(name: str, kind: int) -> None:
    with tried(ggml_tokens=[*TOKENS, name], token_type=kinds(kind)) as (words, model):
        rebuilt = Rebuilt(words)
        for special in (False, True):
            for text in (name, f"a {name} b", name * 2):
                assert rebuilt.ids(text, special=special) == model.tokens(text, special=special)


def test_a_byte_without_a_token_is_left_out_and_keeps_its_neighbours_apart() -> None:
    letter = byte_letters()[0x04]
    without = [token for token in TOKENS if token != letter]
    types = [3 if token in making.SPECIALS else 1 for token in without]
    with tried(ggml_tokens=without, token_type=types) as (words, model):
        rebuilt = Rebuilt(words)
        for text in ("\x04", "t\x04h", ".\x04\n", "..\x04.."):
            assert rebuilt.ids(text, special=False) == model.tokens(text, special=False)
        assert len(rebuilt.ids("t\x04h", special=False)) == 2


def test_a_word_that_no_merge_leads_to_is_whole_where_the_splitting_says_so() -> None:
    whole = TOKENS.index("zq")
    for pre, way in SPLITTINGS.items():
        with tried(pre=pre) as (words, model):
            assert (model.tokens("zq", special=False) == [whole]) == way.whole_words
            assert (Rebuilt(words).ids("zq", special=False) == [whole]) == way.whole_words


@pytest.mark.parametrize(
    ("pre", "told", "adds"),
    [("smollm", None, False), ("llama-bpe", None, True), ("smollm", True, True), ("llama-bpe", False, False)],
)
def test_a_begin_token_is_put_before_a_prompt_as_llama_decides(pre: str, told: bool | None, adds: bool) -> None:
    changes = {} if told is None else {"tokenizer.ggml.add_bos_token": Field("bool", told)}
    with tried(pre=pre, **changes) as (words, model):
        assert (tokenizer.adds_begin(words), model.adds()) == (adds, (adds, False))


@pytest.mark.parametrize("pre", ["deepseek-coder", "tekken", "default", "", "smollm\n"])
def test_a_way_of_splitting_that_nothing_proves_is_refused_by_name(pre: str) -> None:
    problem = refusal(lambda: tokenizer.splitting(pre))
    assert problem.code == "tokenizer_unknown"
    assert repr(pre) in problem.message
    assert "smollm" in str(problem.hint)
