"""The Open Inference face as its users meet it: the unmodified `tritonclient.http` from PyPI against a real node."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.edge.house import CLASSES, House, expected
from tests.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

VALUES = np.linspace(-1, 1, 192, dtype=np.float32).reshape(3, 64)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with Node() as node:
        found = House(node)
        found.tenant("alpha")
        found.tenant("beta")
        node.start("web", "agent")
        found.serve("alpha")
        yield found


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{house.node.port}", concurrency=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def headers(house: House) -> dict[str, str]:
    return {"authorization": f"Bearer {house.keys['alpha']}"}


def tensor(values: np.ndarray, datatype: str = "FP32", name: str = "x") -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=False)
    return made


def wanted(name: str = "probabilities", **options: int) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=False, **options)


def test_the_server_is_live_and_ready_without_a_key(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "strongroom"


def test_a_model_tells_what_it_takes(client: triton.InferenceServerClient, headers: dict[str, str]) -> None:
    assert client.is_model_ready("mlp", headers=headers)
    assert client.is_model_ready("mlp", "1", headers=headers)
    for version in ("", "1"):
        assert client.get_model_metadata("mlp", version, headers=headers) == {
            "name": "mlp",
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, len(CLASSES)]}],
        }


@pytest.mark.parametrize("version", ["", "1"])
def test_it_predicts(client: triton.InferenceServerClient, headers: dict[str, str], version: str) -> None:
    answer = client.infer(
        "mlp", [tensor(VALUES)], version, outputs=[wanted()], request_id="seven", headers=headers, timeout=20_000_000
    )
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected(VALUES), atol=1e-5)
    said = answer.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("mlp", "1", "seven")
    assert answer.get_output("probabilities")["datatype"] == "FP32"


def test_without_named_outputs_all_come(client: triton.InferenceServerClient, headers: dict[str, str]) -> None:
    """The client then asks for binary output; it is answered in JSON, which it reads."""
    answer = client.infer("mlp", [tensor(VALUES)], headers=headers)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected(VALUES), atol=1e-5)


def test_several_at_once(client: triton.InferenceServerClient, headers: dict[str, str]) -> None:
    asked = [client.async_infer("mlp", [tensor(VALUES + n)], outputs=[wanted()], headers=headers) for n in range(8)]
    for number, one in enumerate(asked):
        found = one.get_result().as_numpy("probabilities")
        np.testing.assert_allclose(found, expected(VALUES + number), atol=1e-5)


def refused(call: object, *said: str) -> None:
    assert callable(call)
    with pytest.raises(InferenceServerException) as caught:
        call()
    for part in said:
        assert part in str(caught.value), caught.value


def test_a_wrong_key_is_refused(house: House, client: triton.InferenceServerClient) -> None:
    good, other = house.keys["alpha"], house.keys["beta"]
    turned = good[:20] + ("0" if good[20] != "0" else "1") + good[21:]
    for headers, status in (({}, "401"), ({"authorization": f"Bearer {turned}"}, "401")):
        for call in (
            lambda headers=headers: client.infer("mlp", [tensor(VALUES)], headers=headers),
            lambda headers=headers: client.get_model_metadata("mlp", headers=headers),
        ):
            refused(call, status)
    stranger = {"authorization": f"Bearer {other}"}
    refused(lambda: client.infer("mlp", [tensor(VALUES)], headers=stranger), "404")
    refused(lambda: client.get_model_metadata("mlp", headers=stranger), "404")
    assert not client.is_model_ready("mlp", headers=stranger)
    narrow = {"authorization": f"Bearer {house.key('jobs:read')}"}
    refused(lambda: client.infer("mlp", [tensor(VALUES)], headers=narrow), "403", "predict")


def test_a_tensor_that_does_not_fit_is_named(client: triton.InferenceServerClient, headers: dict[str, str]) -> None:
    def infer(*inputs: triton.InferInput, name: str = "mlp", version: str = "") -> object:
        # a copy: the client writes the length of a binary request's head into the dict that it is given
        return lambda: client.infer(name, list(inputs), version, headers=dict(headers))

    refused(infer(tensor(VALUES[:, :63])), "400", "'x'", "[3, 63]", "[-1, 64]")
    refused(infer(tensor(VALUES.astype("f8"), "FP64")), "400", "'x'", "FP64", "FP32")
    refused(infer(tensor(VALUES, name="y")), "400", "'y'")
    refused(infer(tensor(VALUES), tensor(VALUES, name="z")), "400", "'z'")
    refused(infer(tensor(VALUES), name="none"), "404", "none")
    refused(infer(tensor(VALUES), version="9"), "404")
    binary = triton.InferInput("x", list(VALUES.shape), "FP32")
    binary.set_data_from_numpy(VALUES, binary_data=True)
    refused(infer(binary), "400", "binary")
    refused(lambda: client.infer("mlp", [tensor(VALUES)], outputs=[wanted("logits")], headers=headers), "400", "logits")
    again = client.infer("mlp", [tensor(VALUES)], outputs=[wanted()], headers=headers)
    assert again.as_numpy("probabilities").shape == (3, 10), "the connection goes on after refusals"
