"""`ResourceView`: what every view of the native API has in common. A view parses, calls one service, writes.

class JobsView(ResourceView):
    scopes = {"GET": "jobs:read", "POST": "jobs:write"}
    queries = {"GET": JobsQuery, "POST": SubmitQuery}      # a method that is not named takes no query
    idempotent = True                                      # POST honours Idempotency-Key; "secret" keeps no body

    def get(self, request): ... self.query["limit"] ...
    def post(self, request): ... self.body(JobBody) ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import orjson
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.views import APIView

from strongroom.errors import Malformed, Unsupported
from strongroom.rest.fields import Query, StrictSerializer
from strongroom.tenants.actor import Actor


class StrictJSON(BaseParser):
    """JSON as RFC 8259 has it: UTF-8, no NaN, no lone surrogates, bounded depth."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return orjson.loads(stream.read())
        except orjson.JSONDecodeError as error:
            raise Malformed(f"the body is not JSON: {error}", hint="send UTF-8 JSON") from None


class _OneFormat(BaseContentNegotiation):
    """There is one format to read and one to write; Accept is not asked."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        given = (request.content_type or "").partition(";")[0].strip().lower()
        if given not in {"", parsers[0].media_type}:
            raise Unsupported(f"the content type '{given}' is not supported here", hint=f"send {parsers[0].media_type}")
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ResourceView(APIView):
    """Strict in what it takes: known query fields, JSON bodies, a scope for each method."""

    scopes: ClassVar[Mapping[str, str]] = {}
    queries: ClassVar[Mapping[str, type[Query]]] = {}
    idempotent: ClassVar[bool | Literal["secret"]] = False
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    parser_classes = [StrictJSON]
    content_negotiation_class = _OneFormat
    query: dict[str, Any]

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.query = self.queries.get(request.method, Query).read(request.query_params)

    def body(self, kind: type[StrictSerializer]) -> dict[str, Any]:
        """The body, read by its serializer; Invalid with every problem."""
        return kind.read(self.request.data)

    @property
    def actor(self) -> Actor:
        asked: Any = self.request  # its principal is the middleware's
        actor: Actor = asked.principal.actor
        return actor
