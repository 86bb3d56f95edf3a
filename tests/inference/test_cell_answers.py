"""A real cell in the real sandbox: loads sealed models; answers arrays, images, rows, CSV; says what is wrong."""

from __future__ import annotations

import io
import json
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from inference import protocol
from sealing import new_data_key
from tests.inference import graphs
from tests.inference.cells import Cell, Connection, outputs_of

pytestmark = pytest.mark.slow

ROWS = "application/x-strongroom-rows+json"


def picture(kind: str, size: tuple[int, int], colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def test_arrays_are_answered_as_numpy_computes_them(mlp_cell: Cell, edge: Connection) -> None:
    x = np.random.default_rng(1).normal(size=(3, 64)).astype("f4")
    number = edge.infer("mlp", {"x": x})
    answer = edge.frame()
    assert answer.request == number
    np.testing.assert_allclose(outputs_of(answer)["probabilities"], graphs.mlp_expected(x), atol=1e-5)
    assert answer.fields()["batch"] == 3


def test_many_requests_in_flight_get_each_its_own_answer(mlp_cell: Cell, edge: Connection) -> None:
    inputs = [np.random.default_rng(i).normal(size=(1 + i % 3, 64)).astype("f4") for i in range(100)]
    numbers = {edge.infer("mlp", {"x": x}): x for x in inputs}
    for _ in inputs:
        answer = edge.frame()
        expected = graphs.mlp_expected(numbers.pop(answer.request))
        np.testing.assert_allclose(outputs_of(answer)["probabilities"], expected, atol=1e-5)
    assert not numbers


def test_a_request_larger_than_a_batch_is_answered_whole(cell: Cell, edge: Connection) -> None:
    cell.load("mlp", *graphs.mlp(), max_batch=8)
    x = np.random.default_rng(2).normal(size=(50, 64)).astype("f4")
    edge.infer("mlp", {"x": x})
    np.testing.assert_allclose(outputs_of(edge.frame())["probabilities"], graphs.mlp_expected(x), atol=1e-5)


@pytest.mark.parametrize(("kind", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_an_image_is_decoded_and_resized_in_the_cell(
    cell: Cell, edge: Connection, kind: str, content_type: str
) -> None:
    cell.load("mean", *graphs.image_mean())
    edge.infer_raw("mean", content_type, picture(kind, (9, 7), (200, 100, 50)))
    np.testing.assert_allclose(outputs_of(edge.frame())["value"], [[200, 100, 50]], atol=2)


def test_images_sent_at_once_are_answered_each_by_its_own(cell: Cell, edge: Connection) -> None:
    cell.load("mean", *graphs.image_mean())
    numbers = {edge.infer_raw("mean", "image/png", picture("PNG", (4, 4), (i, 0, 0))): i for i in range(30)}
    for _ in range(30):
        frame = edge.frame()
        assert outputs_of(frame)["value"][0, 0] == numbers.pop(frame.request)


def test_csv_and_rows_become_columns_with_missing_values(cell: Cell, edge: Connection) -> None:
    cell.load("table", *graphs.table())
    edge.infer_raw("table", "text/csv", b'texture,radius\nsmooth,1.5\n"rough, very",\n')
    outputs = outputs_of(edge.frame())
    np.testing.assert_equal(outputs["value"], np.array([[1.5], [np.nan]], dtype="f4"))
    assert outputs["echo"].tolist() == [[b"smooth"], [b"rough, very"]]
    edge.infer_raw("table", ROWS, json.dumps([{"radius": 2, "texture": None}]).encode())
    outputs = outputs_of(edge.frame())
    assert (outputs["value"].tolist(), outputs["echo"].tolist()) == ([[2.0]], [[b""]])


def test_only_the_outputs_asked_for_are_answered(cell: Cell, edge: Connection) -> None:
    cell.load("table", *graphs.table())
    inputs = {"radius": np.ones((1, 1), "f4"), "texture": np.array([["a"]], dtype=object)}
    edge.infer("table", inputs, outputs=["echo"])
    assert list(outputs_of(edge.frame())) == ["echo"]
    edge.infer("table", inputs, outputs=["nothing"])
    assert edge.frame().fields()["message"] == "wants 'nothing', expected some of value, echo"


def test_a_wrong_shape_is_refused_with_the_contracts_words(cell: Cell, edge: Connection) -> None:
    cell.load("image", *graphs.image_mean(3, 32, 32))
    edge.infer("image", {"image": np.zeros((1, 1, 2, 2), "u1")})
    refusal = edge.frame()
    assert refusal.kind == protocol.ERROR
    assert refusal.fields() == {
        "code": "invalid_field",
        "message": "input 'image' has shape [1, 1, 2, 2], expected [-1, 3, 32, 32]",
        "tensor": "image",
        "problems": [["/inputs/image", "shape", "has shape [1, 1, 2, 2]", "expected [-1, 3, 32, 32]"]],
    }


def test_an_image_that_is_none_is_refused_and_the_next_one_answered(cell: Cell, edge: Connection) -> None:
    cell.load("mean", *graphs.image_mean())
    bad = edge.infer_raw("mean", "image/png", b"no picture at all")
    good = edge.infer_raw("mean", "image/png", picture("PNG", (4, 4), (9, 9, 9)))
    frames = {frame.request: frame for frame in (edge.frame(), edge.frame())}
    assert frames[bad].fields()["message"] == "the body is no PNG image that can be read, expected image/png"
    assert outputs_of(frames[good])["value"].tolist() == [[9, 9, 9]]


def test_a_media_type_that_nobody_decodes_lists_those_that_are(cell: Cell, edge: Connection) -> None:
    cell.load("mean", *graphs.image_mean())
    edge.infer_raw("mean", "audio/ogg", b"x")
    fields = edge.frame().fields()
    assert fields["code"] == "media_type_unsupported"
    assert "image/png, image/jpeg" in fields["message"]


def test_a_model_that_is_not_loaded_is_said_to_be_loading(mlp_cell: Cell, edge: Connection) -> None:
    edge.infer("other", {"x": np.zeros((1, 64), "f4")})
    assert edge.frame().fields()["code"] == "model_loading"


def test_unloading_frees_the_name_and_loading_again_serves_it(mlp_cell: Cell, edge: Connection) -> None:
    mlp_cell.agent.send(protocol.UNLOAD, {"model": "mlp", "version": "1"})
    assert mlp_cell.agent.frame().fields() == {"unloaded": True}
    edge.infer("mlp", {"x": np.zeros((1, 64), "f4")})
    assert edge.frame().fields()["code"] == "model_loading"
    mlp_cell.load("mlp", *graphs.mlp())
    edge.infer("mlp", {"x": np.zeros((1, 64), "f4")})
    assert outputs_of(edge.frame())


def test_the_garbage_collection_behind_an_unload_leaves_the_listening_socket_alone(mlp_cell: Cell) -> None:
    for version in ("2", "3", "4"):
        connection = mlp_cell.connect()
        connection.infer("mlp", {"x": np.zeros((1, 64), "f4")})
        assert outputs_of(connection.frame())
        connection.close()
        mlp_cell.load("mlp", *graphs.mlp(), version=version)
        mlp_cell.agent.send(protocol.UNLOAD, {"model": "mlp", "version": version})
        assert mlp_cell.agent.frame().fields() == {"unloaded": True}


def test_a_model_is_described_by_its_signature(mlp_cell: Cell, edge: Connection) -> None:
    edge.send(protocol.DESCRIBE, {"model": "mlp", "version": "1"})
    described = json.loads(bytes(edge.frame().body))
    assert described["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert described["task"] == "classification"


def test_stats_count_what_was_asked(mlp_cell: Cell, edge: Connection) -> None:
    for _ in range(3):
        edge.infer("mlp", {"x": np.zeros((2, 64), "f4")})
        edge.frame()
    stats = mlp_cell.stats()
    assert (stats["requests"], stats["items"], stats["errors"]) == (3, 6, 0)
    assert stats["models"] == [{"model": "mlp", "version": "1", "requests": 3, "waiting": 0}]


class TestWhatIsNotLoaded:
    def test_the_wrong_key_opens_nothing(self, cell: Cell) -> None:
        refusal = cell.load("mlp", *graphs.mlp(), key=new_data_key())
        assert (refusal.kind, refusal.fields()["code"]) == (protocol.ERROR, "artefact_corrupt")

    def test_another_artefacts_file_is_refused(self, cell: Cell) -> None:
        assert cell.load("mlp", *graphs.mlp(), artefact=str(uuid4())).fields()["code"] == "artefact_corrupt"

    def test_a_cell_that_has_a_tenant_takes_no_other_ones_model(self, mlp_cell: Cell) -> None:
        refusal = mlp_cell.load("mlp2", *graphs.mlp(), tenant=str(uuid4()))
        assert refusal.fields()["message"] == "this cell belongs to another tenant"

    def test_bytes_that_are_no_model_are_refused_without_their_text(self, cell: Cell) -> None:
        message = cell.load("mlp", b"secret bytes" * 100, graphs.mlp()[1]).fields()["message"]
        assert message.startswith("ONNX Runtime refused the model")
        assert "secret" not in message

    def test_a_signature_that_contradicts_the_model_is_refused(self, cell: Cell) -> None:
        other = graphs.signature({"y": ("FP32", [-1, 64])}, {"probabilities": ("FP32", [-1, 10])})
        message = cell.load("mlp", graphs.mlp()[0], other).fields()["message"]
        assert message == "input 'y' is absent in the model and FP32 in its signature"
