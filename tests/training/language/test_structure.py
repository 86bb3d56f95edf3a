"""What a GGUF head must say to be served: a llama, all of its tensors and no others, a byte-level vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.training.language import making
from tests.training.language.making import TINY, TOKENS, arrays, fields, refusal
from training.language import structure, vocabulary
from training.language.gguf import Field, Head, Tensor
from training.language.tensor_types import BY_NAME, F32
from training.language.vocabulary import Vocabulary


def head(changed: Mapping[str, Field], tensors: Callable[[dict[str, Tensor]], None] | None = None) -> Head:
    """A head without a file; `tensors` changes its table in place."""
    table = {name: Tensor(name, array.shape[::-1], F32) for name, array in arrays().items()}
    if tensors is not None:
        tensors(table)
    return Head(3, changed, tuple(table.values()), 0, 0)


def test_a_tiny_llama_is_what_its_head_says() -> None:
    assert structure.check(head(fields()), len(TOKENS)) == TINY


def test_the_parameters_are_counted_and_the_majority_names_the_type() -> None:
    tensors = [
        Tensor("blk.0.attn_q.weight", (64, 64), BY_NAME["Q4_1"]),
        Tensor("token_embd.weight", (64, 32), BY_NAME["Q8_0"]),
        Tensor("output_norm.weight", (64,), F32),
        Tensor("rope_freqs.weight", (8,), F32),
    ]
    assert structure.parameters(tensors) == 64 * 64 + 64 * 32 + 64
    assert structure.majority_type(tensors) == "Q4_1"


def test_a_head_of_its_own_and_rope_factors_may_be_there() -> None:
    def add(table: dict[str, Tensor]) -> None:
        for name, shape in TINY.optional_tensors().items():
            table[name] = Tensor(name, shape, F32)

    assert structure.check(head(fields(), add), len(TOKENS)) == TINY


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda table: table.__delitem__(name)


def with_(name: str, shape: tuple[int, ...], type: str = "F32") -> Callable[[dict[str, Tensor]], None]:
    return lambda table: table.__setitem__(name, Tensor(name, shape, BY_NAME[type]))


def llama(**values: Any) -> dict[str, Field]:
    """Keys of the architecture, added or in the place of others."""
    kinds = {int: "u32", float: "f32", str: "text"}
    added = {f"llama.{key.replace('__', '.')}": Field(kinds[type(value)], value) for key, value in values.items()}
    return fields() | added


REFUSED: dict[str, tuple[Head, str]] = {
    "another architecture": (head(fields(general_architecture="qwen2")), "architecture_unknown"),
    "no architecture": (head(fields(general_architecture=None)), "architecture_unknown"),
    "architecture that is a number": (
        head(fields() | {"general.architecture": Field("u32", 1)}),
        "hyperparameters",
    ),
    "an adapter": (head(fields(general_type="adapter")), "gguf_kind"),
    "one of several files": (head(fields() | {"split.count": Field("u16", 2)}), "gguf_split"),
    "experts": (head(llama(expert_count=8)), "architecture_unknown"),
    "a key that changes what is computed": (head(llama(attention__sliding_window=512)), "hyperparameter_unknown"),
    "no number of blocks": (head(fields(block_count=None)), "hyperparameters"),
    "no blocks": (head(fields(block_count=0)), "hyperparameters"),
    "a billion blocks": (head(fields(block_count=10**9)), "hyperparameters"),
    "blocks as a float": (head(fields(block_count=Field("f32", 2.0))), "hyperparameters"),
    "heads a block": (head(fields(head_count=Field("[u32]", [4, 4]))), "hyperparameters"),
    "no heads": (head(fields(head_count=0)), "hyperparameters"),
    "heads that do not share keys evenly": (head(fields(head_count_kv=3)), "hyperparameters"),
    "more keys than heads": (head(fields(head_count_kv=8)), "hyperparameters"),
    "a head of odd width": (head(llama(attention__key_length=15, attention__value_length=15)), "hyperparameters"),
    "keys and values of different width": (head(llama(attention__value_length=32)), "hyperparameters"),
    "rope over half a head": (head(llama(rope__dimension_count=8)), "hyperparameters"),
    "epsilon of nothing": (head(fields(rms_epsilon=0.0)), "hyperparameters"),
    "epsilon that is no number": (head(fields(rms_epsilon=float("nan"))), "hyperparameters"),
    "rope base of nothing": (head(fields(freq_base=0.0)), "hyperparameters"),
    "rope scaled without end": (head(llama(rope__scaling__factor=float("inf"))), "hyperparameters"),
    "rope scaled in an unknown way": (head(llama(rope__scaling__type="longrope")), "rope_scaling_unknown"),
    "context of nothing": (head(fields(context_length=0)), "hyperparameters"),
    "another size of the vocabulary": (head(fields(vocab_size=7)), "hyperparameters"),
    "a tensor too few": (head(fields(), without("blk.1.ffn_up.weight")), "tensor_missing"),
    "no embedding": (head(fields(), without("token_embd.weight")), "tensor_missing"),
    "a bias": (head(fields(), with_("blk.0.attn_q.bias", (64,))), "tensor_unknown"),
    "a block too many": (head(fields(), with_("blk.2.attn_norm.weight", (64,))), "tensor_unknown"),
    "a matrix turned": (head(fields(), with_("blk.0.ffn_up.weight", (96, 64))), "tensor_shape"),
    "a norm of two dimensions": (head(fields(), with_("blk.0.attn_norm.weight", (64, 1))), "tensor_shape"),
    "fewer rows than tokens": (head(fields(), with_("token_embd.weight", (64, 7))), "tensor_shape"),
    "a matrix of whole numbers": (head(fields(), with_("blk.0.ffn_up.weight", (64, 96), "I8")), "tensor_type"),
    "a matrix of a type that nothing here tries": (
        head(fields(), with_("blk.0.ffn_up.weight", (64, 96), "MXFP4")),
        "tensor_type",
    ),
    "a norm in halves": (head(fields(), with_("blk.0.attn_norm.weight", (64,), "F16")), "tensor_type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_head_that_is_no_llama_is_refused_with_code_and_remedy(case: str) -> None:
    found, code = REFUSED[case]
    assert refusal(lambda: structure.check(found, len(TOKENS))).code == code


def test_a_refusal_names_the_architecture_the_key_and_the_tensor() -> None:
    def said(case: str) -> str:
        return refusal(lambda: structure.check(REFUSED[case][0], len(TOKENS))).message

    assert "'qwen2'" in said("another architecture")
    assert "'llama.attention.sliding_window'" in said("a key that changes what is computed")
    assert "'blk.1.ffn_up.weight' is missing" in said("a tensor too few")
    assert "[96, 64], not [64, 96]" in said("a matrix turned")


# ---- the vocabulary


def read(**changes: Any) -> Vocabulary:
    return vocabulary.read(fields(**changes))


def tokens(*added: str, without: str = "") -> Field:
    return Field("[text]", [*(token for token in TOKENS if token != without), *added])


def test_a_vocabulary_is_read_with_its_ids_and_its_flags() -> None:
    found = read()
    assert (found.pre, found.begin, found.end, found.adds_begin, found.adds_end) == ("smollm", 1, 2, None, False)
    assert found.tokens == TOKENS
    assert found.merges[:2] == [("t", "h"), ("th", "e")]
    assert (found.text(found.end), found.text(None)) == ("<|im_end|>", "")


def test_control_tokens_are_those_that_llama_takes_for_such() -> None:
    names = ["<|eot_id|>", "<|start|>", "<mine>", "<unused>"]
    kinds = [3 if token in making.SPECIALS else 1 for token in TOKENS] + [1, 3, 4, 5]
    found = read(ggml_tokens=tokens(*names), token_type=kinds)
    assert found.specials() == ([*making.SPECIALS, "<|eot_id|>"], ["<|start|>", "<mine>"])


def test_bytes_without_a_token_are_known() -> None:
    letter = vocabulary.byte_letters()[0x04]
    kinds = [1] * (len(TOKENS) - 1)
    assert read(ggml_tokens=tokens(without=letter), token_type=kinds).silent_bytes() == [0x04]


VOCABULARIES: dict[str, tuple[dict[str, Any], str]] = {
    "pieces": ({"ggml_model": "llama"}, "tokenizer_unknown"),
    "no model": ({"ggml_model": None}, "vocabulary"),
    "no way of splitting": ({"ggml_pre": None}, "vocabulary"),
    "no tokens": ({"ggml_tokens": None}, "vocabulary"),
    "an empty list of tokens": ({"ggml_tokens": []}, "vocabulary"),
    "tokens that are numbers": ({"ggml_tokens": Field("[u32]", [1, 2])}, "vocabulary"),
    "a token twice": ({"ggml_tokens": tokens("the")}, "vocabulary"),
    "a token of nothing": ({"ggml_tokens": tokens("")}, "vocabulary"),
    "a token of a thousand letters": ({"ggml_tokens": tokens("x" * 1025)}, "vocabulary"),
    "a letter that no token stands for": ({"ggml_tokens": tokens(without="e")}, "vocabulary"),
    "fewer types than tokens": ({"token_type": [1]}, "vocabulary"),
    "no types": ({"token_type": None}, "vocabulary"),
    "a type of pieces": ({"token_type": [6] * len(TOKENS)}, "vocabulary"),
    "a type that is none": ({"token_type": [-1] * len(TOKENS)}, "vocabulary"),
    "a merge of one": ({"merges": ["the"]}, "vocabulary"),
    "a merge of three": ({"merges": ["t h e"]}, "vocabulary"),
    "a merge into nothing": ({"merges": ["t q"]}, "vocabulary"),
    "a merge of what is no token": ({"merges": ["xx yy"]}, "vocabulary"),
    "a merge twice": ({"merges": ["t h", "a b", "t h"]}, "vocabulary"),
    "no end": ({"eos_token_id": None}, "vocabulary"),
    "an end beyond the tokens": ({"eos_token_id": len(TOKENS)}, "vocabulary"),
    "an end that is text": ({"eos_token_id": Field("text", "2")}, "vocabulary"),
    "a begin beyond the tokens": ({"bos_token_id": 2**32 - 1}, "vocabulary"),
}


@pytest.mark.parametrize("case", VOCABULARIES)
def test_each_vocabulary_that_cannot_be_served_is_refused_with_code_and_remedy(case: str) -> None:
    changes, code = VOCABULARIES[case]
    assert refusal(lambda: read(**changes)).code == code


def test_byte_letters_are_those_of_the_format() -> None:
    letters = vocabulary.byte_letters()
    assert (letters[ord("a")], letters[ord(" ")], letters[ord("\n")], letters[0xAD]) == ("a", "Ġ", "Ċ", "Ń")
    assert len(set(letters.values())) == 256
