"""Every failure is problem+json with the contract's fields, and says nothing of ours."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest
from django.test import override_settings
from django.urls import include, path
from rest_framework import exceptions
from rest_framework.response import Response

from strongroom import ids
from strongroom.errors import TITLES, FieldError, Invalid, LimitReached, NotFound, StrongroomError, Unavailable
from strongroom.rest import problem
from strongroom.rest.views import ResourceView
from strongroom.urls import handler400, handler403, handler404, handler500  # noqa: F401  # this module is a URL table
from tests.callers import Api, Deposit

pytestmark = pytest.mark.slow

MEMBERS = ["type", "title", "status", "code", "detail", "request_id", "errors"]
REQUEST = "req_01k9zq6v8m3x5r2t7w4y0b1c2d"


class FailingView(ResourceView):
    """Fails as it is told."""

    scopes = {"GET": "tenant:read", "POST": "tenant:read"}
    failure: Exception = RuntimeError()

    def get(self, request: Any) -> Response:
        raise FailingView.failure

    def post(self, request: Any) -> Response:
        return Response({"seen": request.data})


class UnscopedView(ResourceView):
    """Names no scope: nobody may call it."""

    def get(self, request: Any) -> Response:
        return Response({})


def plain(request: HttpRequest) -> None:
    raise RuntimeError("7f3a-marker")


urlpatterns = [
    path("api/v1/failing", FailingView.as_view()),
    path("api/v1/unscoped", UnscopedView.as_view()),
    path("api/v1/plain", plain),
    path("plain", plain),
    path("", include("strongroom.urls")),
]


@pytest.fixture(autouse=True)
def routes() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__):
        yield


def test_a_problem_has_the_contracts_members(acme: Deposit) -> None:
    answer = acme.api.get("/api/v1/nothing", X_Request_Id=REQUEST)
    body = answer.json()
    assert answer["Content-Type"] == "application/problem+json"
    assert list(body) == MEMBERS
    assert body["type"] == "/docs/errors#not_found"
    assert (body["status"], body["title"], body["request_id"]) == (404, TITLES["not_found"][1], REQUEST)


def test_detail_repeats_the_first_problem_and_its_remedy() -> None:
    error = Invalid("it is wrong", errors=[FieldError("/a", "wrong", "is wrong", "make it right")])
    assert problem.document(error, None)["detail"] == "it is wrong, make it right"
    several = Invalid.all([FieldError("/a", "wrong", "is wrong", "so"), FieldError("/b", "wrong", "is wrong")])
    assert problem.document(several, None)["detail"] == "2 problems; the first: /a is wrong, so"


def test_the_contracts_example_comes_out_as_it_stands() -> None:
    error = Invalid.all(
        [
            FieldError("/train/optimiser", "extra_forbidden", "is not a known field", "did you mean 'optimizer'?"),
            FieldError("/train/optimizer/lr", "greater_than", "must be greater than 0, is -0.1"),
        ],
        code="invalid_spec",
    )
    assert problem.document(error, REQUEST) == {
        "type": "/docs/errors#invalid_spec",
        "title": "The job spec is not valid",
        "status": 422,
        "code": "invalid_spec",
        "detail": "2 problems; the first: /train/optimiser is not a known field, did you mean 'optimizer'?",
        "request_id": REQUEST,
        "errors": [
            {
                "path": "/train/optimiser",
                "code": "extra_forbidden",
                "message": "is not a known field",
                "hint": "did you mean 'optimizer'?",
            },
            {
                "path": "/train/optimizer/lr",
                "code": "greater_than",
                "message": "must be greater than 0, is -0.1",
                "hint": None,
            },
        ],
    }


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NotFound("no"), 404, "not_found"),
        (LimitReached("full", code="queue_full"), 429, "queue_full"),
        (Unavailable("wait", code="draining"), 503, "draining"),
        (OperationalError("7f3a-marker"), 503, "database_unavailable"),
        (InterfaceError("7f3a-marker"), 503, "database_unavailable"),
        (DatabaseError("7f3a-marker"), 500, "internal"),
        (RuntimeError("7f3a-marker"), 500, "internal"),
        (KeyError("7f3a-marker"), 500, "internal"),
        (RecursionError("7f3a-marker"), 500, "internal"),
        (Http404("7f3a-marker"), 404, "not_found"),
        (PermissionDenied("7f3a-marker"), 403, "role_missing"),
        (SuspiciousOperation("7f3a-marker"), 400, "malformed_body"),
        (RequestDataTooBig("7f3a-marker"), 413, "body_too_large"),
        (exceptions.ParseError("7f3a-marker"), 400, "malformed_body"),
        (exceptions.Throttled(), 429, "rate_limited"),
    ],
)
def test_any_exception_is_a_problem(
    acme: Deposit, caplog: pytest.LogCaptureFixture, failure: Exception, status: int, code: str
) -> None:
    FailingView.failure = failure
    answer = acme.api.get("/api/v1/failing")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert "7f3a-marker" not in answer.content.decode()
    assert "Traceback" not in answer.content.decode()
    assert ids.parse("req", answer.json()["request_id"]) is not None
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


def test_an_unknown_exception_is_logged_without_its_message(acme: Deposit, caplog: pytest.LogCaptureFixture) -> None:
    FailingView.failure = ValueError("7f3a-marker")
    acme.api.get("/api/v1/failing")
    assert "builtins.ValueError" in caplog.text
    assert "in get" in caplog.text
    assert "7f3a-marker" not in caplog.text


def test_a_failure_outside_drf_is_one_too(acme: Deposit, nobody: Api) -> None:
    answer = acme.api.get("/api/v1/plain")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    page = nobody.get("/plain")
    assert (page.status_code, page["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert page["X-Request-Id"] in page.content.decode()
    for text in (answer.content, page.content):
        assert b"7f3a-marker" not in text


def test_an_unknown_address_is_a_problem_for_everybody(nobody: Api, db: None) -> None:
    for path_ in ("/api/v1/nothing", "/api/v1/", "/api/v1/keys/key_no", "/api/v2/x", "/api/v1/keys/"):
        answer = nobody.get(path_)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert nobody.get("/nothing")["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_another_method_is_a_405_that_says_what_is_allowed(acme: Deposit, method: str) -> None:
    answer = acme.api.call(method, "/api/v1/failing")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer["Allow"]


def test_a_view_without_a_scope_serves_nobody(acme: Deposit) -> None:
    assert acme.api.get("/api/v1/unscoped").status_code == 500


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a": 1}x',
        b"'a'",
        "{'a': 1}".encode("utf-16"),
    ],
)
def test_what_is_no_json_is_a_400(acme: Deposit, body: bytes) -> None:
    answer = acme.api.post("/api/v1/failing", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png"]
)
def test_another_content_type_is_a_415_that_lists_what_is_taken(acme: Deposit, content_type: str) -> None:
    answer = acme.api.post("/api/v1/failing", b"--x--", Content_Type=content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "media_type_unsupported")
    assert "application/json" in answer.json()["errors"][0]["hint"]


def test_the_accept_header_is_not_asked(acme: Deposit) -> None:
    answer = acme.api.post("/api/v1/failing", {"a": 1}, Accept="text/csv")
    assert (answer.status_code, answer.json()) == (200, {"seen": {"a": 1}})


def test_an_unknown_query_field_is_refused_with_its_name(acme: Deposit) -> None:
    answer = acme.api.get("/api/v1/keys?limitt=5&cursor=&format=xml")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    found = {p["path"]: (p["code"], p["hint"]) for p in answer.json()["errors"]}
    assert found["?limitt"] == ("extra_forbidden", "did you mean 'limit'?")
    assert found["?format"][0] == "extra_forbidden"
    assert acme.api.get("/api/v1/tenant?x=1").json()["code"] == "extra_forbidden"
    assert acme.api.post("/api/v1/failing?x=1", {}).json()["code"] == "extra_forbidden"


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=", "limit=1&limit=2"])
def test_a_wrong_query_field_is_named(acme: Deposit, query: str) -> None:
    answer = acme.api.get(f"/api/v1/keys?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "?limit")


@pytest.mark.parametrize("cursor", ["x", "n_5", "u_", "u_01k9zq6v8m3x5r2t7w4y0b1c2", "u_zzzzzzzzzzzzzzzzzzzzzzzzzz"])
def test_a_cursor_that_is_none_is_a_400(acme: Deposit, cursor: str) -> None:
    answer = acme.api.get(f"/api/v1/keys?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_cursor")


def test_a_host_that_is_not_served_is_told_so(nobody: Api) -> None:
    answer = nobody.get("/api/v1/tenant", Host="evil.example")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_header")
    assert "STRONGROOM_ALLOWED_HOSTS" in answer.json()["detail"]


def test_answers_about_a_tenant_are_kept_by_no_cache(acme: Deposit) -> None:
    assert acme.api.get("/api/v1/tenant")["Cache-Control"] == "no-store"


def test_every_code_has_its_status_and_its_row_in_the_documents(nobody: Api) -> None:
    page = nobody.get("/docs/errors")
    assert page.status_code == 200
    for code, (status, title) in TITLES.items():
        assert StrongroomError("x", code=code).status == status
        assert f'<tr id="{code}"><td>{status}</td>' in page.content.decode()
        assert title in page.content.decode()


def test_the_body_of_a_problem_is_json_even_when_its_detail_is_odd() -> None:
    answer = problem.response(NotFound("there is no 'é\u2028\x00'"))
    assert json.loads(answer.content)["detail"] == "there is no 'é\u2028\x00'"


def test_every_problem_tells_one_at_least() -> None:
    told = problem.document(NotFound("there is no such job"), None)["errors"]
    assert told == [{"path": "", "code": "not_found", "message": "there is no such job", "hint": None}]
