"""Every route that Django serves: a key first, the right scope, 404 for what is not there, never a 500."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom import ids
from strongroom.access.models import ApiKey
from strongroom.access.scopes import ALL, expand
from strongroom.rest.views import ResourceView
from tests.callers import Api, Deposit
from tests.depth import examples

pytestmark = pytest.mark.slow

NAMES = {"name": "nothing", "version": "1"}
NOBODYS = UUID("01999999-9999-7999-8999-999999999999")  # the same in every process of pytest-xdist


def operations() -> Iterator[tuple[str, str, str]]:
    """Method, path with made-up names, scope."""

    def walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[tuple[str, type[ResourceView]]]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            elif route.startswith("api/v1/") and hasattr(pattern.callback, "cls"):
                yield route, pattern.callback.cls

    for route, view in walk(get_resolver().url_patterns, ""):
        path = "/" + re.sub(r"<(?:(\w+):)?(\w+)>", lambda found: _made_up(found[1], found[2]), route)
        for method, scope in view.scopes.items():
            yield method, path, scope


def _made_up(converter: str | None, name: str) -> str:
    if converter and converter.endswith("_id"):
        return ids.text(converter.removesuffix("_id"), NOBODYS)
    return NAMES[name]


OPERATIONS = list(operations())
ONE_OBJECT = [
    operation for operation in OPERATIONS if "nothing" in operation[1] or re.search(r"_[0-9a-z]{26}", operation[1])
]
WRITES = [operation for operation in OPERATIONS if operation[0] in ("POST", "PATCH")]


def test_all_rooms_are_here() -> None:
    rooms = {path.split("/")[3] for _, path, _ in OPERATIONS}
    assert rooms == {
        *("keys", "tenant", "datasets", "models", "catalogue", "jobs", "deployments"),
        *("usage", "budgets"),
    }


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
def test_without_a_key_nothing_answers(nobody: Api, db: None, method: str, path: str, scope: str) -> None:
    answer = nobody.call(method, path)
    assert (answer.status_code, answer.json()["code"]) == (401, "key_missing")


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
def test_the_scope_is_needed_and_named(acme: Deposit, method: str, path: str, scope: str) -> None:
    others = [other for other in ALL if scope not in expand([other])]
    answer = acme.key(*others).call(method, path)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert answer.json()["errors"][0]["hint"] == scope


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
def test_reading_scopes_are_for_reading(method: str, path: str, scope: str) -> None:
    if path.startswith(("/api/v1/keys", "/api/v1/budgets/key_")):
        assert scope == "keys:write"
    elif method == "GET":
        assert scope.endswith(":read")
    else:
        assert scope.endswith(":write")


@pytest.mark.parametrize(("method", "path", "scope"), ONE_OBJECT)
def test_what_is_not_there_is_a_404(acme: Deposit, method: str, path: str, scope: str) -> None:
    body = {"stage": "production"} if method == "PATCH" and "models" in path else {}
    body = {"public": "nobody/nothing@1"} if path.endswith("/adopt") else body
    answer = acme.api.call(method, path, body if method in ("POST", "PATCH") else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.content


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
def test_an_unknown_query_field_is_refused_everywhere(acme: Deposit, method: str, path: str, scope: str) -> None:
    answer = acme.api.call(method, f"{path}?surprise=1", {} if method in ("POST", "PATCH") else None)
    assert answer.status_code == 422
    assert "?surprise" in [problem["path"] for problem in answer.json()["errors"]]


@pytest.mark.parametrize(("method", "path", "scope"), WRITES)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"5", b'"x"', b"{}", b'{"surprise": 1}', b'{"": {"": []}}'])
def test_an_odd_body_is_refused_or_read_but_no_fault_of_ours(
    acme: Deposit, method: str, path: str, scope: str, body: bytes
) -> None:
    answer = acme.api.call(method, path, body)
    assert answer.status_code < 500, answer.content


_words = st.sampled_from(
    [
        "train",
        "import",
        "check",
        "predict",
        "name",
        "digits",
        "digits@1",
        "kind",
        "classification",
        "cpu",
        "\x00",
        "é",
        "",
    ]
)
_keys = st.sampled_from(
    ["kind", "name", "task", "dataset", "model", "split", "train", "register", "version", "device", "limits",
     "batching", "output_policy", "scopes", "expires_at", "allowed_models", "artefact", "classes", "weight", "loss",
     "optimizer", "epochs", "batch_size", "layers", "stage", "x" * 200, "versions"]
)  # fmt: skip
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=20,
)
_bodies = st.dictionaries(_keys, _json, max_size=8)


@pytest.mark.parametrize(("method", "path", "scope"), WRITES)
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_bodies)
def test_no_document_makes_a_500(acme: Deposit, method: str, path: str, scope: str, body: Any) -> None:
    answer = acme.api.call(method, path, body)
    assert answer.status_code < 500, (body, answer.content)
    assert answer.status_code < 300 or answer.json()["code"]


@pytest.mark.parametrize("path", sorted({path for method, path, _ in OPERATIONS if method == "GET"}))
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "state", "kind", "name", "after", "dry_run"]),
        st.text(max_size=30),
        max_size=4,
    )
)
def test_no_query_makes_a_500(acme: Deposit, path: str, query: dict[str, str]) -> None:
    answer = acme.api.client.get(path, query, headers={"Authorization": f"Bearer {acme.api.secret}"})
    assert answer.status_code < 500, (query, answer.content)


def test_another_tenants_key_opens_nothing_of_this_one(acme: Deposit, globex: Deposit) -> None:
    from strongroom.tenants import scope

    with scope.tenant(globex.id):
        theirs = ids.text("key", ApiKey.objects.get().id)
    assert theirs not in acme.api.get("/api/v1/keys").content.decode()
