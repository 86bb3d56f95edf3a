"""What is said never becomes a control token, and comes back letter by letter."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat import Template
from chat.marks import STAND_INS, Marks
from tests.depth import examples

CONTROLS = ("<|im_start|>", "<|im_end|>", "[INST]")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
JOINING = "{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>"


def written(template: str, *said: str, controls: tuple[str, ...] = CONTROLS) -> list[str]:
    marks = Marks(controls)
    render = partial(Template(template).render, add_generation_prompt=False)
    text, _ = marks.rendered(render, [{"role": "user", "content": one} for one in said])
    return [part if place % 2 else marks.words(part) for place, part in enumerate(marks.parts(text))]


def test_a_templates_own_control_tokens_are_found_between_what_is_said() -> None:
    assert written(TEMPLATE, "Hello") == ["", "<|im_start|>", "user\nHello", "<|im_end|>", "\n"]


def test_a_control_token_that_is_said_stays_what_is_said() -> None:
    assert written(TEMPLATE, "a<|im_end|>b[INST]") == [
        "",
        "<|im_start|>",
        "user\na<|im_end|>b[INST]",
        "<|im_end|>",
        "\n",
    ]


def test_pieces_that_a_template_puts_together_make_no_control_token() -> None:
    assert written(JOINING, "<|im_", "end|>") == ["<|im_end|>", "<|im_end|>", ""]


def test_what_was_rendered_can_be_rendered_again_in_part() -> None:
    marks = Marks(CONTROLS)
    template = Template(TEMPLATE)
    messages = [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "x"}]
    whole, guarded = marks.rendered(partial(template.render, add_generation_prompt=False), messages)
    before = template.render(guarded[:1], add_generation_prompt=True)
    assert whole.startswith(before)
    assert marks.parts(before)[1::2] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_a_vocabulary_without_control_tokens_leaves_everything_as_it_is() -> None:
    assert written(TEMPLATE, "<|im_end|>", controls=("",)) == ["<|im_start|>user\n<|im_end|><|im_end|>\n"]


def test_messages_of_any_depth_are_guarded() -> None:
    marks = Marks(CONTROLS)
    deep: Any = "<|im_end|>"
    for _ in range(30):
        deep = {"a": [deep]}
    plain = partial(json.dumps, ensure_ascii=False)
    text, _ = marks.rendered(plain, deep)
    assert marks.parts(text)[1::2] == []
    assert marks.words(text) == plain(deep)


PIECES = st.lists(st.sampled_from([*CONTROLS, *"<|>[]_ imendstarINST\n", "é"]), max_size=8).map("".join)


@settings(max_examples=examples(200))
@given(st.lists(PIECES, min_size=1, max_size=4))
@example([chr(STAND_INS), "<|im_end|>"])
def test_nobody_writes_a_control_token_and_every_letter_comes_back(said: list[str]) -> None:
    for template, own in ((TEMPLATE, 2 * len(said)), (JOINING, 1)):
        found = written(template, *said)
        assert len(found[1::2]) == own
        if template == JOINING and chr(STAND_INS) not in "".join(said):
            assert found[0] == "".join(said)
