"""POST /api/v1/deployments/{name}/predict against real processes: answers, refusals, limits, other tenants."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.edge.house import PREDICT, House, expected

pytestmark = pytest.mark.slow

ROW = [index / 64 for index in range(64)]


def test_a_prediction_has_the_contracts_body_and_the_models_numbers(house: House) -> None:
    answer = house.post(PREDICT, {"inputs": {"x": [ROW, ROW[::-1]]}})
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    assert list(answer.json) == ["deployment", "model", "version", "predictions", "usage"]
    assert (answer.json["deployment"], answer.json["model"], answer.json["version"]) == ("mlp", "mlp", 1)
    assert answer.json["usage"]["items"] == 2
    scores = [list(prediction["scores"].values()) for prediction in answer.json["predictions"]]
    np.testing.assert_allclose(scores, expected([ROW, ROW[::-1]]), rtol=1e-4)
    first = answer.json["predictions"][0]
    assert first["score"] == max(first["scores"].values()) == first["scores"][first["label"]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PREDICT),
        ("POST", "/api/v1/predictions"),
        ("GET", f"/api/v1/predictions/pred_{'0' * 26}"),
        ("GET", f"/api/v1/predictions/pred_{'0' * 26}/output"),
        ("POST", f"/api/v1/predictions/pred_{'0' * 26}/cancel"),
        ("GET", f"/api/v1/jobs/job_{'0' * 26}/events"),
    ],
)
def test_a_query_field_that_nobody_knows_is_refused(house: House, method: str, path: str) -> None:
    answer = house.call(method, f"{path}?version=2", {"inputs": {"x": [ROW]}} if method == "POST" else None)
    assert (answer.status, answer.code) == (422, "extra_forbidden")
    assert answer.problems == [("?version", "extra_forbidden")]


@pytest.mark.parametrize("name", ["nothing", "MLP", "a%00b", "%FF"])
def test_what_is_not_there_is_not_found_whatever_its_name(house: House, name: str) -> None:
    answer = house.post(f"/api/v1/deployments/{name}/predict", {"inputs": {"x": [ROW]}})
    assert (answer.status, answer.code) == (404, "not_found")
    assert house.get(f"/v2/models/{name}").status == 404


def test_flat_row_major_data_takes_its_shape_from_the_model(house: House) -> None:
    flat = house.post(PREDICT, {"inputs": {"x": ROW + ROW[::-1]}})
    nested = house.post(PREDICT, {"inputs": {"x": [ROW, ROW[::-1]]}})
    assert flat.json["predictions"] == nested.json["predictions"]


def test_numpy_file_is_decoded_in_the_cell(house: House) -> None:
    import io

    file = io.BytesIO()
    np.save(file, np.asarray([ROW], "f4"))
    answer = house.post(PREDICT, file.getvalue(), Content_Type="application/x-npy")
    assert answer.status == 200, answer.body
    assert answer.json["predictions"] == house.post(PREDICT, {"inputs": {"x": [ROW]}}).json["predictions"]


@pytest.mark.parametrize(
    ("body", "code", "problem"),
    [
        ({"inputs": {"x": [[1, 2], [3, 4]]}}, "invalid_field", ("/inputs/x", "shape")),
        ({"inputs": {"x": [ROW, ROW[:-1]]}}, "invalid_field", ("/inputs/x", "ragged")),
        ({"inputs": {"x": [[*ROW[:-1], "1"]]}}, "invalid_field", ("/inputs/x", "datatype")),
        ({"inputs": {"x": [[*ROW[:-1], None]]}}, "invalid_field", ("/inputs/x", "datatype")),
        ({"inputs": {"x": [[*ROW[:-1], 1e39]]}}, "invalid_field", ("/inputs/x", "range")),
        ({"inputs": {"y": [ROW]}}, "invalid_field", ("/inputs/x", "missing")),
        ({"inputs": {}}, "invalid_field", ("/inputs/x", "missing")),
        ({"inputs": [ROW]}, "invalid_field", ("/inputs", "inputs")),
        ({"rows": []}, "invalid_field", ("/rows", "rows")),
        ({"inputs": {"x": [ROW]}, "rows": [{"a": 1}]}, "invalid_field", ("", "one_of")),
        ({"input": {"x": [ROW]}}, "extra_forbidden", ("/input", "extra_forbidden")),
        ([ROW], "invalid_field", ("", "invalid_field")),
    ],
)
def test_each_wrong_input_says_where_and_what(house: House, body: object, code: str, problem: tuple[str, str]) -> None:
    answer = house.post(PREDICT, body)
    assert (answer.status, answer.code) == (422, code)
    assert problem in answer.problems


def test_a_wrong_shape_is_told_to_the_letter(house: House) -> None:
    answer = house.post(PREDICT, {"inputs": {"x": [[1, 2], [3, 4]]}}).json
    assert answer["title"] == "The input does not fit the model"
    assert answer["detail"] == "input 'x' has shape [2, 2], expected [-1, 64]"
    assert answer["errors"] == [
        {"path": "/inputs/x", "code": "shape", "message": "has shape [2, 2]", "hint": "expected [-1, 64]"}
    ]


def test_what_is_no_json_is_400(house: House) -> None:
    answer = house.post(PREDICT, b'{"inputs": {"x": [1,', Content_Type="application/json")
    assert (answer.status, answer.code) == (400, "malformed_body")


def test_an_unknown_content_type_is_415_and_lists_what_is_taken(house: House) -> None:
    answer = house.post(PREDICT, b"x", Content_Type="application/pdf")
    assert (answer.status, answer.code) == (415, "media_type_unsupported")
    assert "image/png" in answer.json["detail"]


def test_a_body_over_the_limit_is_413_with_the_limit(house: House) -> None:
    answer = house.post(PREDICT, b" " * (8 * 1024 * 1024 + 1), Content_Type="application/json")
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert "8388608" in answer.json["errors"][0]["hint"]


def test_keys_are_missing_malformed_or_invalid(house: House) -> None:
    answers = [house.post(PREDICT, {}, key=key) for key in (None, "sr_typo", house.keys["alpha"][:-1] + "!")]
    assert [answer.code for answer in answers] == ["key_missing", "key_malformed", "key_malformed"]
    assert {answer.status for answer in answers} == {401}
    assert all(answer.headers["www-authenticate"] == 'Bearer realm="strongroom"' for answer in answers)


def test_a_revoked_key_ends_within_a_second(house: House) -> None:
    secret = house.key("predict")
    assert house.post(PREDICT, {"inputs": {"x": [ROW]}}, key=secret).status == 200
    key = house.get("/api/v1/keys").json["data"][0]
    assert house.call("DELETE", f"/api/v1/keys/{key['id']}").status == 204
    time.sleep(1.0)
    assert house.post(PREDICT, {"inputs": {"x": [ROW]}}, key=secret).code == "key_invalid"


def test_the_scope_and_the_deployments_of_a_key_are_checked(house: House) -> None:
    scope = house.post(PREDICT, {"inputs": {"x": [ROW]}}, key=house.key("jobs:read"))
    assert (scope.status, scope.code, scope.json["errors"][0]["hint"]) == (403, "scope_missing", "predict")
    other = house.key("predict", allowed_models=["another"])
    assert house.post(PREDICT, {"inputs": {"x": [ROW]}}, key=other).code == "model_not_allowed"
    outside = house.key("predict", allowed_networks=["10.0.0.0/8"])
    assert house.post(PREDICT, {"inputs": {"x": [ROW]}}, key=outside).code == "network_not_allowed"


def test_another_tenants_deployment_does_not_exist(house: House) -> None:
    theirs = house.post(PREDICT, {"inputs": {"x": [ROW]}}, key="beta")
    nobodys = house.post(PREDICT.replace("mlp", "nothing"), {"inputs": {"x": [ROW]}}, key="beta")
    assert theirs.status == nobodys.status == 404
    assert theirs.json["detail"].replace("mlp", "nothing") == nobodys.json["detail"]


def test_get_is_405_with_what_is_allowed(house: House) -> None:
    answer = house.get(PREDICT)
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_the_callers_request_id_comes_back_where_it_is_well_formed(house: House) -> None:
    good = "req_01k9zq6v8m3x5r2t7w4y0b1c2d"
    assert house.post(PREDICT, {}, X_Request_Id=good).headers["x-request-id"] == good
    assert house.post(PREDICT, {}, X_Request_Id="req_nonsense").headers["x-request-id"] != "req_nonsense"


def test_an_access_line_names_the_request_and_nothing_of_its_content(house: House) -> None:
    id = "req_01k9zq6v8m3x5r2t7w4y0b1c2e"
    house.post(f"{PREDICT}?marker=secret-query", {"inputs": {"marker-in-body": [ROW]}}, X_Request_Id=id)
    time.sleep(0.5)
    log = (house.node.logs / "web.log").read_text()
    assert f"POST {PREDICT} 422" in next(line for line in log.splitlines() if id in line)
    assert "marker" not in log


def test_a_deployments_rate_is_limited_with_retry_after(house: House) -> None:
    house.serve("alpha", "slow", limits={"requests_per_second": 2})
    path = PREDICT.replace("mlp", "slow")
    answers = [house.post(path, {"inputs": {"x": [ROW]}}) for _ in range(5)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert answers[0].status == answers[1].status == 200
    assert {(answer.code, answer.headers["retry-after"]) for answer in refused} == {("rate_limited", "1")}


def test_policy_limits_what_a_caller_learns_on_both_faces(house: House) -> None:
    house.serve("alpha", "shy", output_policy={"top_k": 2, "decimals": 2})
    native = house.post(PREDICT.replace("mlp", "shy"), {"inputs": {"x": [ROW]}}).json["predictions"][0]
    assert len(native["scores"]) == 2
    assert all(score == round(score, 2) for score in native["scores"].values())
    body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": ROW}]}
    data = house.post("/v2/models/shy/infer", body).json["outputs"][0]["data"]
    assert sum(1 for score in data if score) == 2
    np.testing.assert_allclose(sorted(score for score in data if score), sorted(native["scores"].values()), atol=1e-6)


def test_a_stopped_deployment_is_404_at_once(house: House) -> None:
    house.serve("alpha", "short")
    path = PREDICT.replace("mlp", "short")
    assert house.post(path, {"inputs": {"x": [ROW]}}).status == 200
    assert house.call("DELETE", "/api/v1/deployments/short").status == 202
    time.sleep(1.0)
    assert house.post(path, {"inputs": {"x": [ROW]}}).status == 404


def test_a_switch_to_a_new_version_costs_no_request(house: House) -> None:
    house.serve("alpha", "moving")
    path, statuses, versions, done = PREDICT.replace("mlp", "moving"), set(), [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            answer = house.post(path, {"inputs": {"x": [ROW]}})
            statuses.add(answer.status)
            versions.append(answer.json.get("version"))

    caller = threading.Thread(target=ask)
    caller.start()
    house.serve("alpha", "moving", seed=1)
    ends = time.monotonic() + 20
    while versions[-1:] != [2] and time.monotonic() < ends:
        time.sleep(0.05)
    done.set()
    caller.join()
    assert statuses == {200}
    assert versions == sorted(versions)
    assert versions[-1] == 2
    scores = house.post(path, {"inputs": {"x": [ROW]}}).json["predictions"][0]["scores"]
    np.testing.assert_allclose(list(scores.values()), expected([ROW], seed=1)[0], rtol=1e-4)


def test_a_killed_cell_costs_callers_a_retry_and_never_a_hang(house: House) -> None:
    import json
    import os
    import signal

    runtime = (house.node.home / "runtime").read_text().strip()
    with open(f"{runtime}/cells.json") as file:
        cells = json.load(file)["cells"]
    os.kill(next(cell["pid"] for cell in cells if "mlp" in cell["deployments"]), signal.SIGKILL)
    ends = time.monotonic() + 25
    while (answer := house.post(PREDICT, {"inputs": {"x": [ROW]}}, timeout=40)).status != 200:
        assert answer.status == 503
        assert answer.code in {"engine_lost", "model_loading"}
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() < ends


def test_every_call_is_counted_for_its_key(house: House) -> None:
    secret = house.key("predict")
    for _ in range(3):
        assert house.post(PREDICT, {"inputs": {"x": [ROW, ROW]}}, key=secret).status == 200
    assert house.post(PREDICT, {"inputs": {"x": [[1.0]]}}, key=secret).status == 422
    read = """
from strongroom.access.models import ApiKey
from strongroom.metering.models import Usage
newest = ApiKey.objects.order_by("-id").first()
rows = Usage.objects.filter(principal_id=newest.id)
answer = [sum(getattr(row, name) for row in rows) for name in ("calls", "items", "errors")]
"""
    ends = time.monotonic() + 15
    while (seen := house.shell("alpha", read)) != [4, 6, 1] and time.monotonic() < ends:
        time.sleep(0.5)
    assert seen == [4, 6, 1]
