"""A chat template: checked and compiled once, rendered as often as one likes, from as many threads as one likes.

Knows the order of the steps, and turns whatever goes wrong in them into a TemplateRefused.
"""

from __future__ import annotations

# Python and Jinja import these two when first needed, where a sandboxed process can open no file any more.
import encodings.unicode_escape  # noqa: F401
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2.debug  # noqa: F401
from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chat.errors import TemplateRefused, failed, invalid, output_too_large, too_large, too_slow
from chat.filters import FILTERS
from chat.functions import FUNCTIONS
from chat.messages import plain
from chat.operations import OPERATIONS
from chat.predicates import TESTS
from chat.rendering import LONGEST_TEXT, Limits, Rendering
from chat.rewrite import Rewriter
from chat.tags import Counted, Generation

MOST_SOURCE_BYTES = 64 << 10
DEFAULT_LIMITS = Limits()


def _joined(pieces: Iterable[str]) -> str:
    """What a macro or a `set` block wrote: measured before it is put together."""
    pieces = list(pieces)
    if sum(map(len, pieces)) > LONGEST_TEXT:
        raise output_too_large(f"a macro or a block writes more than {LONGEST_TEXT >> 20} Mi characters")
    return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox stands behind ours: what rewrite.py leaves asks it for nothing."""

    context_class = Rendering
    concat = staticmethod(_joined)


def _environment() -> _Environment:
    # The prompt is text for a model, no page: to escape HTML in it would be an error. Not optimized: Jinja would work
    # out constants at construction, over and over in nested expressions, and nothing there is constant any more.
    made = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Counted, Generation, "jinja2.ext.loopcontrols"],
        optimized=False,
    )
    made.filters, made.tests, made.globals = {**FILTERS, **OPERATIONS}, dict(TESTS), {}
    return made


ENVIRONMENT = _environment()


class Template:
    """`uses_tools` is whether the template looks at `tools` at all."""

    uses_tools: bool

    def __init__(self, source: str, *, bos: str = "", eos: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        if len(source) > MOST_SOURCE_BYTES or len(source.encode(errors="surrogatepass")) > MOST_SOURCE_BYTES:
            raise too_large(
                f"the chat template has more than {MOST_SOURCE_BYTES >> 10} KiB of source", "shorten the chat template"
            )
        self._root, names = _compiled(source)
        self._fixed = {**FUNCTIONS, "bos_token": bos, "eos_token": eos, "documents": None}
        self._limits = limits
        self.uses_tools = "tools" in names

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        now: datetime | None = None,
    ) -> str:
        """The prompt. `now` is what `strftime_now` answers with: give it where the same must come out again."""
        context = Rendering(ENVIRONMENT, {}, None, {})
        context.steps, context.bytes, context.now = self._limits.steps, self._limits.built_bytes, now
        try:
            context.parent = {
                **self._fixed,
                "messages": plain(context, list(messages), "the messages"),
                "tools": plain(context, list(tools), "the tools") or None,
                "add_generation_prompt": add_generation_prompt,
            }
            return self._written(context)
        except TemplateRefused:
            raise
        except RecursionError:
            raise too_slow("a value or a call of the template is nested too deeply") from None
        except MemoryError:
            raise output_too_large("the memory of this process does not hold what the template builds") from None
        except Exception as error:  # whatever else a hostile template provokes is its own refusal, never a crash
            raise failed(f"{type(error).__name__}: {error}") from None

    def _written(self, context: Rendering) -> str:
        limit = self._limits.output_bytes
        pieces, left = [], limit
        for piece in self._root(context):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise _too_long(limit)
        prompt = "".join(pieces)
        if len(prompt.encode()) > limit:
            raise _too_long(limit)
        return prompt


def _too_long(limit: int) -> TemplateRefused:
    return output_too_large(f"the prompt would be longer than {limit} bytes")


def _compiled(source: str) -> tuple[Callable[[Rendering], Iterator[str]], set[str]]:
    """What renders the template, and the names of the variables that it reads."""
    try:
        parsed = ENVIRONMENT.parse(source)
        rewriter = Rewriter(parsed)
        return ENVIRONMENT.from_string(rewriter.visit(parsed)).root_render_func, rewriter.names
    except TemplateRefused:
        raise
    except TemplateSyntaxError as error:
        raise invalid(f"line {error.lineno}: {error.message}") from None
    except SyntaxError as error:  # what Python refuses: a break outside a loop, more than 20 loops in one another
        raise invalid(f"the chat template does not compile: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise too_large("the chat template is nested too deeply", "shorten the chat template") from None
    except Exception as error:  # Jinja lets some errors of Python through, as of a number with 5,000 digits
        raise invalid(f"the chat template is no Jinja: {error}") from None
