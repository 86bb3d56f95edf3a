"""Every operation pays for what it builds and for what it goes through: done often, each alone uses up its purse."""

from __future__ import annotations

from typing import Any

import pytest

from chat import Limits, Template, TemplateRefused

MESSAGES: list[Any] = [
    {
        "text": "a b" * 8_000,
        "wide": "é b" * 8_000,
        "same": "a b" * 8_000,
        "near": "a" * 50 + "b" + "a" * 48,
        "list": [{"a": "b"}] * 4_000,
        "numbers": list(range(4_000)),
        "dict": {f"k{at}": at for at in range(4_000)},
        "texts": ["ab"] * 4_000,
        "long": {"x" * 24_000: 1, "y": "z" * 24_000},
        "key": "x" * 24_000,
    }
]
NAMES = "".join("{% set " + name + " = messages[0]['" + name + "'] %}" for name in MESSAGES[0])
MACROS = "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}"

BUILDING = [
    "text ~ text",
    "text + text",
    "text + 'x' + text",
    "text * 1",
    "text[1:]",
    "numbers[1:]",
    "numbers + numbers",
    "[list, list] | string",
    "text | replace('a', 'c')",
    "text.replace('a', '')",
    "text | upper",
    "wide | upper",
    "text.lower()",
    "text.title()",
    "text | title",
    "text | capitalize",
    "text | trim",
    "text.lstrip('b')",
    "text | reverse",
    "numbers | reverse",
    "text | list",
    "range(4000) | list",
    "numbers | list",
    "texts | join(', ')",
    "', '.join(texts)",
    "text.split('a')",
    "text.split()",
    "text.rsplit('a', 100)",
    "dict.items()",
    "dict.keys()",
    "dict.values()",
    "dict | items",
    "dict | dictsort",
    "numbers | map('string')",
    "numbers | map('abs')",
    "list | map(attribute='a')",
    "list | select",
    "list | selectattr('a')",
    "list | tojson",
    "list | tojson(indent=1)",
    "text | tojson",
    "namespace(dict)",
    "twice(text)",
]

READING = [
    "text == same",
    "text != same",
    "text < same",
    "text >= same",
    "near in text",
    "near not in text",
    "text in [1, 2, 3]",
    "numbers == numbers",
    "list < list",
    "9999 in numbers",
    "9999 in range(4000)",
    "[1] in list",
    "key in long",
    "long[key]",
    "long.get(key)",
    "numbers[key]",
    "text.startswith(text)",
    "text.endswith((text, same))",
    "text.split('c')",
    "text.split(near)",
    "text.split(none)",
    "text.rsplit(near)",
    "text.strip('xyz')",
    "text | trim('xyz')",
    "text[1:]",
    "text | upper",
    "wide | upper",
    "wide.lower()",
    "text.title()",
    "text | title",
    "text | capitalize",
    "text | replace('c', 'd')",
    "text | tojson",
    "numbers | tojson",
    "numbers | tojson(indent=1)",
    "numbers | string",
    "numbers | join",
    "', '.join(texts)",
    "numbers | list",
    "numbers | map('abs')",
    "numbers | select('odd')",
    "list | map(attribute='a')",
    "[] | map(attribute=text)",
    "list | selectattr('a', 'eq', 'b')",
    "list | rejectattr('a', 'eq', 'b')",
    "dict | dictsort",
    "long | dictsort",
    "long | dictsort(by='value')",
]


FEW_BYTES = Limits(steps=10**9, built_bytes=1_000_000)
FEW_STEPS = Limits(steps=80_000, built_bytes=10**9)


def keeping(operation: str) -> str:
    return "{% for i in range(200) %}{% set ns.kept = [ns.kept, " + operation + "] %}{% endfor %}"


def seeing(operation: str) -> str:
    return "{% for i in range(200) %}{% set seen = " + operation + " %}{% endfor %}"


def template(repeated: str, limits: Limits) -> Template:
    return Template(MACROS + NAMES + "{% set ns = namespace(kept=[]) %}" + repeated, limits=limits)


def refusal(repeated: str, limits: Limits) -> str:
    made = template(repeated, limits)
    with pytest.raises(TemplateRefused) as refused:
        made.render(MESSAGES)
    return refused.value.code


@pytest.mark.parametrize("operation", BUILDING)
def test_what_an_operation_builds_is_paid_for(operation: str) -> None:
    assert refusal(keeping(operation), FEW_BYTES) == "template_output_too_large"


@pytest.mark.parametrize("operation", READING)
def test_what_an_operation_goes_through_is_paid_for(operation: str) -> None:
    assert refusal(seeing(operation), FEW_STEPS) == "template_too_slow"


@pytest.mark.parametrize(
    "operation", ["text", "list", "text[0]", "text | length", "list | first", "dict.k1", "text | d"]
)
def test_what_takes_no_longer_for_more_costs_no_more(operation: str) -> None:
    assert template(keeping(operation), FEW_BYTES).render(MESSAGES) == ""
    assert template(seeing(operation), FEW_STEPS).render(MESSAGES) == ""


def test_what_is_written_into_a_variable_is_paid_for() -> None:
    block = "{% for i in range(200) %}{% set x %}{{ text }}{% endset %}{% set ns.kept = [ns.kept, x] %}{% endfor %}"
    assert refusal(block, Limits(built_bytes=1_000_000)) == "template_output_too_large"


def test_a_text_of_the_usual_length_costs_little() -> None:
    source = "{% for m in messages %}{{ m.text | trim ~ m.text.split('b')[0] }}{% endfor %}"
    turns = [{"text": "a sentence of the usual length, as people type it"}] * 100
    assert Template(source, limits=Limits(steps=5_000, built_bytes=100_000)).render(turns)
