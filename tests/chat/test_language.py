"""Each operator, filter, test and call answers as Jinja's own: on examples, and on values that are made up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import Template, TemplateRefused
from tests.chat.reference import rendered
from tests.chat.templates import FAMILIES, WEATHER
from tests.depth import examples

DATA: list[Any] = [
    {
        "role": "user",
        "content": " a<b> é\n",
        "n": 3,
        "f": 1.5,
        "no": None,
        "yes": True,
        "items": [1],
        "list": ["b", "a"],
    },
    {"role": "assistant", "content": "", "deep": {"x": {"y": [1, {"z": "Z"}]}}, "by": {"b": 1, "A": 2, "a": 3}},
    {"role": "tool", "content": [{"type": "text", "text": "t"}]},
]

EXPRESSIONS = r"""
'a' + 'b' + messages[0].content + 'c'
1 + 2 + 3 - 7
[1] + [2, 'x'] + []
'a' + 1
'a' + nothing
nothing + 'a'
7 // 2 ~ 7 / 2 ~ 7 % 4 ~ -7 % 4 ~ 3 * 4 ~ 1.5 * 2
'ab' * 3
3 * 'ab'
1 / 0
-messages[0].n ~ +1
not nothing and true or false
'x' ~ 1 ~ none ~ true ~ 1.0 ~ nothing ~ [1, 'a', none] ~ {'k': (1, 2)}
1 < 2 and 'a' < 'b' and [1] < [2] and 2 >= 2 and 1 <= 1 and 2 > 1
1 < 2 < 3, 3 > 2 > 2, 1 == 1 != 2
1 < 'a'
messages[0] == messages[0], messages[0] == messages[1], messages[0] != messages[1]
nothing == none, nothing == nothing, 1 == 1.0, 1 == true, '1' == 1
'a' in 'cat', 'x' not in 'cat', 'role' in messages[0], 1 in [1, 2], 'b' in ('a',), [1] in [[1]], 3 in range(5)
1 in 'cat'
'a' in nothing, 'a' in none
messages[0].role, messages[0]['role'], messages[0].nothing, messages[0]['nothing']
messages[0]['items'], messages[1].deep.x.y[1].z, messages[-1].role, messages[9], messages['x']
messages[0].nothing.more
messages[0].role[0], messages[0].role[-1], messages[0].role[99], messages[0].list[true]
messages[1:], messages[::-1] | length, messages[0].role[1:3], messages[0].role[:-1], (1, 2, 3)[::2], range(9)[2:4]
messages[0].no[1:]
messages[0]['a':]
messages[0] is mapping, messages is sequence, 'a' is string, 'a' is sequence, messages is iterable, 1 is iterable
nothing is defined, nothing is undefined, none is none, true is boolean, 1 is boolean, false is false, 1 is true
1 is number, 1.5 is float, 1 is integer, true is integer, 3 is odd, 3 is even, 9 is divisibleby 3, none is sameas none
1 is eq 1, 1 is ne 2, 1 is lt 2, 1 is ge 1, 'a' is in 'ab', 2 is equalto 2, 3 is greaterthan 2
nothing is iterable, nothing is sequence, nothing is mapping, {} is sequence, range(1) is sequence
messages[0].items is mapping, messages[0].get is defined, messages[0].title is defined, 'a'.upper is defined
' a '|trim ~ 'xax'|trim('x') ~ 'aB'|upper ~ 'aB'|lower ~ 'aB c'|capitalize ~ 'aB c-d'|title
1|string ~ 'a'|safe ~ 'a<'|safe + '<', messages|length, 'abc'|count, {}|length, nothing|length
5|length
nothing|default('d') ~ ''|default('e') ~ ''|default('f', true) ~ ''|d('g', boolean=true) ~ nothing|default
messages|first|length, messages|last, []|first, []|last, 'ab'|first, 'ab'|last, {'a': 1}|first
'ab'|list, {'a': 1}|list, range(3)|list, (1, 2)|list, nothing|list
none|list
'abc'|reverse, [1, 2]|reverse|list
messages[1].by|dictsort, messages[1].by|dictsort(true), messages[1].by|dictsort(by='value', reverse=true)
messages[1].by|items|list, nothing|items|list, messages[1].by.items()|list, messages[1].by.keys()|list
messages[1].by.values()|list, messages[1].by.get('A'), messages[1].by.get('B'), messages[1].by.get('B', 5)
[1, 'a', none]|join(', ') ~ ['a']|join ~ messages|join('-', attribute='role') ~ ', '.join(['a', 'b'])
', '.join([1])
'aaa'|replace('a', 'b') ~ 'aaa'|replace('a', 'b', 2) ~ 'aaa'.replace('a', '') ~ 'ab'.replace('', '-') ~ 11|replace(1, 2)
messages|map(attribute='role')|list, messages|map(attribute='deep.x', default=0)|list, ['a', 'b']|map('upper')|join
['a', 1]|map('string')|map('length')|list, ['1', 'x']|map('int', default=7)|list, none|map('upper')|list
messages|selectattr('role', 'equalto', 'user')|list|length, messages|rejectattr('role', '==', 'user')|list|length
messages|selectattr('deep')|list|length, messages|selectattr('deep', 'defined')|map(attribute='role')|join
[1, 0, none, 'a']|select|list, [1, 0]|reject|list, [1, 2, 3]|select('odd')|list, [1, 2]|reject('in', [2])|list
'12'|int ~ 'x'|int ~ 'x'|int(9) ~ '1.9'|int ~ 3.7|int ~ none|int ~ 'ff'|int(base=16) ~ '1.5'|float ~ 'y'|float ~ -3|abs
messages[0]|tojson, messages|tojson(indent=2), 'é<'|tojson, 'é'|tojson(ensure_ascii=true), none|tojson, 1.0|tojson
messages[1].by|tojson(sort_keys=true, separators=(',', ':')), {'a': []}|tojson(indent=4), [[], {}]|tojson(indent=0)
nothing|tojson
range(3)|tojson
'a,b,,c'.split(','), ' a  b '.split(), 'a b c'.split(' ', 1), 'a b c'.rsplit(' ', 1), ''.split(',')
'a'.split('')
' a\n'.strip() ~ ' a\n'.lstrip() ~ ' a\n'.rstrip('\n') ~ 'xax'.strip('x') ~ 'ab'.upper() ~ 'AB'.lower() ~ 'a b'.title()
'abc'.startswith('a') ~ 'abc'.endswith(('c', 'd')) ~ 'abc'.startswith('b') ~ 'ab'.capitalize()
messages.split('a')
nothing.split('a')
messages[0].content.get('a')
1 if nothing else 2, (1 if nothing) is defined, 'a' if messages else 'b'
range(3)|list, range(1, 9, 3)|list, range(5)|length, range(2)
range('a')
raise_exception('no')
[1, 'a', {'b': none}], (1,), (), {}, {'a': {'b': 1}}, true, none, 1.5, 1e3, -5
""".strip().splitlines()

STATEMENTS = [
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }},{% endfor %}",
    "{% for m in messages %}{{ loop.revindex }}{{ loop.previtem.role }}{{ loop.nextitem.role }},{% endfor %}",
    "{% for m in messages %}{{ loop['index'] }}{{ loop.nothing }}{{ loop.depth }}{% endfor %}",
    "{% for m in messages if m.role != 'user' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}",
    "{% for m in [] %}a{% else %}b{% endfor %}{% for x in nothing %}c{% endfor %}",
    "{% for c in 'xyz' %}{{ c }}{% endfor %}{% for k in messages[1].by %}{{ k }}{% endfor %}",
    "{% for k, v in messages[1].by.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ loop.index }}{% endfor %}",
    "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ loop.index }}{% endfor %}",
    "{% for m in none %}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% for a in messages %}{% for b in messages %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% set x = 1 %}{% for m in messages %}{% set x = x + 1 %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1, y='a') %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace({'x': 1}, y=2) %}{{ ns.x }}{{ ns['y'] }}{{ ns.z }}",
    "{% set messages.x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = (1, 2) %}{{ c }}",
    "{% set a, b = [1] %}",
    "{% set x %} a {{ 1 }} {% endset %}[{{ x }}]{% set y | upper | trim %} b{{ x }} {% endset %}[{{ y }}]",
    "{% macro f(a, b='B', c='') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}{{ f(1, c=2) }}{{ f(1, 2, 3) ~ f(4) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, k=3) }}",
    "{% if nothing %}a{% elif messages %}b{% else %}c{% endif %}{% if not messages %}d{% endif %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}",
    "  {% if true %}\n a\n  {% endif %}\n{# gone #}\nb\n{%- if true %} c {% endif -%}\n d\n",
    "{% raw %}{{ x }}{% endraw %}{{ '{{' }}\r\n{{ \"q\\n\\u00e9\" }}",
    "{{ bos_token }}{{ eos_token }}{{ documents }}{{ add_generation_prompt }}{{ tools }}{{ nothing }}",
]


def our_rendering(source: str, messages: list[Any], tools: list[Any] | None = None, prompt: bool = True) -> str | None:
    template = Template(source, bos="<s>", eos="</s>")
    try:
        return template.render(messages, tools=tools or (), add_generation_prompt=prompt)
    except TemplateRefused as refused:
        if refused.code not in ("template_failed", "template_raised"):
            raise
        return None


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_comes_out_as_in_jinja(expression: str) -> None:
    source = "{{ " + expression + " }}"
    assert our_rendering(source, DATA) == rendered(source, DATA)


@pytest.mark.parametrize("source", STATEMENTS)
def test_a_statement_comes_out_as_in_jinja(source: str) -> None:
    assert our_rendering(source, DATA) == rendered(source, DATA)


TEXT = st.sampled_from(["", " x", "<b>é\n", "<think>\na\n</think>\n\nb", "{{ bos_token }}", "</think>", "😀"])
CALL = {"id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "é", "days": [1, None, True]}}}
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "other"])},
    optional={
        "content": TEXT
        | st.none()
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=2),
        "tool_calls": st.just([CALL]) | st.none(),
    },
)


@given(st.sampled_from(sorted(FAMILIES)), st.lists(TURN, max_size=5), st.booleans(), st.booleans())
@settings(max_examples=examples(50))
def test_a_conversation_comes_out_as_in_jinja(family: str, turns: list[Any], tools: bool, prompt: bool) -> None:
    source = FAMILIES[family].replace("{% generation %}", "").replace("{% endgeneration %}", "")
    offered = [WEATHER] if tools else None
    assert our_rendering(source, turns, offered, prompt) == rendered(source, turns, offered, prompt)


SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.0, 1.5, "", "a", "ab", "1", " A "])
VALUE = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.sampled_from("ab"), SCALAR, max_size=2)
OPERATORS = ["+", "-", "/", "//", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


@given(st.sampled_from(OPERATORS), VALUE, VALUE)
@settings(max_examples=examples(50))
def test_an_operator_does_to_any_two_values_what_it_does_in_jinja(sign: str, left: Any, right: Any) -> None:
    source = "{{ messages[0].l " + sign + " messages[0].r }}"
    data = [{"l": left, "r": right}]
    assert our_rendering(source, data) == rendered(source, data)


FILTERS = [
    "abs",
    "capitalize",
    "count",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items|list",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map('string')|list",
    "reject|list",
    "reverse|list",
    "select|list",
    "selectattr('a')|list",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
]


@given(st.sampled_from(FILTERS), VALUE)
@settings(max_examples=examples(50))
def test_a_filter_does_to_any_value_what_it_does_in_jinja(name: str, value: Any) -> None:
    source = "{{ messages[0].v | " + name + " }}"
    assert our_rendering(source, [{"v": value}]) == rendered(source, [{"v": value}])


@given(st.text(max_size=8), st.text(max_size=3), st.integers(-9, 9), st.integers(-9, 9))
@settings(max_examples=examples(50))
def test_text_is_cut_and_parted_as_in_jinja(text: str, part: str, start: int, stop: int) -> None:
    source = "{{ messages[0].t[%d:%d] ~ messages[0].t.split(messages[0].p) ~ messages[0].t.strip(messages[0].p) }}"
    data = [{"t": text, "p": part}]
    assert our_rendering(source % (start, stop), data) == rendered(source % (start, stop), data)
