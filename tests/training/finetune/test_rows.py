"""Rows become exactly the tokens that a served model reads and would have to say, whatever the messages hold."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import Template
from inference.language.llama import Weights
from inference.language.requests import Generate
from inference.language.wording import Wording as Serving
from tests.depth import examples
from tests.training.finetune.given import data, prefers, small_choices, small_talk, spec, talk
from tests.training.finetune.runs import tuned
from tests.training.language.making import SPECIALS, TEMPLATE, TOKENS, fields, model, sealed
from training.data.chat_jsonl import Conversation
from training.errors import DatasetContradictsSpec
from training.finetune.base_model import Base, BaseUnsuitable, open_base
from training.finetune.rows import Example, Row, Wording, check_length, split
from training.finetune.served import Served
from training.language.gguf import Field

pytestmark = pytest.mark.slow

END = TOKENS.index("<|im_end|>")
BEGIN = TOKENS.index("<|im_start|>")


@cache
def writer(template: str = TEMPLATE, **changes: Any) -> tuple[Base, Wording, Served]:
    base = open_base(sealed(model(fields(chat_template=template, **changes))))
    served = Served(base.file, threads=1)
    return base, Wording(base, served, served.ends), served


def conversation(*lines: str) -> Conversation:
    return data([talk(*lines)]).conversations[0]


def row(*lines: str, template: str = TEMPLATE, **changes: Any) -> Row:
    _, wording, _ = writer(template, **changes)
    (found,) = wording.example(conversation(*lines)).rows
    return found


def text(tokens: Any) -> str:
    """In the letters of the vocabulary: a space is Ġ, a line end Ċ."""
    return "".join(TOKENS[token] for token in tokens)


def learned(found: Row) -> str:
    return text(found.tokens[place] for place in found.places)


# ---- what is learned


def test_the_answer_and_its_end_are_learned_and_nothing_else() -> None:
    found = row("user: a b", "assistant: the end")
    assert text(found.tokens[: found.prompt]) == "<|im_start|>userĊaĠb<|im_end|>Ċ<|im_start|>assistantĊ"
    assert learned(found) == "theĠend<|im_end|>"
    assert found.places.tolist() == list(range(found.prompt, len(found.tokens)))


def test_every_answer_of_a_conversation_is_learned_but_those_of_weight_0() -> None:
    lines = talk("system: x", "user: a", "assistant: one", "user: b", "assistant: two", "user: c", "assistant: three")
    _, wording, _ = writer()
    (found,) = wording.example(data([lines]).conversations[0]).rows
    assert learned(found) == "one<|im_end|>two<|im_end|>three<|im_end|>"
    lines["messages"][2]["weight"] = 0
    (found,) = wording.example(data([lines]).conversations[0]).rows
    assert learned(found) == "two<|im_end|>three<|im_end|>"
    assert text(found.tokens[found.prompt :]) == "three<|im_end|>"


def test_a_preference_becomes_two_rows_of_one_prompt_in_which_only_the_answers_are_learned() -> None:
    _, wording, _ = writer()
    (found,) = (wording.example(one) for one in data([prefers("a", "the one", "two")]).preferences)
    preferred, other = found.rows
    assert preferred.tokens[: preferred.prompt] == other.tokens[: other.prompt]
    assert (learned(preferred), learned(other)) == ("theĠone<|im_end|>", "two<|im_end|>")
    assert found.size == len(preferred.tokens) + len(other.tokens)


def test_earlier_answers_of_a_preference_are_not_learned() -> None:
    choice = prefers("a", "one", "two")
    choice["input"]["messages"] = talk("user: a", "assistant: b", "user: c")["messages"]
    _, wording, _ = writer()
    assert [learned(one) for one in wording.example(data([choice]).preferences[0]).rows] == [
        "one<|im_end|>",
        "two<|im_end|>",
    ]


def test_text_that_looks_like_a_control_token_stays_text() -> None:
    found = row("user: <|im_end|>", "assistant: a<|im_end|>b")
    assert found.tokens.count(END) == 2  # the template's own
    assert found.places[-1] == len(found.tokens) - 1
    assert learned(found) == "a<|im_end|>b<|im_end|>"
    assert [TOKENS[token] for token in found.tokens[found.prompt :]][-1] == "<|im_end|>"
    assert len(found.places) > 4  # the first of them is spelled out


def test_a_template_that_ends_no_answer_gets_the_models_own_end() -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    assert learned(row("user: a", "assistant: b", template=template)) == "bĊ<|im_end|>"


def test_a_begin_token_is_put_before_a_row_as_in_serving() -> None:
    plain = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    plain = plain.replace("{{ m.content }}", "{% if m.role == 'assistant' %}>{% endif %}{{ m.content }}")
    with_begin = fields(chat_template=plain) | {"tokenizer.ggml.add_bos_token": Field("bool", True)}
    base = open_base(sealed(model(with_begin)))
    served = Served(base.file, threads=1)
    (found,) = Wording(base, served, served.ends).example(conversation("user: a", "assistant: b")).rows
    assert found.tokens[0] == BEGIN
    assert learned(found) == "b<|im_end|>"


def test_a_template_that_writes_the_date_writes_the_same_one_any_day() -> None:
    template = "{{ strftime_now('%Y-%m-%d') }}" + TEMPLATE
    assert text(row("user: a", "assistant: b", template=template).tokens).startswith("2024-07-26")


# ---- what is refused


def test_a_template_that_writes_answers_otherwise_than_it_asks_for_them_is_refused() -> None:
    thinking = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}")
    with pytest.raises(BaseUnsuitable, match="otherwise than behind its own prompt") as caught:
        row("user: a", "assistant: b", template=thinking)
    assert caught.value.code == "base_unsuitable"


def test_a_row_that_the_template_refuses_is_named() -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + TEMPLATE
    with pytest.raises(DatasetContradictsSpec, match=r"refuses row 1: .*no system here"):
        row("system: x", "user: a", "assistant: b", template=strict)


def test_a_base_without_a_chat_template_is_refused() -> None:
    with pytest.raises(BaseUnsuitable, match="no chat template"):
        open_base(sealed(model(fields(chat_template=None))))


def test_rows_that_are_too_long_are_counted_and_the_first_is_named() -> None:
    _, wording, _ = writer()
    found = [wording.example(one) for one in data(small_talk(3)).conversations]
    check_length(found, max(one.size for one in found))
    shorter = min(one.size for one in found) - 1
    with pytest.raises(DatasetContradictsSpec, match=rf"^row 1 has {found[0].size} tokens, and 2 more are too long$"):
        check_length(list(reversed(found)), shorter)


def test_a_method_and_rows_of_the_other_shape_are_refused() -> None:
    with pytest.raises(DatasetContradictsSpec, match="from which dpo does not learn") as caught:
        tuned(small_talk(3), method={"name": "dpo"})
    assert caught.value.hint is not None
    assert "supervised" in caught.value.hint
    with pytest.raises(DatasetContradictsSpec, match="from which supervised does not learn"):
        tuned(small_choices(3))


# ---- as in serving


@cache
def serving() -> Serving:
    memory = os.memfd_create("model")
    os.write(memory, model())
    return Serving(Weights(memory, vocabulary_only=False).vocabulary, TEMPLATE)


PIECES = st.sampled_from([*"ab .\n<|>", *SPECIALS, "the", "é", "語"])
SAID = st.lists(PIECES, min_size=1, max_size=8).map("".join).filter(str.strip)


@settings(max_examples=examples(150))
@given(st.lists(SAID, min_size=2, max_size=6))
def test_what_comes_before_an_answer_are_the_tokens_that_serving_makes_of_the_same_messages(said: list[str]) -> None:
    said = said[: len(said) // 2 * 2]
    messages = [{"role": ("user", "assistant")[place % 2], "content": one} for place, one in enumerate(said)]
    _, wording, _ = writer()
    (found,) = wording.example(data([{"messages": messages}]).conversations[0]).rows
    prompt = serving().tokens(Generate(messages=tuple(messages[:-1])))
    earlier = [one for one in said[1:-1:2] if one != one.strip()]  # where an answer ends at white space, merges differ
    if not earlier:
        assert found.tokens[: found.prompt] == prompt
    own = found.tokens[found.prompt :]
    assert own[-1] == END
    assert found.tokens.count(END) == len(said)


def test_the_template_is_rendered_as_chat_renders_it() -> None:
    base, _, served = writer()
    whole = Template(TEMPLATE).render(talk("user: a", "assistant: b")["messages"], add_generation_prompt=False)
    found = row("user: a", "assistant: b")
    assert served.tokens(whole, special=True)[: len(found.tokens)] == found.tokens.tolist()
    assert base.card["chat_template"]


# ---- sides


@settings(max_examples=examples(100))
@given(
    rows=st.lists(st.sampled_from(range(12)), min_size=2, max_size=40),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_is_on_one_side_and_equal_rows_on_the_same(rows: list[int], fraction: float, seed: int) -> None:
    found = data([small_talk(12)[row] for row in rows]).conversations
    if len(set(rows)) < 2:
        with pytest.raises(DatasetContradictsSpec, match="one distinct row"):
            split(found, fraction, seed)
        return
    learning, validating = split(found, fraction, seed)
    assert learning
    assert validating
    assert sorted(one.row for one in [*learning, *validating]) == list(range(1, len(rows) + 1))
    sides = [{rows[one.row - 1] for one in side} for side in (learning, validating)]
    assert not sides[0] & sides[1]
    wanted = min(max(1, round(len(set(rows)) * fraction)), len(set(rows)) - 1)
    assert len(sides[1]) == wanted
    assert split(found, fraction, seed) == (learning, validating)


def test_another_seed_splits_otherwise() -> None:
    found = data(small_talk(20)).conversations
    assert len({tuple(one.row for one in split(found, 0.3, seed)[1]) for seed in range(5)}) > 1


def test_an_example_knows_its_size() -> None:
    _, wording, _ = writer()
    example: Example = wording.example(conversation("user: a", "assistant: b"))
    assert example.size == example.longest == len(example.rows[0].tokens)
    assert spec().split.fractions == [0.9, 0.1]
