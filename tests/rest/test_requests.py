"""Request ids, addresses, bodies that are too large, files: what holds for every request that reaches Django."""

import io
from typing import Any

import pytest
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from strongroom import ids, logs
from strongroom.rest.requests import RequestMiddleware, accepted_id, client_address, from_address
from tests.callers import Api, Deposit

MIB = 1024 * 1024
GIVEN = "req_01k9zq6v8m3x5r2t7w4y0b1c2d"


def test_every_answer_has_a_request_id(acme: Deposit, nobody: Api) -> None:
    for answer in (
        acme.api.get("/api/v1/tenant"),
        nobody.get("/api/v1/tenant"),
        nobody.get("/api/v1/x"),
        nobody.get("/docs/errors"),
        nobody.get("/x"),
    ):
        assert ids.parse("req", answer["X-Request-Id"]) is not None


def test_a_well_formed_request_id_is_the_callers(nobody: Api, db: None) -> None:
    answer = nobody.get("/api/v1/tenant", X_Request_Id=GIVEN)
    assert answer["X-Request-Id"] == answer.json()["request_id"] == GIVEN


@given(st.one_of(st.none(), st.text(max_size=60)))
def test_any_other_request_id_is_replaced(text: str | None) -> None:
    assert accepted_id(text) != text
    assert ids.parse("req", accepted_id(text)) is not None


def test_the_log_has_the_request_id_and_no_query(acme: Deposit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        acme.api.get("/api/v1/keys?cursor=7f3a")
    assert any(record.getMessage().startswith("GET /api/v1/keys 400 ") for record in caplog.records)
    assert "7f3a" not in caplog.text


def test_the_context_is_clean_afterwards(nobody: Api, db: None) -> None:
    nobody.get("/api/v1/tenant")
    assert logs.request_id.get() is None
    assert from_address.get() is None


@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "address"),
    [
        ("198.51.100.7", None, (), "198.51.100.7"),
        ("198.51.100.7", "203.0.113.9", (), "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9", ("10.0.0.1",), "203.0.113.9"),
        ("10.0.0.1", "192.0.2.1, 203.0.113.9", ("10.0.0.1",), "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", ("10.0.0.1", "10.0.0.2"), "203.0.113.9"),
        ("10.0.0.1", "nonsense", ("10.0.0.1",), "10.0.0.1"),
        ("10.0.0.1", "", ("10.0.0.1",), "10.0.0.1"),
        ("2001:DB8::1", None, (), "2001:db8::1"),
        (None, "203.0.113.9", (), None),
        ("", None, (), None),
    ],
)
def test_the_address_is_the_nearest_that_no_trusted_proxy_has(
    remote: str | None, forwarded: str | None, trusted: tuple[str, ...], address: str | None
) -> None:
    assert client_address(remote, forwarded, trusted) == address


def test_a_body_over_two_mebibytes_is_a_413_with_the_limit(acme: Deposit) -> None:
    answer = acme.api.post("/api/v1/keys", b" " * (2 * MIB + 1))
    body = answer.json()
    assert (answer.status_code, body["code"]) == (413, "body_too_large")
    assert body["errors"][0]["hint"] == "at most 2097152 bytes"
    assert ids.parse("req", body["request_id"]) is not None
    assert acme.api.post("/api/v1/keys", b" " * (2 * MIB)).status_code == 400


def test_a_large_body_of_unknown_length_is_noticed_too() -> None:
    """ASGI: Django has read it whole when the middleware sees it."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/keys",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
    }
    middleware = RequestMiddleware(lambda request: HttpResponse(request.body[:1]))
    assert middleware(ASGIRequest(scope, io.BytesIO(b"x" * (2 * MIB + 1)))).status_code == 413
    small = middleware(ASGIRequest(scope, io.BytesIO(b"xyz")))
    assert (small.status_code, getattr(small, "content", b"")) == (200, b"x")


@pytest.mark.parametrize(("trusted", "kept"), [("", False), ("127.0.0.1", True)])
def test_a_forwarded_scheme_is_a_proxys_word_only(settings: Any, trusted: str, kept: bool) -> None:
    import dataclasses

    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, trusted_proxies=trusted)
    seen: list[bool] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append("X-Forwarded-Proto" in request.headers)
        return HttpResponse()

    RequestMiddleware(view)(RequestFactory().get("/", headers={"X-Forwarded-Proto": "https"}))
    assert seen == [kept]


def test_a_form_takes_no_file(rf: RequestFactory) -> None:
    request = rf.post("/admin/", {"name": "x", "file": io.BytesIO(b"tenant's bytes")})
    with pytest.raises(SuspiciousOperation, match="no file is taken"):
        request.POST  # noqa: B018  # reading is what parses


def test_a_multipart_form_without_a_file_is_read(rf: RequestFactory) -> None:
    assert rf.post("/admin/", {"name": "x"}).POST["name"] == "x"


def test_django_keeps_no_files(settings: Any) -> None:
    with pytest.raises(SuspiciousOperation):
        default_storage.save("x", ContentFile(b"x"))
    with pytest.raises(SuspiciousOperation):
        default_storage.open("x")


def test_a_wrong_host_puts_no_traceback_and_no_header_into_the_log(
    nobody: Api, db: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert nobody.get("/api/v1/schema", Host="evil.example").status_code == 400
    assert nobody.get("/admin/login/", Host="evil.example").status_code == 400
    assert "evil.example" not in caplog.text
    assert "Traceback" not in caplog.text
