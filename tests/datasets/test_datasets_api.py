"""Data sets over the native API: bodies, lists, deleting; uploads through the door (the raw route is tests/edge's)."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from strongroom.datasets import services
from strongroom.datasets.models import DatasetVersion
from strongroom.errors import Invalid
from strongroom.jobs import services as jobs
from strongroom.tenants import scope
from tests.callers import SYSTEM, Deposit

pytestmark = pytest.mark.slow

PROFILE = {
    "rows": 2,
    "modality": "tabular",
    "columns": [
        {"name": "a", "type": "number", "shape": None, "missing": 0, "unique": 2, "min": 1, "max": 2, "mean": 1.5,
         "classes": None},
    ],
    "warnings": [{"code": "duplicate_rows", "column": None, "message": "2 rows occur twice"}],
}  # fmt: skip
FIELDS = [
    "id", "name", "version", "state", "format", "modality", "target", "size_bytes", "fingerprint", "rows", "columns",
    "warnings", "error", "created_at", "created_by",
]  # fmt: skip


def uploaded(owner: Deposit, name: str = "tab", content: bytes = b"a,label\n1,x\n", **said: Any) -> DatasetVersion:
    with scope.tenant(owner.id):
        upload = services.begin_upload(name, **{"format": "csv", **said})
        upload.draft.fill(content)
        upload.draft.publish()
        return services.finish_upload(SYSTEM, upload, hashlib.sha256(content).hexdigest())[0]


def ready(owner: Deposit, version: DatasetVersion) -> DatasetVersion:
    with scope.tenant(owner.id):
        services.mark_ready(version, PROFILE)
    return version


def test_a_version_that_is_checked_is_shown_to_the_letter(acme: Deposit) -> None:
    uploaded(acme)
    body = acme.api.get("/api/v1/datasets/tab/versions/1").json()
    assert list(body) == FIELDS
    assert re.fullmatch(r"ds_[0-9a-hjkmnp-tv-z]{26}", body["id"])
    assert (body["state"], body["rows"], body["columns"], body["warnings"]) == ("checking", None, None, [])
    assert body["fingerprint"] == "sha256:" + hashlib.sha256(b"a,label\n1,x\n").hexdigest()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["created_at"])
    assert body["created_by"] == {"kind": "system", "id": None}


def test_a_version_that_is_ready_has_columns_and_warnings_and_a_list_leaves_columns_null(acme: Deposit) -> None:
    ready(acme, uploaded(acme))
    body = acme.api.get("/api/v1/datasets/tab/versions/1").json()
    assert (body["state"], body["rows"], body["modality"]) == ("ready", 2, "tabular")
    assert (body["columns"], body["warnings"]) == (PROFILE["columns"], PROFILE["warnings"])
    assert acme.api.get("/api/v1/datasets").json() == {
        "data": [body | {"columns": None}],
        "next_cursor": None,
        "has_more": False,
    }


def test_a_version_that_failed_says_why(acme: Deposit) -> None:
    version = uploaded(acme)
    with scope.tenant(acme.id):
        services.mark_failed(version, "zip_entry_outside", "entry '../x.png' leaves the archive", "rebuild it")
    body = acme.api.get("/api/v1/datasets/tab").json()
    error = {"code": "zip_entry_outside", "message": "entry '../x.png' leaves the archive", "hint": "rebuild it"}
    assert (body["state"], body["error"]) == ("failed", error)


def test_the_same_bytes_are_the_same_version_and_others_are_the_next_of_the_same_data_set(acme: Deposit) -> None:
    first, again, next_one = uploaded(acme), uploaded(acme), uploaded(acme, content=b"a,label\n2,y\n")
    assert [version.number for version in (first, again, next_one)] == [1, 1, 2]
    newest, old = (acme.api.get(f"/api/v1/datasets/tab{tail}").json() for tail in ("", "/versions/1"))
    assert (newest["version"], old["version"]) == (2, 1)
    assert newest["id"] == old["id"]
    assert [row["version"] for row in acme.api.get("/api/v1/datasets").json()["data"]] == [2]


def test_what_a_job_reads_is_in_use_until_the_job_has_ended(acme: Deposit) -> None:
    version = uploaded(acme)
    with scope.tenant(acme.id):
        job = jobs.submit_check(SYSTEM, version)
    for path in ("/api/v1/datasets/tab", "/api/v1/datasets/tab/versions/1"):
        answer = acme.api.delete(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    with scope.tenant(acme.id):
        jobs.cancel(SYSTEM, job)
    assert acme.api.delete("/api/v1/datasets/tab").status_code == 204
    assert acme.api.get("/api/v1/datasets/tab").status_code == 404


def test_a_deleted_version_keeps_number_and_fingerprint_and_nothing_else(acme: Deposit) -> None:
    version = ready(acme, uploaded(acme))
    assert acme.api.delete("/api/v1/datasets/tab/versions/1").status_code == 204
    with scope.tenant(acme.id, write=False):
        row = DatasetVersion.objects.select_related("artefact").get(id=version.id)
        assert (row.state, row.number, row.fingerprint) == ("deleted", 1, version.fingerprint)
        assert (row.profile, bytes(row.artefact.wrapped_data_key)) == (None, b"")
    assert uploaded(acme).number == 2


@pytest.mark.parametrize("name", ["nothing", "Tab", "a%00b", "%FF", "x" * 200])
@pytest.mark.parametrize("tail", ["", "/versions/1", "/versions/99999999999999999999"])
def test_what_is_not_there_is_not_found_whatever_its_name(acme: Deposit, name: str, tail: str) -> None:
    for answer in (acme.api.get(f"/api/v1/datasets/{name}{tail}"), acme.api.delete(f"/api/v1/datasets/{name}{tail}")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_another_tenants_data_set_is_not_there(acme: Deposit, globex: Deposit) -> None:
    uploaded(acme)
    for path in ("/api/v1/datasets/tab", "/api/v1/datasets/tab/versions/1"):
        assert globex.api.get(path).status_code == 404
        assert globex.api.delete(path).status_code == 404
    assert globex.api.get("/api/v1/datasets").json()["data"] == []


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"format": "xml"}, "?format"),
        ({"modality": "sound"}, "?modality"),
        ({"target": ""}, "?target"),
        ({"target": "x" * 129}, "?target"),
        ({"target": "a\0b"}, "?target"),
        ({"name": "Tab"}, "/name"),
    ],
)
def test_what_an_upload_is_said_to_be_is_checked_first(acme: Deposit, said: dict[str, str], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        uploaded(acme, **said)
    assert [problem.path for problem in caught.value.errors] == [path]
