"""A refusal says by a code, a sentence and a hint what is wrong with what, and how to go on."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from chat import Limits, Template, TemplateRefused
from tests.chat.templates import CHATML, said

SELF: list[Any] = []
SELF.append({"content": SELF})


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def refused(attempt: Callable[[], object]) -> TemplateRefused:
    with pytest.raises(TemplateRefused) as caught:
        attempt()
    return caught.value


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("x" * 70_000, "template_too_large", "the chat template has more than 64 KiB of source"),
        (
            "a\n{% if x %}",
            "template_invalid",
            "line 2: Unexpected end of template. Jinja was looking for the following tags",
        ),
        ("\n\n{{ a | attr('b') }}", "template_forbidden", "line 3: the filter attr is not allowed in a chat template"),
        ("{{ a is filter }}", "template_forbidden", "line 1: the test filter is not allowed in a chat template"),
        ("{{ a.center(9) }}", "template_forbidden", "line 1: the call .center() is not allowed in a chat template"),
        ("{{ eval('1') }}", "template_forbidden", "line 1: the call eval() is not allowed in a chat template"),
        ("{{ 2 ** 3 }}", "template_forbidden", "line 1: the operator ** is not allowed in a chat template"),
        ("{% include 'a' %}", "template_forbidden", "line 1: {% include %} is not allowed in a chat template"),
        ("{{ ''.__class__ }}", "template_forbidden", "line 1: the name '__class__' is not allowed in a chat template"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_once(source: str, code: str, message: str) -> None:
    refusal = refused(lambda: Template(source))
    assert refusal.code == code
    assert refusal.message.startswith(message)
    assert str(refusal) == refusal.message
    assert refusal.hint


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "template_too_slow", ""),
        ("{{ messages[0].content * 9 }}", "template_output_too_large", "the prompt would be longer than 40 bytes"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "template_too_slow", "macros call macros more than"),
        ("{{ raise_exception('Roles must alternate') }}", "template_raised", "Roles must alternate"),
        ("{{ nothing.more }}", "template_failed", "UndefinedError: 'nothing' is undefined"),
        ("{{ messages[0].foo + 'x' }}", "template_failed", "UndefinedError: 'dict object' has no attribute 'foo'"),
        ("{{ 'a' + 1 }}", "template_failed", "TypeError: can only concatenate str"),
        ("{{ 1 / 0 }}", "template_failed", "ZeroDivisionError: division by zero"),
        ("{{ namespace }}", "template_failed", "TypeError: a value of type Function is no data"),
    ],
)  # fmt: skip
def test_a_rendering_that_cannot_end_well_is_refused(source: str, code: str, message: str) -> None:
    template = Template(source, limits=Limits(output_bytes=40))
    refusal = refused(lambda: template.render(said("user: hello")))
    assert refusal.code == code
    assert refusal.message.startswith(message)
    assert refusal.hint


def test_what_the_template_says_of_itself_is_cut() -> None:
    refusal = refused(lambda: Template("{{ raise_exception('x' * 10000) }}").render([]))
    assert refusal.message == "x" * 299 + "…"


def test_a_prompt_may_be_as_long_as_its_limit_in_bytes() -> None:
    template = Template("{{ messages[0].content }}", limits=Limits(output_bytes=10))
    assert template.render([{"content": "é" * 5}]) == "é" * 5
    assert refused(lambda: template.render([{"content": "é" * 5 + "e"}])).code == "template_output_too_large"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"bytes", "the messages hold a value of type bytes, which JSON does not have"),
        (datetime.date(2026, 3, 1), "the messages hold a value of type date, which JSON does not have"),
        ({1: "x"}, "the messages hold a key that is a value of type int, not text"),
        (1 << 63, "the messages hold a whole number that 64 bits do not hold"),
        (deep(63), "the messages are nested more than 64 deep"),
        (SELF, "the messages are nested more than 64 deep"),
    ],
)
def test_what_is_no_json_is_no_message(content: Any, message: str) -> None:
    refusal = refused(lambda: Template("x").render([{"content": content}]))
    assert (refusal.code, refusal.message) == ("messages_invalid", message)


def test_tools_are_json_too() -> None:
    refusal = refused(lambda: Template("x").render([], tools=[{"function": print}]))
    assert refusal.message == "the tools hold a value of type builtin_function_or_method, which JSON does not have"


def test_messages_may_be_as_deep_as_they_may_and_are_left_as_they_were() -> None:
    messages = [{"role": "user", "content": deep(62)}]
    assert Template("{{ messages[0].role }}").render(messages) == "user"
    assert messages == [{"role": "user", "content": deep(62)}]


def test_more_messages_than_the_steps_suffice_for_are_refused() -> None:
    template = Template(CHATML, limits=Limits(steps=10_000))
    assert template.render(said(*["user: x"] * 100))
    assert refused(lambda: template.render(said(*["user: x"] * 1000))).code == "template_too_slow"
    unread = Template("x", limits=Limits(steps=2_000))
    assert unread.render(said(*["user: x"] * 100)) == "x"
    assert refused(lambda: unread.render([{"content": [0] * 2000}])).code == "template_too_slow"
    assert refused(lambda: unread.render([{str(at): 0 for at in range(1000)}])).code == "template_too_slow"


LATER = """
import sys
from chat import Template, TemplateRefused
before = set(sys.modules)
for source in ("{{ '\\u00e9\\\\n' ~ strftime_now('%B') ~ [1] | tojson(indent=2) }}{{ 'a b' | title }}",
               "{% if", "{{ 1" + "0" * 5000,
               "{{ raise_exception('x') }}", "{{ a.b }}", "{% break %}", "{{ '\\ud800' }}", "{% include 'x' %}"):
    try:
        Template(source).render([{"role": "user", "content": "x"}])
    except TemplateRefused:
        pass
print(sorted(set(sys.modules) - before))
"""


def test_once_imported_it_imports_nothing_more_as_a_sandbox_has_no_files() -> None:
    ended = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
