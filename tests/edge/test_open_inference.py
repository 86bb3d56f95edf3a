"""/v2, judged by the unmodified tritonclient from PyPI, and by its documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.edge.house import House, expected

pytestmark = pytest.mark.slow

ROWS = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
INFER = "/v2/models/mlp/infer"


@pytest.fixture
def client(house: House) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{house.node.port}") as made:
        yield made


def key(house: House, tenant: str = "alpha") -> dict[str, str]:
    return {"authorization": f"Bearer {house.keys[tenant]}"}


def asked(data: np.ndarray[Any, Any] = ROWS, *, binary_data: bool = False) -> list[Any]:
    tensor = triton.InferInput("x", list(data.shape), "FP32")
    tensor.set_data_from_numpy(data, binary_data=binary_data)
    return [tensor]


def test_triton_predicts_with_json_tensors(house: House, client: Any) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=False)]
    result = client.infer("mlp", asked(), outputs=wanted, headers=key(house), request_id="mine")
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected(ROWS), rtol=1e-4)
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("mlp", "1", "mine")


def test_a_wish_for_binary_output_is_answered_in_json(house: House, client: Any) -> None:
    result = client.infer("mlp", asked(), headers=key(house))  # no outputs named: the client asks for binary
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected(ROWS), rtol=1e-4)


def test_several_requests_at_once(house: House) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{house.node.port}", concurrency=8) as made:
        running = [made.async_infer("mlp", asked(ROWS + number), headers=key(house)) for number in range(16)]
        for number, one in enumerate(running):
            found = one.get_result().as_numpy("probabilities")
            np.testing.assert_allclose(found, expected(ROWS + number), rtol=1e-4)


def test_triton_reads_health_and_metadata(house: House, client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "strongroom"
    assert client.is_model_ready("mlp", headers=key(house))
    assert client.is_model_ready("mlp", "1", headers=key(house))
    assert not client.is_model_ready("mlp", headers=key(house, "beta"))
    metadata = client.get_model_metadata("mlp", headers=key(house))
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]


def refused(client: Any, status: str, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(*arguments, **options)
    assert caught.value.status() == status
    return str(caught.value.message())


def test_each_refusal_has_its_status_and_says_why(house: House, client: Any) -> None:
    assert "API key" in refused(client, "401", "mlp", asked())
    assert "no deployment" in refused(client, "404", "nothing", asked(), headers=key(house))
    assert "no deployment" in refused(client, "404", "mlp", asked(), headers=key(house, "beta"))
    assert "version '7'" in refused(client, "404", "mlp", asked(), model_version="7", headers=key(house))
    narrow = {"authorization": f"Bearer {house.key('jobs:read')}"}
    assert "scope" in refused(client, "403", "mlp", asked(), headers=narrow)
    binary = asked(binary_data=True)
    assert "binary_data=False" in refused(client, "400", "mlp", binary, headers=key(house))


def test_a_wrong_tensor_is_named_with_what_was_given_and_what_is_expected(house: House, client: Any) -> None:
    said = refused(client, "400", "mlp", asked(ROWS[:, :3].copy()), headers=key(house))
    assert said == "input 'x' has shape [2, 3], expected [-1, 64]"
    doubled = triton.InferInput("x", [2, 64], "FP64")
    doubled.set_data_from_numpy(ROWS.astype("f8"), binary_data=False)
    assert refused(client, "400", "mlp", [doubled], headers=key(house)) == "input 'x' has datatype FP64, expected FP32"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64} | changes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": [tensor(shape=[2, 64])]}, "64 elements, expected 128"),
        ({"inputs": [tensor(shape=[-1, 64])]}, "shape [-1, 64]"),
        ({"inputs": [tensor(data=["a"] * 64)]}, "holds text"),
        ({"inputs": [tensor(data=[[0.5] * 64, [0.5]])]}, "rows of different lengths"),
        ({"inputs": [tensor(), tensor()]}, "given twice"),
        ({"inputs": [tensor(name="y")]}, "did you mean 'x'" if False else "not an input"),
        ({"inputs": []}, "is missing"),
        ({"inputs": {}}, "list of tensors"),
        ({}, "list of tensors"),
        ([], "JSON object"),
        ({"inputs": [tensor()], "id": 7}, "'id' must be text"),
        ({"inputs": [tensor()], "outputs": [{"name": "nope"}]}, "output 'nope'"),
        ({"inputs": [tensor()], "parameters": {"timeout": "soon"}}, "timeout"),
        ({"inputs": [tensor()], "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]}, "class"),
    ],
)
def test_each_malformed_document_is_400(house: House, body: Any, said: str) -> None:
    answer = house.post(INFER, body)
    assert answer.status == 400, answer.body
    assert list(answer.json) == ["error"]
    assert said in answer.json["error"]


def test_nested_data_and_known_parameters_are_accepted(house: House) -> None:
    parameters = {"sequence_id": 5, "sequence_start": True, "priority": 3, "timeout": 5_000_000}
    flat = house.post(INFER, {"inputs": [tensor()], "parameters": parameters})
    nested = house.post(INFER, {"inputs": [tensor(data=[[0.5] * 64])]})
    assert flat.status == nested.status == 200, flat.body
    assert flat.json["outputs"] == nested.json["outputs"]


def test_unknown_addresses_below_v2_have_its_error_form(house: House) -> None:
    for path in ("/v2/nothing", "/v2/models/mlp/nothing", "/v2/models"):
        answer = house.get(path)
        assert (answer.status, list(answer.json)) == (404, ["error"]), path
