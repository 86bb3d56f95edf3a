"""Of any source and any messages, a prompt or a TemplateRefused comes, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chat import Limits, Template, TemplateRefused
from tests.chat.templates import FAMILIES, WEATHER
from tests.depth import examples

LIMITS = Limits(steps=50_000, built_bytes=1 << 20, output_bytes=1 << 16)
CODES = {
    "template_too_large",
    "template_invalid",
    "template_forbidden",
    "template_too_slow",
    "template_output_too_large",
    "template_raised",
    "template_failed",
    "messages_invalid",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "items", "__class__", ""]), JSON, max_size=4
)

WORDS = [
    "\n{{",
    "}}",
    "{%",
    "%}",
    "{%-",
    "-%}",
    "{#",
    "#}",
    "if",
    "elif",
    "else",
    "endif",
    "for",
    "in",
    "endfor",
    "set",
    "endset",
    "macro",
    "endmacro",
    "f",
    "g",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    ":",
    "=",
    "==",
    "!=",
    "<",
    ">",
    "+",
    "-",
    "*\n/",
    "//",
    "%",
    "**",
    "~",
    "|",
    "not",
    "and",
    "or",
    "is",
    "'a'",
    '"b"',
    "1",
    "2.5",
    "1000000",
    "true",
    "none",
    "messages",
    "m",
    "loop",
    ".index",
    ".role",
    "['content']",
    "ns",
    "namespace(x=1)",
    ".x\nrange(9)",
    "range",
    "raise_exception",
    "strftime_now",
    "tojson",
    "trim",
    "map",
    "list",
    "join",
    "replace",
    "length",
    "upper",
    "default",
    "string",
    "items",
    "select",
    "tools\n.split('a')",
    ".strip()",
    ".items()",
    ".get('a')",
    "defined",
    "mapping",
    "self",
    "caller",
    "varargs",
    "break",
    "continue",
    "generation",
    "endgeneration",
    "with\nendwith",
    "raw",
    "endraw",
    "include",
    "import",
    "block",
    "call",
    "filter",
    "recursive",
    "lipsum",
    "__class__",
    "\n\n",
]


@given(st.text())
@settings(max_examples=examples(50))
def test_any_text_is_a_template_or_refused(source: str) -> None:
    attempt(source)


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
@settings(max_examples=examples(100))
def test_any_words_of_the_language_are_a_template_or_refused(source: str) -> None:
    attempt(source)


NAMES = st.sampled_from(
    ["messages", "m", "loop.index", "loop.last", "ns", "ns.x", "f(1)", "tools", "nothing", "range(3)", "f"]
)
LITERALS = st.sampled_from(["'a'", "'é' * 3", "0", "-1", "1.5", "none", "true", "[]", "[1, 'b']", "{'a': 1}", "(1, 2)"])
EXPRESSION = st.recursive(
    NAMES | LITERALS,
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "in", "and", "or"]),
            inner,
        ).map(lambda parts: "({} {} {})".format(*parts)),
        st.tuples(
            inner, st.sampled_from([".role", "['content']", "[0]", "[-1:]", "[::2]", ".items()", ".split('a')", ".x"])
        ).map(lambda parts: "{}{}".format(*parts)),
        st.tuples(
            inner,
            st.sampled_from(
                [
                    "trim",
                    "upper",
                    "length",
                    "list",
                    "tojson",
                    "string",
                    "first",
                    "last",
                    "join",
                    "dictsort",
                    "int",
                    "reverse",
                    "map('string')",
                    "select",
                ]
            ),
        ).map(lambda parts: "({} | {})".format(*parts)),
        st.tuples(
            inner, st.sampled_from(["defined", "string", "mapping", "odd", "none", "sequence", "in('ab')", "eq(1)"])
        ).map(lambda parts: "({} is {})".format(*parts)),
        st.tuples(inner, inner, inner).map(lambda parts: "({} if {} else {})".format(*parts)),
    ),
    max_leaves=8,
)
STATEMENT = st.recursive(
    EXPRESSION.map("{{{{ {} }}}}".format)
    | EXPRESSION.map("{{% set ns.x = {} %}}".format)
    | st.text("ab {}%\n", max_size=5),
    lambda inner: st.one_of(
        st.tuples(EXPRESSION, inner).map(lambda parts: "{{% for m in {} %}}{}{{% endfor %}}".format(*parts)),
        st.tuples(EXPRESSION, inner, inner).map(
            lambda parts: "{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format(*parts)
        ),
        inner.map("{{% set v %}}{}{{% endset %}}".format),
        inner.map("{{% generation %}}{}{{% endgeneration %}}".format),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=6,
)


@given(STATEMENT, STATEMENT, st.lists(MESSAGE, max_size=3))
@settings(max_examples=examples(60))
def test_any_sentence_of_the_language_renders_any_messages_or_is_refused(
    body: str, macro: str, messages: list[Any]
) -> None:
    attempt("{% set ns = namespace(x=1) %}{% macro f(m) %}" + macro + "{% endmacro %}" + body, messages)


@given(st.sampled_from(sorted(FAMILIES)), st.lists(MESSAGE, max_size=4), st.booleans())
@settings(max_examples=examples(40))
def test_an_ordinary_template_renders_any_messages_or_refuses_them(
    family: str, messages: list[Any], tools: bool
) -> None:
    attempt(FAMILIES[family], messages, [WEATHER] if tools else [])


@given(JSON)
@settings(max_examples=examples(40))
def test_any_json_is_written_as_json(value: Any) -> None:
    prompt = attempt("{{ messages[0].v | tojson }}", [{"v": value}])
    if prompt is not None:
        assert json.dumps(json.loads(prompt)) == json.dumps(value)


def attempt(source: str, messages: list[Any] | None = None, tools: list[Any] | None = None) -> str | None:
    """The prompt, which can be sent on; None where it was refused."""
    try:
        prompt = Template(source, limits=LIMITS).render(
            messages or [{"role": "user", "content": "a b"}], tools=tools or []
        )
    except TemplateRefused as refusal:
        if refusal.code not in CODES or not refusal.hint or len(refusal.message) > 300:
            raise AssertionError(refusal.code) from refusal
        return None
    assert len(prompt.encode()) <= LIMITS.output_bytes
    return prompt
