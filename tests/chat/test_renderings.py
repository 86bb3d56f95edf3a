"""The prompts of ordinary templates, written out by hand."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from chat import Template, TemplateRefused
from tests.chat.templates import (
    CHATML,
    GEMMA,
    LLAMA_3,
    MISTRAL,
    PARTS,
    QWEN_TOOLS,
    SMOLLM2,
    TRAINED,
    WEATHER,
    said,
)

TALK = said("user: Hello", "assistant: Hi!", "user: Bye ")


def test_chatml_opens_and_closes_every_turn_and_opens_the_assistants() -> None:
    assert Template(CHATML).render(TALK) == (
        "<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi!<|im_end|>\n"
        "<|im_start|>user\nBye <|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_without_a_generation_prompt_the_assistants_turn_is_not_opened() -> None:
    assert Template(CHATML).render(TALK[:1], add_generation_prompt=False) == "<|im_start|>user\nHello<|im_end|>\n"


def test_llama_3_begins_once_and_trims_what_is_said() -> None:
    assert Template(LLAMA_3, bos="<|begin_of_text|>").render([*said("system: Be brief."), *TALK]) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_mistral_wraps_instructions_and_ends_answers() -> None:
    assert Template(MISTRAL, bos="<s>", eos="</s>").render(TALK) == "<s>[INST] Hello [/INST]Hi!</s> [INST] Bye  [/INST]"


def test_mistral_refuses_roles_out_of_turn_in_its_own_words() -> None:
    with pytest.raises(TemplateRefused) as refused:
        Template(MISTRAL).render(said("user: a", "user: b"))
    assert refused.value.code == "template_raised"
    assert refused.value.message == "Conversation roles must alternate user/assistant/user/assistant/..."


def test_gemma_calls_the_assistant_model() -> None:
    assert Template(GEMMA, bos="<bos>").render(TALK) == (
        "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi!<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_gemma_refuses_a_system_message() -> None:
    with pytest.raises(TemplateRefused, match=r"^System role not supported$"):
        Template(GEMMA).render(said("system: x", "user: y"))


def test_smollm2_introduces_itself_unless_the_caller_does() -> None:
    named = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    asked = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    template = Template(SMOLLM2)
    assert template.render(TALK[:1]) == named + asked
    assert template.render([*said("system: You."), *TALK[:1]]) == "<|im_start|>system\nYou.<|im_end|>\n" + asked


def test_tools_their_calls_and_their_answers_come_as_json_without_html_escapes() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Zürich & <b>"}}}
    talk = [
        *said("system: Be brief.", "user: Weather?", "assistant: <think>hm</think>\n\nI look."),
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        *said("tool: sun", "tool: rain"),
    ]
    called = '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich & <b>"}}\n</tool_call>'
    assert Template(QWEN_TOOLS).render(talk, tools=[WEATHER]) == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", "description": "the weather in <city>", '
        '"parameters": {"type": "object"}}}'
        "\n</tools><|im_end|>\n"
        "<|im_start|>user\nWeather?<|im_end|>\n"
        "<|im_start|>assistant\nI look.<|im_end|>\n"
        f"<|im_start|>assistant{called}{called}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_without_tools_a_template_sees_none() -> None:
    assert Template("{{ tools is none }}{{ tools is defined }}").render(TALK) == "TrueTrue"


def test_parts_of_a_message_are_put_together_by_a_macro() -> None:
    parts: list[Any] = [{"type": "text", "text": "What is "}, {"type": "image"}, {"type": "text", "text": "?"}]
    talk = [{"role": "user", "content": parts}, *said("assistant: A cat.")]
    assert Template(PARTS).render(talk) == "USER: What is <image>?\nASSISTANT: A cat.\nASSISTANT:"


def test_what_a_generation_tag_holds_is_rendered_as_if_it_were_not_there() -> None:
    assert Template(TRAINED, eos="</s>").render(TALK) == "Q: Hello\nA: Hi!</s>\nQ: Bye \n"


def test_a_template_that_never_looks_at_tools_says_so() -> None:
    assert Template(QWEN_TOOLS).uses_tools
    assert not Template(CHATML).uses_tools
    assert not Template("{% set tools = 1 %}tools {{ messages[0].tools }}").uses_tools


def test_the_date_is_the_one_that_the_caller_gives() -> None:
    template = Template("{{ strftime_now('%d %B %Y') }}")
    assert template.render([], now=datetime.datetime(2026, 3, 1)) == "01 March 2026"
    assert re.fullmatch(r"\d\d [A-Z][a-z]+ \d{4}", template.render([]))


def test_the_source_may_be_rendered_again_and_knows_nothing_of_the_time_before() -> None:
    template = Template(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    )
    assert [template.render(TALK), template.render(TALK[:1]), template.render(TALK)] == ["3", "1", "3"]


def test_special_text_in_a_message_is_only_text() -> None:
    hostile = "{{ bos_token }}{% for %}<b>&amp;\x00\\n"
    assert Template("{{ messages[0].content }}").render([{"content": hostile}]) == hostile


def test_odd_keys_of_a_message_are_only_keys() -> None:
    odd = {"": "a", "__class__": "b", "items": "c", "é\n": "d"}
    assert (
        Template("{{ messages[0] | tojson }}").render([odd]) == '{"": "a", "__class__": "b", "items": "c", "é\\n": "d"}'
    )
    assert Template("{{ messages[0]['items'] }}{{ messages[0][''] }}").render([odd]) == "ca"
