"""The OpenAPI document: valid, complete, the edge's routes in it; the pages that show it."""

import io
import json
import re

import pytest
from django.core.management import call_command
from django.test import override_settings
from django.urls import URLPattern, URLResolver, get_resolver

from strongroom.datasets import services as datasets
from strongroom.errors import TITLES
from strongroom.registry import services as registry
from strongroom.rest import schema
from strongroom.rest.schema import EdgeRoute
from strongroom.rest.views import ResourceView
from tests.callers import Api

pytestmark = pytest.mark.slow


def document() -> dict:
    out = io.StringIO()
    call_command("spectacular", "--fail-on-warn", "--validate", "--format", "openapi-json", stdout=out)
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def drawn() -> dict:
    return document()


def views() -> dict[str, type]:
    """Every view of Django's under /api/v1."""
    found = {}

    def walk(patterns: list[URLPattern | URLResolver], prefix: str) -> None:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, route)
            elif route.startswith("api/v1/"):
                found[route] = getattr(pattern.callback, "cls", pattern.callback)

    walk(get_resolver().url_patterns, "")
    return found


def test_the_document_is_drawn_without_a_warning(drawn: dict) -> None:
    assert drawn["openapi"].startswith("3.1")
    assert drawn["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_every_view_is_strict_scoped_and_drawn(drawn: dict) -> None:
    for route, view in views().items():
        if route == "api/v1/schema":
            continue
        assert issubclass(view, ResourceView), route
        path = "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
        methods = {method.upper() for method in drawn["paths"][path]}
        offered = {method.upper() for method in ("get", "post", "put", "patch", "delete") if hasattr(view, method)}
        assert offered <= methods, path
        assert offered == set(view.scopes), path
        assert set(view.queries) <= offered, path


def test_posts_that_make_something_honour_idempotency_keys() -> None:
    idempotent = {route for route, view in views().items() if getattr(view, "idempotent", False)}
    assert {"api/v1/keys", "api/v1/keys/<key_id:id>/rotate"} <= idempotent
    for made in ("api/v1/jobs", "api/v1/deployments"):
        assert made in idempotent or made not in views()


def test_every_operation_may_fail_with_a_problem(drawn: dict) -> None:
    operations = [operation for path in drawn["paths"].values() for operation in path.values()]
    assert operations
    for operation in operations:
        content = operation["responses"]["default"]["content"]["application/problem+json"]
        assert content["schema"]["$ref"] == "#/components/schemas/Problem"
    assert set(drawn["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(TITLES)


def test_operation_ids_are_unique(drawn: dict) -> None:
    names = [operation["operationId"] for path in drawn["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_every_body_that_is_named_is_drawn(drawn: dict) -> None:
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(drawn)))
    assert named <= set(drawn["components"]["schemas"])
    uploaded = drawn["paths"]["/api/v1/datasets/{name}/content"]["put"]["responses"]["201"]
    read = drawn["paths"]["/api/v1/datasets/{name}"]["get"]["responses"]["200"]
    assert uploaded["content"] == read["content"]


def test_an_edge_route_enters_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    route = EdgeRoute(
        method="post",
        path="/api/v1/things/{name}/act",
        operation_id="act_on_thing",
        summary="Acts.",
        tag="things",
        responses={200: "Done", 202: {"description": "Begun", "headers": {"Location": {"schema": {"type": "string"}}}}},
        scope="predict",
        request={"image/png": {"type": "string", "format": "binary"}},
    )
    monkeypatch.setattr(schema, "EDGE_ROUTES", [*schema.EDGE_ROUTES, route])
    operation = document()["paths"]["/api/v1/things/{name}/act"]["post"]
    assert operation["parameters"][0]["name"] == "name"
    assert operation["security"] == [{"key": []}, {"session": []}]
    assert set(operation["responses"]) == {"200", "202", "default"}


def test_the_schema_and_its_page_need_no_key_and_nothing_from_outside(nobody: Api) -> None:
    served = nobody.get("/api/v1/schema")
    assert served.status_code == 200
    assert served.json()["openapi"].startswith("3.1")
    with override_settings(STATIC_URL="/static/"):
        page = nobody.get("/docs")
    assert page.status_code == 200
    text = page.content.decode()
    assert not re.findall(r"(?:src|href)=\"?(?:https?:)?//", text)
    assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", text)
    script = nobody.get("/docs?script=")
    assert script.status_code == 200
    assert "/api/v1/schema" in script.content.decode()
    for answer in (page, nobody.get("/docs/errors")):
        assert "unsafe-eval" not in answer["Content-Security-Policy"]
        assert "script-src 'self'" in answer["Content-Security-Policy"]


def test_the_page_of_errors_styles_itself_under_the_policy(nobody: Api) -> None:
    answer = nobody.get("/docs/errors")
    nonce = re.search(r'<style nonce="([^"]+)">', answer.content.decode())
    assert nonce is not None
    assert f"'nonce-{nonce[1]}'" in answer["Content-Security-Policy"]


def test_uploads_name_every_format_that_is_taken(drawn: dict) -> None:
    for path, formats in (("models", registry.FORMATS), ("datasets", datasets.FORMATS)):
        parameters = drawn["paths"][f"/api/v1/{path}/{{name}}/content"]["put"]["parameters"]
        assert next(one["schema"]["enum"] for one in parameters if one["name"] == "format") == list(formats)


def test_a_key_or_a_session_is_enough(drawn: dict) -> None:
    """Two names in one mapping would ask for both."""
    for path, operations in drawn["paths"].items():
        for method, operation in operations.items():
            assert operation["security"] in ([], [{"key": []}, {"session": []}]), (path, method)
