"""Templates that want this machine's time, its memory, or out. Each is refused, under the code that it stands below."""

# ruff: noqa: E501 - a template is a line

from __future__ import annotations

from typing import Any

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}, {chr(97 + at): "v" for at in range(26)}]

VARIABLES = "{% set ns = namespace(x='x' * 1000, l=[1]) %}"


def again(body: str, times: int = 90_000, first: str = VARIABLES) -> str:
    """`body`, as often as one loop may."""
    return first + "{% for i in range(" + str(times) + ") %}" + body + "{% endfor %}"


def doubled(last: str, of: str = "[ns.l, ns.l]") -> str:
    """A value of 40 nested pairs, which is small in memory and endless to whoever goes through it; then `last`."""
    return again("{% set ns.l = " + of + " %}", 40) + last


MACROS = "".join(f"{{% macro m{at}() %}}{{{{ m{at + 1}() }}}}{{{{ m{at + 1}() }}}}{{% endmacro %}}" for at in range(40))
MANY = ", ".join(f"a{at}" for at in range(60))
WIDE_CALL = "{% macro f(" + MANY + ") %}{{ f(" + MANY + ") }}{% endmacro %}{{ f() }}"

TOO_SLOW = {
    "loops in one another": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "many small loops": again("{% for b in range(1000) %}{% if a == b %}{% endif %}{% endfor %}", 1000),
    "loops that do nothing": again("{% for b in range(50000) %}{% endfor %}", 100),
    "loops that take nothing": again("{% for b in range(50000) if b < 0 %}{% endfor %}", 100),
    "a loop over the longest text": "{% for c in 'x' * 4000000 %}{{ c }}{% endfor %}",
    "what a loop knows of itself": again("{% for b in range(2000) %}{{ loop.length }}{{ loop.last }}{% endfor %}", 100),
    "macros that call two each": MACROS + "{% macro m40() %}x{% endmacro %}{{ m0() }}",
    "a macro that calls itself": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "macros that call each other": "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() ~ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself with much": WIDE_CALL,
    "a macro in a loop": "{% macro f(x) %}{{ x }}{% endmacro %}" + again("{{ f(i) }}"),
    "print of what doubles": doubled("{{ ns.l }}"),
    "json of what doubles": doubled("{{ ns.l | tojson }}"),
    "join of what doubles": doubled("{{ ns.l | join }}"),
    "two that double, compared": doubled("{% set a = ns.l %}{% set ns.l = [1] %}") + doubled("{{ a == ns.l }}")[len(VARIABLES) :],
    "what doubles, ordered": doubled("{{ ns.l < ns.l }}"),
    "what doubles, looked for": doubled("{{ ns.l in [ns.l] }}"),
    "print of what is deep": again("{% set ns.l = [ns.l] %}", 2000) + "{{ ns.l }}",
    "json of what is deep": again("{% set ns.l = [ns.l] %}", 2000) + "{{ ns.l | tojson }}",
    "what is deep, compared": again("{% set ns.l = [ns.l] %}", 2000) + "{{ ns.l == [ns.l] }}",
    "json, indented, of what is deep": again("{% set ns.l = [ns.l, ns.l] %}", 10) + again("{% set z = ns.l | tojson(indent=4) %}", 500, ""),
    "a search for what nearly fits": again("{{ ('a' * 50 ~ 'b' ~ 'a' * 48) in ns.x }}", first="{% set ns = namespace(x='a' * 29999) %}"),
    "a search in short texts": again("{{ y in x }}", first="{% set x = 'a' * 999 %}{% set y = 'a' * 250 ~ 'b' ~ 'a' * 249 %}"),
    "a search in long texts": again("{{ y in x }}", first="{% set x = 'a' * 4000000 %}{% set y = x[:1000000] ~ 'b' %}"),
    "a search from the right": again("{{ x.rsplit(y) }}", first="{% set x = 'a' * 4000 %}{% set y = 'b' ~ 'a' * 1999 %}"),
    "a strip of many characters": again("{{ x.strip(x) }}", first="{% set x = 'a' * 1000000 %}"),
    "long texts, compared": again("{{ x == y }}", first="{% set x = 'a' * 1000000 %}{% set y = x[1:] ~ 'a' %}"),
    "long texts, ordered": again("{{ x < y }}", first="{% set x = 'a' * 1000000 %}{% set y = x ~ 'a' %}"),
    "long texts, looked for": again("{{ y in l }}", first="{% set x = 'a' * 1000000 %}{% set y = x ~ '' %}{% set l = [x] %}"),
    "long keys": again("{{ y in d }}{{ d[y] }}", first="{% set x = 'a' * 1000000 %}{% set y = x ~ '' %}{% set d = {x: 1} %}"),
    "long beginnings": again("{{ y.startswith(x) }}", first="{% set x = 'a' * 1000000 %}{% set y = x ~ '' %}"),
    "many beginnings": again("{{ 'a'.startswith(t) }}", first="{% set ns = namespace(t=('b',)) %}{% for i in range(14) %}{% set ns.t = ns.t + ns.t %}{% endfor %}{% set t = ns.t %}"),
    "long paths": again("{{ [1] | map(attribute=x) | list }}", first="{% set x = 'a' * 1000000 %}"),
    "capitals beyond ASCII": "{{ ('é' * 2000000) | upper }}",
    "titles": "{{ ('a ' * 1000000) | title }}{{ ('a ' * 1000000).title() }}",
    "sorting": again("{{ messages[1] | dictsort | length }}"),
    "sorting by long texts": "{{ {'a': 'é' * 3000000} | dictsort(by='value') | length }}",
    "a list in a list in a map": again("{{ [r, r, r] | map('map', 'string') | list | length }}", first="{% set r = range(99999) | list %}"),
    "picking": again("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"),
    "json again and again": again("{% set z = messages | tojson %}"),
    "print again and again": again("{% set z %}{{ messages }}{% endset %}"),
}  # fmt: skip

TOO_LARGE = {
    "+ doubles a text": again("{% set ns.x = ns.x + ns.x %}", 3000),
    "~ doubles a text": again("{% set ns.x = ns.x ~ ns.x %}", 3000),
    "* doubles a text": again("{% set ns.x = ns.x * 2 %}", 3000),
    "* makes a text": "{{ 'x' * 1000000000 }}",
    "replace doubles a text": again("{% set ns.x = ns.x | replace('x', 'xx') %}", 30),
    ".replace() doubles a text": again("{% set ns.x = ns.x.replace('x', 'xx') %}", 30),
    "replace of nothing": "{% set x = 'x' * 50000 %}{{ x | replace('', x) }}",
    "join doubles a text": again("{% set ns.x = [ns.x, ns.x] | join(ns.x) %}", 30),
    "join of many with much": "{{ ('x' * 100000).join('y' * 9999) }}",
    "a set block doubles a text": again("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}", 3000),
    "a macro doubles a text": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + again("{% set ns.x = f(ns.x) %}", 1000),
    "+ doubles a list": again("{% set ns.l = ns.l + ns.l %}", 3000),
    "the longest range": "{{ range(1000000000) }}",
    "a list of the longest range": "{{ range(1000000000) | list }}",
    "parts of a text": "{{ ('ab' * 200000).split('b') }}",
    "words of a text": "{{ ('a ' * 200000).split() }}",
    "parts, kept": again("{% set ns.l = [ns.l, ('ab' * 4000).split('b')] %}", 3000),
    "letters, kept": again("{% set ns.l = [ns.l, ('éà' * 4000) | list] %}", 3000),
    "slices of a text": again("{% set z = x[1:] %}", 3000, "{% set x = 'a' * 1000000 %}"),
    "slices of a list": again("{% set z = x[::-1] %}", 3000, "{% set x = range(20000) | list %}"),
    "a wider alphabet": again("{% set z = x ~ '😀' %}", 3000, "{% set x = 'a' * 1000000 %}"),
    "json that escapes": again("{% set z = x | tojson %}", 3000, "{% set x = '\\x01' * 1000000 %}"),
    "a print that escapes": again("{% set z = x | string %}", 3000, "{% set x = ['\\U000e0001' * 1000000] %}"),
    "lists, kept": again("{% set ns.l = [ns.l, u, u, u, i + 1, [], {}, ()] %}", 40000),
    "namespaces, kept": again("{% set ns.l = namespace(a=ns.l) %}", 80000),
    "a print of much": "{{ ['x' * 1100000] | string | length }}",
    "a long prompt": again("{{ ns.x }}", 5000),
}

FAILED = {
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x | tojson }}",
    "print of a namespace in itself": "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    "a key that doubles": doubled("{{ {ns.l: 1} }}", "(ns.l, ns.l)"),
    "a key that doubles, looked for": doubled("{{ ns.l in messages[0] }}", "(ns.l, ns.l)"),
    "a key that doubles, missed": doubled("{{ messages[ns.l].x }}", "(ns.l, ns.l)"),
    "a filter's name that doubles": doubled("{{ [1] | map(ns.l) | list }}", "(ns.l, ns.l)"),
    "a width for %": "{{ '%1000000000d' % 1 }}",
    "a text that is odd": "{{ '%1000000000d' is odd }}",
    "a list, repeated": "{{ [1] * 1000000000 }}",
    "a number that grows": again("{% set ns.x = ns.x * ns.x %}", 3000, "{% set ns = namespace(x=3) %}"),
    "a long number": "{{ ('9' * 30) | int }}",
    "a long number with a fraction": "{{ ('9' * 30 ~ '.5') | int }}",
    "the one number without a positive": "{{ (-9223372036854775807 - 1) | abs }}",
    "a width for a date": "{{ strftime_now('%1000000000d') }}",
    "a long date": "{{ strftime_now('%B' * 100000) }}",
    "a wide indent": "{{ [1] | tojson(indent=1000000000) }}",
    "wide separators": "{{ [1] | tojson(separators=('x' * 1000000, '')) }}",
    "half a character": "{{ '\\ud800' }}",
    "a function, printed": "{{ range }}",
    "a macro, printed": "{% macro f() %}{% endmacro %}{{ f }}",
    "a method, printed": "{{ 'x'.upper }}",
    "a macro behind a key": "{% macro f() %}{% endmacro %}{{ {'split': f}.split() }}",
    "a filter that is an operator": "{{ [1] | map('()' ~ '') | list }}",
}

FORBIDDEN = {
    "a power": "{{ 9 ** 9 ** 9 }}",
    "a large number": "{{ 99999999999999999999 }}",
    "an endless number": "{{ 1e999 }}",
    "center": "{{ 'x' | center(10 * 9) }}",
    ".center()": "{{ 'x'.center(1000000000) }}",
    ".ljust()": "{{ 'x'.ljust(1000000000) }}",
    ".zfill()": "{{ 'x'.zfill(1000000000) }}",
    ".format()": "{{ '{:>1000000000}'.format(1) }}",
    ".format() of an attribute": "{{ '{0.__class__}'.format(messages) }}",
    ".format_map()": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format": "{{ '%1000000000s' | format(1) }}",
    "attr": "{{ messages | attr('__class__') }}",
    "the class": "{{ ''.__class__.__mro__ }}",
    "the class as an item": "{{ messages['__class__'] }}",
    "the method resolution order": "{{ messages.mro() }}",
    "a macro's globals": "{% macro f() %}{% endmacro %}{{ f.__globals__ }}",
    "lipsum": "{{ lipsum.x }}",
    "lipsum, called": "{{ lipsum(1000) }}",
    "cycler": "{{ cycler('a') }}",
    "joiner": "{{ joiner() }}",
    "dict": "{{ dict(a=1) }}",
    "self": "{{ self.x }}",
    "a namespace's class": "{% set ns = namespace(__class__=1) %}",
    "a namespace's insides": "{% set ns.__init__ = 1 %}",
    "a name with two lines": "{{ __import__ }}",
    "a name beyond ASCII": "{{ ﬁ }}",
    "a long name": "{{ " + "a" * 101 + " }}",
    "a list, changed": "{{ messages.append(1) }}",
    "a dict, changed": "{{ messages[0].update(a=1) }}",
    "what a macro returns, called": "{% macro f() %}{% endmacro %}{{ f()() }}",
    "spread arguments": "{{ range(*messages) }}",
    "spread names": "{{ namespace(**messages[0]) }}",
    "a loop by itself": "{% for m in messages %}{{ loop }}{% endfor %}",
    "a recursive loop": "{% for m in messages recursive %}{{ m }}{% endfor %}",
    "a loop, called": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "a macro's name with two lines": "{% macro __f() %}{% endmacro %}",
    "a macro in a loop": "{% for m in messages %}{% macro f() %}{% endmacro %}{% endfor %}",
    "a filter's name as text": "{{ messages | map('attr', '__class__') | list }}",
    "a test's name as text": "{{ messages | selectattr('a', 'filter') | list }}",
    "extends": "{% extends 'x' %}",
    "block": "{% block x %}{% endblock %}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as x %}",
    "from": "{% from 'x' import x %}",
    "call": "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{% endcall %}",
    "filter": "{% filter upper %}{% endfilter %}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
}

INVALID = {
    "no end": "{% if a %}",
    "no expression": "{{ }}",
    "an unknown tag": "{% do x %}",
    "a break alone": "{% break %}",
    "a loop's name": "{% for loop in messages %}{{ loop.index }}{% endfor %}",
    "a number of 5,000 digits": "{{ " + "1" * 5000 + " }}",
    "many loops in one another": "{% for a in b %}" * 25 + "{% endfor %}" * 25,
    "an argument twice": "{% macro f(a, a) %}{% endmacro %}",
}

SOURCE_TOO_LARGE = {
    "source": "x" * (64 * 1024 + 1),
    "source, in bytes": "é" * (32 * 1024 + 1),
    "words": "{{a}}" * 13_000,
    "parts": "{{ a.b.c }}" * 1_700,
    "parentheses": "{{" + "(" * 30_000 + ")" * 30_000 + "}}",
    "conditions in one another": "{% if a %}" * 2_000 + "{% endif %}" * 2_000,
    "lists in one another": "{{" + "[" * 99 + "]" * 99 + "}}",
    "negations": "{{ " + "not " * 150 + "a }}",
    "attributes": "{{ a" + ".b" * 5_000 + " }}",
}
