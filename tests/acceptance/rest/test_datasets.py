"""/datasets: deposited as raw bytes, checked, shown, versioned, refused with reasons, deleted unless in use."""

from __future__ import annotations

import http.client
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.acceptance.rest.shapes import COLUMN, DATASET, SHA256, document, page, problem
from tests.journeys import CLASSES, COLUMNS, Journey, table, training, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def content(name: str, query: str = "format=csv") -> str:
    return f"/api/v1/datasets/{name}/content?{query}"


def test_an_upload_is_checked_and_shown_at_each_step(house: Journey) -> None:
    data = table(60, seed=5)
    answer = house.put(content("steps"), data)
    assert answer.status == 202
    assert answer.headers["location"] == "/api/v1/datasets/steps/versions/1"
    body = document(answer.json, DATASET)
    assert (body["state"], body["version"], body["format"], body["target"]) == ("checking", 1, "csv", "label")
    assert (body["rows"], body["columns"], body["warnings"], body["error"]) == (None, None, [], None)
    assert body["size_bytes"] == len(data)
    assert SHA256.fullmatch(body["fingerprint"])
    assert body["created_by"]["kind"] == "key"
    ready = house.get(answer.headers["location"], Prefer="wait=50")
    assert (ready.status, ready.headers["preference-applied"]) == (200, "wait")
    shown = document(ready.json, DATASET)
    assert (shown["state"], shown["rows"], shown["modality"]) == ("ready", 60, "tabular")
    assert [column["name"] for column in shown["columns"]] == [*COLUMNS, "label"]
    for column in shown["columns"]:
        document(column, COLUMN)
    number, label = shown["columns"][0], shown["columns"][-1]
    assert (number["type"], number["missing"], number["classes"]) == ("number", 0, None)
    assert number["min"] < number["mean"] < number["max"]
    assert (label["type"], label["unique"], label["min"]) == ("category", len(CLASSES), None)
    assert {each["name"] for each in label["classes"]} == set(CLASSES)
    assert sum(each["rows"] for each in label["classes"]) == 60
    assert house.get("/api/v1/datasets/steps").json == shown
    listed = next(item for item in page(house.get("/api/v1/datasets"), DATASET) if item["name"] == "steps")
    assert listed == {**shown, "columns": None}


def test_a_caller_may_wait_for_the_check(house: Journey) -> None:
    answer = house.put(content("waited"), table(30, seed=6), Prefer="wait=50")
    assert (answer.status, answer.headers["preference-applied"]) == (201, "wait")
    assert answer.headers["location"] == "/api/v1/datasets/waited/versions/1"
    assert answer.json["state"] == "ready"


def test_the_same_bytes_are_the_same_version_and_others_the_next(house: Journey) -> None:
    first = house.deposit("again", table(30, seed=7))
    same = house.put(content("again"), table(30, seed=7))
    assert (same.status, same.json["version"], same.json["id"]) == (200, 1, first["id"])
    other = house.deposit("again", table(30, seed=8))
    assert (other["version"], other["id"]) == (2, first["id"]), "ds_… is the data set, equal over its versions"
    assert house.get("/api/v1/datasets/again").json["version"] == 2
    assert house.get("/api/v1/datasets/again/versions/1").json["version"] == 1


def test_a_body_of_unknown_length_is_taken(house: Journey) -> None:
    data = table(30, seed=9)
    connection = http.client.HTTPConnection("127.0.0.1", house.node.port, timeout=60)
    pieces = (data[start : start + 100] for start in range(0, len(data), 100))
    headers = {"Authorization": f"Bearer {house.keys['alpha']}", "Prefer": "wait=50"}
    connection.request("PUT", content("chunked"), pieces, headers, encode_chunked=True)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert (answer.status, body["state"], body["size_bytes"]) == (201, "ready", len(data))


def test_numbers_and_pictures_in_an_npz(house: Journey) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(40) % 4
    images = npz(image=random.integers(0, 255, (40, 3, 8, 8), dtype=np.uint8), label=labels)
    shown = house.deposit("pictures", images, "format=npz&target=label&modality=image")
    assert (shown["modality"], shown["rows"], shown["columns"][0]["shape"]) == ("image", 40, [3, 8, 8])
    features = npz(features=random.normal(size=(40, 5)), kind=labels)
    shown = house.deposit("features", features, "format=npz&target=kind")
    assert (shown["modality"], shown["target"], shown["rows"]) == ("tabular", "kind", 40)


def test_a_zip_of_pictures_by_class(house: Journey) -> None:
    shown = house.deposit(
        "folders", folders({f"{name}/{n}.png": picture(n) for n in range(6) for name in "ab"}), "format=images"
    )
    assert (shown["modality"], shown["rows"]) == ("image", 12)
    assert {each["name"]: each["rows"] for each in shown["columns"][-1]["classes"]} == {"a": 6, "b": 6}


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade * 20, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def folders(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def lying() -> bytes:
    """An array that says it has 10^12 rows."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    return folders({"features.npy": buffer.getvalue(), "label.npy": b""})


PNG = picture(1)
BAD: dict[str, tuple[str, bytes, str | None]] = {
    "no target": ("format=csv", b"a,b\n1,2\n3,4\n", "target_absent"),
    "an empty file": ("format=csv", b"", "empty_file"),
    "a header alone": ("format=csv", b"a,label\n", "no_rows"),
    "NaN in the target": ("format=csv", b"a,label\n1,0.5\n2,nan\n3,0.7\n4,\n", None),
    "no UTF-8": ("format=csv", b"a,label\n\xff\xfe,x\n", "csv_encoding"),
    "a truncated zip": ("format=images", folders({"a/1.png": PNG, "b/1.png": PNG})[:-30], "zip_unreadable"),
    "a zip that climbs out": ("format=images", folders({"a/1.png": PNG, "../x.png": PNG}), "zip_entry_outside"),
    "a zip bomb": ("format=images", b"", "zip"),
    "an image that is none": ("format=images", folders({"a/1.png": b"no picture", "b/1.png": PNG}), None),
    "Python objects": ("format=npz", b"", "npz_objects"),
    "a lying header": ("format=npz", lying(), "npz_header_lies"),
}


def bad(what: str) -> bytes:
    if what == "a zip bomb":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in "ab":
                archive.writestr(f"{name}/1.png", bytes(50_000_000))
        return buffer.getvalue()
    if what == "Python objects":
        return npz(features=np.array([{"a": 1}, {"b": 2}], dtype=object), label=np.array([0, 1]))
    return BAD[what][1]


def test_each_bad_file_fails_with_its_reason(house: Journey) -> None:
    names = {what: f"bad-{number}" for number, what in enumerate(BAD)}
    for what, name in names.items():
        answer = house.put(content(name, BAD[what][0]), bad(what))
        assert answer.status == 202, (what, answer.body)
    for what, name in names.items():
        shown = document(house.get(f"/api/v1/datasets/{name}", Prefer="wait=60").json, DATASET)
        assert (shown["state"], shown["rows"], shown["columns"]) == ("failed", None, None), (what, shown)
        error, code = shown["error"], BAD[what][2]
        assert set(error) == {"code", "message", "hint"}
        assert error["message"], what
        assert error["hint"], what
        assert code is None or error["code"].startswith(code), (what, error)
        job = house.get("/api/v1/jobs?kind=check&limit=200").json["data"]
        mine = next(one for one in job if one["name"] == name)
        assert (mine["state"], mine["error"]["code"]) == ("failed", "check_failed")
    outside = house.get(f"/api/v1/datasets/{names['a zip that climbs out']}").json["error"]
    assert "'../x.png'" in outside["message"]
    spec = training(dataset=names["no target"])
    body = problem(house.post("/api/v1/jobs", spec), 422, "dataset_not_ready")
    assert body["errors"][0]["path"] == "/dataset"


def test_one_class_alone_can_be_kept_but_not_learned(house: Journey) -> None:
    shown = house.deposit("alone", b"a,label\n" + b"".join(b"%d,x\n" % n for n in range(20)))
    assert [warning["code"] for warning in shown["warnings"]] == ["one_class"]
    answer = house.post("/api/v1/jobs", training(dataset="alone"))
    problem(answer, 422, "dataset_contradicts_spec", ("/target", "one_class"))


def test_an_upload_is_refused_before_its_bytes_are_read(house: Journey) -> None:
    body = table(5)
    assert problem(house.put(content("x", ""), body), 422, "invalid_field")["errors"][0]["path"] == "?format"
    assert problem(house.put(content("x", "format=xls"), body), 422, "invalid_field")["errors"][0]["path"] == "?format"
    wrong = house.put(content("x", "format=csv&modality=smell"), body)
    assert problem(wrong, 422, "invalid_field")["errors"][0]["path"] == "?modality"
    unknown = house.put(content("x", "format=csv&targt=y"), body)
    assert problem(unknown, 422, "extra_forbidden")["errors"][0]["path"] == "?targt"
    problem(house.put(content("Not-A-Name"), body), 422, "invalid_field")
    problem(
        house.put(content("x"), body, Content_Type="multipart/form-data; boundary=x"), 415, "media_type_unsupported"
    )
    problem(house.get("/api/v1/datasets/x"), 404, "not_found")


def test_what_a_job_reads_cannot_be_deleted_and_the_rest_can(house: Journey) -> None:
    first = house.deposit("doomed", table(200, seed=10))
    house.deposit("doomed", table(200, seed=11))
    job = house.submit(training("reader", dataset="doomed", epochs=100_000))
    until(lambda: house.job(job)["state"] == "running", 60)
    problem(house.delete("/api/v1/datasets/doomed/versions/2"), 409, "in_use")
    problem(house.delete("/api/v1/datasets/doomed"), 409, "in_use")
    assert house.get("/api/v1/datasets/doomed").json["version"] == 2, "nothing of it was deleted"
    assert house.delete("/api/v1/datasets/doomed/versions/1").status == 204
    problem(house.get("/api/v1/datasets/doomed/versions/1"), 404, "not_found")
    problem(house.delete("/api/v1/datasets/doomed/versions/1"), 404, "not_found")
    assert house.post(f"/api/v1/jobs/{job}/cancel").status == 202
    assert house.ended(job)["state"] == "cancelled"
    assert house.delete("/api/v1/datasets/doomed").status == 204
    problem(house.get("/api/v1/datasets/doomed"), 404, "not_found")
    assert "doomed" not in [item["name"] for item in house.get("/api/v1/datasets").json["data"]]
    assert house.job(job)["spec"]["dataset"]["name"] == "doomed", "the job keeps the name"
    again = house.deposit("doomed", table(30, seed=12))
    assert (again["version"], again["id"]) == (3, first["id"])
