"""What every answer of the native API must look like, by the contract's own words: problems, ids, times, pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.edge.house import Answer

PROBLEM = {"type", "title", "status", "code", "detail", "request_id", "errors"}
ID = re.compile(r"(job|ds|ver|dep|key|pred|mem|req|art|ten|mdl)_[0-9a-hjkmnp-tv-z]{26}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
WAITS = (429, 503)


def names(text: str) -> list[str]:
    return text.split()


KEY = names(
    "id name prefix scopes expires_at allowed_models allowed_networks created_at created_by last_used_at revoked_at"
)
DATASET = names(
    "id name version state format modality target size_bytes fingerprint rows columns warnings error "
    "created_at created_by"
)
COLUMN = names("name type shape missing unique min max mean classes")
JOB_ITEM = names(
    "id kind name state cancel_requested_at attempt max_attempts priority queue worker device progress "
    "metrics usage cost currency result error retry_of created_at started_at finished_at created_by spec_sha256"
)
JOB = [*JOB_ITEM, "spec"]
USAGE = names("core_seconds gpu_seconds peak_memory_bytes energy_joules energy_source")
VERSION = names(
    "id model version task state stage reasons format size_bytes parameters metrics signature card public lineage "
    "created_at"
)
LINEAGE = names(
    "job dataset dataset_version dataset_fingerprint spec_sha256 weights_sha256 code_version "
    "torch_version threads parent"
)
MODEL = names("id name task description latest_version production_version created_at")
DEPLOYMENT = names(
    "id name state versions device replicas batching context_tokens share limits output_policy error urls created_at"
)
PREDICTION = names("id state deployment model version progress output error created_at finished_at expires_at")
TENANT = names("id name display_name state limits usage created_at")


def problem(answer: Answer, status: int, code: str, *paths: tuple[str, str]) -> Any:
    """An RFC 9457 problem with exactly these (path, code) among its errors' first; its body."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json
    assert set(body) == PROBLEM
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/docs/errors#{code}")
    assert body["title"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert ID.fullmatch(body["request_id"])
    for error in body["errors"]:
        assert set(error) == {"path", "code", "message", "hint"}, error
        assert error["path"] == "" or error["path"][0] in "/?", error
    if paths:
        assert [(error["path"], error["code"]) for error in body["errors"]] == list(paths)
    if body["errors"]:
        first = body["errors"][0]
        assert (first["hint"] or "") in body["detail"], "detail repeats the first problem's remedy"
    if status in WAITS:
        assert int(answer.headers["retry-after"]) >= 1
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="strongroom"'
    return body


def document(body: Any, known: Sequence[str], *more: str) -> Any:
    """A resource with all `known` names (fields may be added, none may lack), its ids and times well formed."""
    lacking = set(known) - set(body)
    assert not lacking, f"without {lacking}"
    assert set(body) - set(known) <= {"evaluation", "deployment", *more}, set(body) - set(known)
    for path, value in leaves(body):
        name = path[-1]
        if isinstance(name, str) and name.endswith("_at") and value is not None:
            assert MOMENT.fullmatch(value), (path, value)
        if name == "id" and isinstance(value, str):
            assert ID.fullmatch(value), (path, value)
    return body


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    else:
        yield path, value


def page(answer: Answer, names: Sequence[str], *more: str) -> list[Any]:
    """The documents of a page."""
    assert answer.status == 200, (answer.status, answer.body)
    body = answer.json
    assert set(body) == {"data", "next_cursor", "has_more"}
    assert body["has_more"] is (body["next_cursor"] is not None)
    return [document(item, names, *more) for item in body["data"]]
