"""What holds on every route: who asks, how a request is refused, request ids, pages, and the health of the node."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

import pytest

from tests.acceptance.rest.shapes import TENANT, document, page, problem
from tests.journeys import Journey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DJANGO, EDGE = "/api/v1/jobs", "/api/v1/predictions"
BOTH = pytest.mark.parametrize("path", [DJANGO, EDGE])
PREDICT = "/api/v1/deployments/mlp/predict"
UNKNOWN_ID = "01k9zq6v8m3x5r2t7w4y0b1c2d"


@BOTH
def test_without_a_good_key_nobody_is_let_in(house: Journey, path: str) -> None:
    problem(house.get(path, key=None), 401, "key_missing")
    problem(house.get(path, key=None, Authorization="Basic YTpi"), 401, "key_malformed")
    problem(house.get(path, key="sr_short"), 401, "key_malformed")
    secret = house.key("jobs:read")
    typo = secret[:20] + ("0" if secret[20] != "0" else "1") + secret[21:]
    problem(house.get(path, key=typo), 401, "key_malformed")
    unknown = with_checksum("sr_0000000000_" + "0" * 52)
    problem(house.get(path, key=unknown), 401, "key_invalid")


def with_checksum(text: str) -> str:
    """A secret that is well formed: its last six characters are the first 30 bits of SHA-256 of what precedes."""
    import hashlib

    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 2
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    return text + "".join(alphabet[bits >> shift & 31] for shift in range(25, -1, -5))


SCOPES = [
    ("GET", "/api/v1/tenant", "tenant:read"),
    ("GET", "/api/v1/keys", "keys:write"),
    ("POST", "/api/v1/keys", "keys:write"),
    ("GET", "/api/v1/datasets", "datasets:read"),
    ("DELETE", "/api/v1/datasets/weather", "datasets:write"),
    ("PUT", "/api/v1/datasets/other/content?format=csv", "datasets:write"),
    ("GET", "/api/v1/models", "models:read"),
    ("PATCH", "/api/v1/models/weather/versions/1", "models:write"),
    ("PUT", "/api/v1/models/other/content?format=onnx", "models:write"),
    ("GET", "/api/v1/jobs", "jobs:read"),
    ("POST", "/api/v1/jobs", "jobs:write"),
    ("GET", f"/api/v1/jobs/job_{UNKNOWN_ID}/events", "jobs:read"),
    ("GET", "/api/v1/deployments", "deployments:read"),
    ("POST", "/api/v1/deployments", "deployments:write"),
    ("DELETE", "/api/v1/deployments/weather", "deployments:write"),
    ("POST", "/api/v1/deployments/weather/predict", "predict"),
    ("GET", "/api/v1/predictions", "predict"),
    ("POST", "/api/v1/predictions", "predict"),
]


def test_each_route_needs_its_scope_and_names_it(house: Journey) -> None:
    for method, path, needed in SCOPES:
        others = "usage:read", *({"predict"} - {needed}), *({"tenant:read"} - {needed})
        answer = house.call(method, path, {} if method in ("POST", "PATCH") else None, key=house.key(*others))
        body = problem(answer, 403, "scope_missing")
        assert body["errors"][0]["hint"] == needed, (method, path)


def test_write_includes_read(house: Journey) -> None:
    assert house.get("/api/v1/datasets", key=house.key("datasets:write")).status == 200
    problem(house.get("/api/v1/datasets", key=house.key("models:write")), 403, "scope_missing")


def test_what_does_not_exist_is_not_found(house: Journey) -> None:
    paths = [
        *("/api/v1/nothing", "/api/v1/datasets/none", "/api/v1/datasets/weather/versions/9", "/api/v1/models/none"),
        *("/api/v1/models/weather/versions/9", "/api/v1/models/none/versions", "/api/v1/deployments/none"),
        *(f"/api/v1/jobs/job_{UNKNOWN_ID}", f"/api/v1/jobs/job_{UNKNOWN_ID}/logs", "/api/v1/jobs/nonsense"),
        *(f"/api/v1/jobs/job_{UNKNOWN_ID}/events", f"/api/v1/keys/key_{UNKNOWN_ID}", "/api/v1/keys/key_x"),
        *(f"/api/v1/predictions/pred_{UNKNOWN_ID}", f"/api/v1/predictions/pred_{UNKNOWN_ID}/output"),
        f"/api/v1/jobs/{house.get(DJANGO).json['data'][0]['id'].upper()}",
    ]
    for path in paths:
        problem(house.get(path), 404, "not_found")
    problem(house.post("/api/v1/deployments/none/predict", {"rows": [{}]}), 404, "not_found")
    problem(house.post(f"/api/v1/predictions/pred_{UNKNOWN_ID}/cancel"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/v1/tenant", "GET"),
        ("PUT", "/api/v1/jobs", "GET"),
        ("GET", PREDICT, "POST"),
        ("DELETE", EDGE, "GET"),
        ("POST", "/api/v1/datasets/weather/content", "PUT"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(house: Journey, method: str, path: str, allowed: str) -> None:
    answer = house.call(method, path, {})
    problem(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["allow"]


@pytest.mark.parametrize("path", [DJANGO, EDGE, PREDICT, "/api/v1/deployments", "/api/v1/keys"])
def test_a_body_that_cannot_be_read_is_400(house: Journey, path: str) -> None:
    for body in (b"{", b"\xff\xfe", b'{"a": NaN}', b"{} {}"):
        problem(house.post(path, body, Content_Type="application/json"), 400, "malformed_body")


@pytest.mark.parametrize("path", [DJANGO, EDGE, "/api/v1/deployments", "/api/v1/keys"])
def test_a_body_of_another_kind_is_refused(house: Journey, path: str) -> None:
    for body in (b"[]", b'"text"', b"7", b"null"):
        problem(house.post(path, body, Content_Type="application/json"), 422, _wrong(path))


def _wrong(path: str) -> str:
    return "invalid_spec" if path == DJANGO else "invalid_field"


@pytest.mark.parametrize("path", [DJANGO, EDGE, PREDICT, "/api/v1/keys"])
def test_another_content_type_is_refused(house: Journey, path: str) -> None:
    body = problem(house.post(path, b"<a/>", Content_Type="application/xml"), 415, "media_type_unsupported")
    assert "application/json" in json.dumps(body)
    if path == PREDICT:
        for accepted in ("image/png", "image/jpeg", "text/csv", "application/x-npy"):
            assert accepted in body["detail"]


def test_a_body_over_the_limit_is_refused_with_the_limit(house: Journey) -> None:
    assert "2097152" in problem(house.post(DJANGO, b" " * (2097152 + 1)), 413, "body_too_large")["errors"][0]["hint"]
    assert "8388608" in problem(house.post(PREDICT, b" " * (8388608 + 1)), 413, "body_too_large")["errors"][0]["hint"]


def test_unknown_fields_are_refused_with_the_nearest_name(house: Journey) -> None:
    body = problem(house.post("/api/v1/keys", {"nme": "a", "scopes": ["predict"]}), 422, "invalid_field")
    unknown = next(error for error in body["errors"] if error["path"] == "/nme")
    assert (unknown["code"], "name" in unknown["hint"]) == ("extra_forbidden", True)
    only = house.post("/api/v1/keys", {"name": "a", "scopes": ["predict"], "colour": "red"})
    problem(only, 422, "extra_forbidden", ("/colour", "extra_forbidden"))
    for path in ("/api/v1/jobs?stat=queued", "/api/v1/predictions?stat=queued", "/api/v1/tenant?a=1"):
        body = problem(house.get(path), 422, "extra_forbidden")
        assert body["errors"][0]["path"] in ("?stat", "?a")
    assert "state" in problem(house.get("/api/v1/jobs?stat=queued"), 422, "extra_forbidden")["errors"][0]["hint"]


@BOTH
def test_lists_are_pages_newest_first(house: Journey, path: str) -> None:
    if path == EDGE:
        for value in (0.1, 0.2, 0.3):
            made = house.post(EDGE, {"deployment": "mlp", "inputs": {"x": [[value] * 64]}}, Prefer="wait=30")
            assert made.status == 201
    whole = house.get(path).json["data"]
    assert len(whole) >= 3
    assert [item["created_at"] for item in whole] == sorted((item["created_at"] for item in whole), reverse=True)
    assert [item["id"] for item in house.pages(path, limit=1)] == [item["id"] for item in whole]
    first = house.get(f"{path}?limit=2").json
    assert (len(first["data"]), first["has_more"]) == (2, True)
    for wrong in ("0", "201", "-1", "x", ""):
        body = problem(house.get(f"{path}?limit={wrong}"), 422, "invalid_field")
        assert body["errors"][0]["path"] == "?limit"
    for wrong in ("x", "u_0", "n_5"):
        problem(house.get(f"{path}?cursor={wrong}"), 400, "malformed_cursor")


@BOTH
def test_a_request_id_is_taken_over_or_made(house: Journey, path: str) -> None:
    given = f"req_{UNKNOWN_ID}"
    assert house.get(path, X_Request_Id=given).headers["x-request-id"] == given
    assert problem(house.get(f"{path}/none", X_Request_Id=given), 404, "not_found")["request_id"] == given
    for wrong in ("abc", f"job_{UNKNOWN_ID}", "req_" + "u" * 26):
        made = house.get(path, X_Request_Id=wrong).headers["x-request-id"]
        assert made != wrong
        assert re.fullmatch(r"req_[0-9a-hjkmnp-tv-z]{26}", made)


def test_each_error_has_its_place_in_the_documents(house: Journey) -> None:
    answer = house.get("/docs/errors", key=None)
    assert answer.status == 200
    shown = answer.body.decode()
    for code in ("key_missing", "not_found", "in_use", "body_too_large", "invalid_spec", "model_loading", "expired"):
        assert re.search(rf"""id=["']?{code}\b""", shown), code


def test_a_key_may_be_used_by_several_at_once_over_one_connection(house: Journey) -> None:
    """Keep-alive: two requests on one connection, Django's and the edge's."""
    connection = http.client.HTTPConnection("127.0.0.1", house.node.port, timeout=30)
    headers = {"Authorization": f"Bearer {house.keys['alpha']}"}
    for path in (DJANGO, EDGE, DJANGO):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    connection.close()


def test_the_tenant_sees_its_limits_and_what_is_in_use(house: Journey) -> None:
    body = document(house.get("/api/v1/tenant").json, TENANT)
    assert (body["name"], body["state"]) == ("alpha", "active")
    assert body["limits"] == {
        "max_running_jobs": 4,
        "storage_bytes": 100 * 1024**3,
        "upload_bytes": 10 * 1024**3,
        "requests_per_second": None,
    }
    assert set(body["usage"]) == {"running_jobs", "storage_bytes"}
    assert body["usage"]["storage_bytes"] > 0
    assert body["id"].startswith("ten_")


def test_health_needs_no_key(house: Journey) -> None:
    live = house.get("/api/v1/health/live", key=None)
    assert (live.status, live.json) == (200, {"status": "ok"})
    ready = house.get("/api/v1/health/ready", key=None)
    assert ready.status == 200
    checks: dict[str, Any] = ready.json["checks"]
    assert set(checks) >= {"database", "broker", "store", "root_keys", "sandbox", "row_security", "swap"}
    assert [checks[name] for name in ("database", "broker", "store", "root_keys")] == ["ok"] * 4


def test_the_schema_is_openapi_3_1_and_has_the_edge(house: Journey) -> None:
    schema = house.get("/api/v1/schema?format=json", key=None)
    if schema.status != 200:
        schema = house.get("/api/v1/schema", key=None, Accept="application/json")
    assert schema.status == 200, schema.body
    paths = schema.json["paths"]
    assert schema.json["openapi"].startswith("3.1")
    wanted = {
        "/api/v1/tenant": {"get"},
        "/api/v1/keys": {"get", "post"},
        "/api/v1/keys/{id}": {"get", "delete"},
        "/api/v1/keys/{id}/rotate": {"post"},
        "/api/v1/datasets": {"get"},
        "/api/v1/datasets/{name}": {"get", "delete"},
        "/api/v1/datasets/{name}/versions/{version}": {"get", "delete"},
        "/api/v1/datasets/{name}/content": {"put"},
        "/api/v1/models": {"get"},
        "/api/v1/models/{name}": {"get", "delete"},
        "/api/v1/models/{name}/content": {"put"},
        "/api/v1/jobs": {"get", "post"},
        "/api/v1/jobs/{id}": {"get", "delete"},
        "/api/v1/jobs/{id}/cancel": {"post"},
        "/api/v1/jobs/{id}/retry": {"post"},
        "/api/v1/jobs/{id}/events": {"get"},
        "/api/v1/jobs/{id}/logs": {"get"},
        "/api/v1/jobs/{id}/metrics": {"get"},
        "/api/v1/deployments": {"get", "post"},
        "/api/v1/deployments/{name}": {"get", "patch", "delete"},
        "/api/v1/deployments/{name}/predict": {"post"},
        "/api/v1/predictions": {"get", "post"},
        "/api/v1/predictions/{id}": {"get"},
        "/api/v1/predictions/{id}/output": {"get"},
        "/api/v1/predictions/{id}/cancel": {"post"},
        "/api/v1/health/live": {"get"},
        "/api/v1/health/ready": {"get"},
    }
    plain = {re.sub(r"\{[^}]+\}", "{}", path): set(methods) for path, methods in paths.items()}
    for path, methods in wanted.items():
        assert methods <= plain.get(re.sub(r"\{[^}]+\}", "{}", path), set()), path


def test_an_empty_tenant_has_empty_lists(house: Journey) -> None:
    for path in ("datasets", "models", "jobs", "deployments", "predictions"):
        assert page(house.get(f"/api/v1/{path}", key="beta"), []) == []
