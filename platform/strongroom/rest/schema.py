"""The OpenAPI document: what drf-spectacular draws from the views, and by one hook the edge's routes and the errors.

edge/openapi.py adds the edge's routes to `EDGE_ROUTES` when Django loads. Knows no route by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from strongroom.errors import TITLES
from strongroom.rest.fields import ID_PATTERN

PROBLEM = "Problem"


@dataclass(frozen=True, slots=True)
class EdgeRoute:
    """One operation that Django does not serve. Bodies are OpenAPI media types: `{"application/json": {...schema}}`."""

    method: str  # "post"
    path: str  # "/api/v1/deployments/{name}/predict"
    operation_id: str
    summary: str
    tag: str
    responses: dict[int, str | dict[str, Any]]  # status → description, or the whole response object
    scope: str | None = None  # None: no key
    request: dict[str, Any] | None = None  # content type → schema
    parameters: list[dict[str, Any]] = field(default_factory=list)  # beside those of the path
    schemas: dict[str, Any] = field(default_factory=dict)  # components that the bodies name


EDGE_ROUTES: list[EdgeRoute] = []


def page_of(item: type[serializers.BaseSerializer[Any]], name: str) -> type[serializers.Serializer[Any]]:
    """The schema of a cursor page of `item`."""
    return type(
        name,
        (serializers.Serializer,),
        {
            "data": item(many=True),
            "next_cursor": serializers.CharField(allow_null=True),
            "has_more": serializers.BooleanField(),
        },
    )


def id_parameter(prefix: str, name: str = "id") -> OpenApiParameter:
    """A path's id for `extend_schema(parameters=[…])`."""
    return OpenApiParameter(name, {"type": "string", "pattern": f"^{prefix}_{ID_PATTERN}$"}, OpenApiParameter.PATH)


class PrincipalScheme(OpenApiAuthenticationExtension):
    """An API key, or the panel's session with its CSRF token."""

    target_class = "strongroom.access.authentication.PrincipalAuthentication"
    name = ["key", "session"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {"type": "http", "scheme": "bearer", "bearerFormat": "sr_…"},
            {"type": "apiKey", "in": "cookie", "name": "sessionid"},
        ]


def add_edge_routes(result: dict[str, Any], generator: Any, request: Any, public: Any) -> dict[str, Any]:
    """drf-spectacular's POSTPROCESSING_HOOK: the edge's operations, the problem, and a default answer for each."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas[PROBLEM] = _problem()
    for route in EDGE_ROUTES:
        schemas.update(route.schemas)
        result["paths"].setdefault(route.path, {})[route.method] = _operation(route)
    for operation in [operation for path in result["paths"].values() for operation in path.values()]:
        # One mapping asks for all that it names; a key or a session is enough.
        operation["security"] = [
            {name: scopes} for both in operation.get("security", []) for name, scopes in both.items()
        ]
    result["paths"] = dict(sorted(result["paths"].items()))
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", _failure())
            _summarise(operation)
    return result


def _summarise(operation: dict[str, Any]) -> None:
    """The first line of what is told, where nothing shorter is: a list of operations shows summaries only."""
    if "summary" not in operation and "description" in operation:
        first, _, rest = operation.pop("description").partition("\n")
        operation["summary"] = first.rstrip(".")
        if rest.strip():
            operation["description"] = rest.strip()


def _operation(route: EdgeRoute) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": named + route.parameters,
        "security": [] if route.scope is None else [{"key": []}, {"session": []}],
        "responses": {
            str(status): {"description": said} if isinstance(said, str) else said
            for status, said in route.responses.items()
        },
    }
    if route.scope is not None:
        operation["description"] = f"Scope: `{route.scope}`."
    if route.request is not None:
        content = {media: {"schema": schema} for media, schema in route.request.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _failure() -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{PROBLEM}"}
    return {"description": "A failure (RFC 9457)", "content": {"application/problem+json": {"schema": schema}}}


def _problem() -> dict[str, Any]:
    text, optional = {"type": "string"}, {"type": ["string", "null"]}
    one = {
        "type": "object",
        "required": ["path", "code", "message", "hint"],
        "properties": {"path": text, "code": text, "message": text, "hint": optional},
    }
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id", "errors"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {"type": "string", "enum": sorted(TITLES)},
            "request_id": optional,
            "errors": {"type": "array", "items": one},
        },
    }
