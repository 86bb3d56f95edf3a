"""Whatever a template wants of this machine, it is refused, after work that is counted and not timed."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from chat import Limits, Template, TemplateRefused
from tests.chat.hostile import FAILED, FORBIDDEN, INVALID, MESSAGES, SOURCE_TOO_LARGE, TOO_LARGE, TOO_SLOW

STEPS = 100_000
LIMITS = Limits(steps=STEPS)
WIDE = ("capitals beyond ASCII", "titles", "long keys", "print of what is deep", "a list in a list in a map")


class TooMuchWork(BaseException):
    """Not an Exception, so that the template's own refusal cannot hide it."""


@contextmanager
def counted_calls(most: int) -> Iterator[None]:
    """Every call of a function, Python's or C's, that the block makes, up to `most`."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if calls > most:
                raise TooMuchWork

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def refusal(source: str, limits: Limits) -> TemplateRefused:
    template = Template(source, limits=limits)
    with pytest.raises(TemplateRefused) as refused, counted_calls(2 * limits.steps):
        template.render(MESSAGES)
    return refused.value


@pytest.mark.parametrize("name", TOO_SLOW)
def test_what_takes_long_is_refused_within_its_steps(name: str) -> None:
    assert refusal(TOO_SLOW[name], LIMITS).code == "template_too_slow"


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_grows_is_refused_within_its_bytes(name: str) -> None:
    assert refusal(TOO_LARGE[name], Limits()).code == "template_output_too_large"


@pytest.mark.parametrize("name", FAILED)
def test_what_reaches_for_more_fails(name: str) -> None:
    assert refusal(FAILED[name], LIMITS).code == "template_failed"


@pytest.mark.parametrize(
    ("code", "source"),
    [
        *[pytest.param("template_forbidden", source, id=name) for name, source in FORBIDDEN.items()],
        *[pytest.param("template_invalid", source, id=name) for name, source in INVALID.items()],
        *[pytest.param("template_too_large", source, id=name) for name, source in SOURCE_TOO_LARGE.items()],
    ],
)
def test_what_no_chat_template_needs_is_refused_before_it_runs(code: str, source: str) -> None:
    with pytest.raises(TemplateRefused) as refused, counted_calls(3_000_000):
        Template(source)
    assert refused.value.code == code


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TOO_LARGE, *WIDE])
def test_at_the_limits_that_we_ship_it_holds_no_more_than_64_mib(name: str) -> None:
    template = Template((TOO_SLOW | TOO_LARGE)[name])
    tracemalloc.start()
    try:
        with pytest.raises(TemplateRefused):
            template.render(MESSAGES)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sign", ["+", "~"])
def test_a_chain_of_texts_is_refused_before_it_is_joined(sign: str) -> None:
    source = "{% set x = 'a' * 100000 %}{{ (" + f" {sign} ".join("x" * 2400) + ") | length }}"
    template = Template(source)
    tracemalloc.start()
    try:
        with pytest.raises(TemplateRefused) as refused:
            template.render(MESSAGES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.code == "template_output_too_large"
    assert peak < 20_000_000
