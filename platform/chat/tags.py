"""What our templates have beside Jinja's own: the tag of chat templates, and an end.

`{% generation %}…{% endgeneration %}` marks what the assistant says, for training; to a rendering it is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser

from chat.errors import too_large

MOST_TOKENS = 12_000  # the largest of 100 published templates has 2,600


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Counted(Extension):
    """Stops the parser, which takes 30 µs for a token, before it has read too many."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for count, token in enumerate(stream):
            if count == MOST_TOKENS:
                raise too_large(f"the chat template has more than {MOST_TOKENS} words", "shorten the chat template")
            yield token
