"""A graph with its weights in files of a zip: served like the one that has them inside, or refused with why."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.depth import examples
from tests.sandbox.inside import inside as inside_sandbox
from tests.training.graphs import linear, made, node, residual, weights
from tests.training.importing.zips import apart, lie, take_in, zipped
from tests.training.making import archive
from training import importing
from training.errors import DataRefused, ImportRefused
from training.importing import external
from training.importing.bundle import Imported
from training.importing.weights import Weights

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)


def wide(width: int = 32) -> onnx.ModelProto:
    """x [n, 64] · w + b → y: a tensor of 8 KiB and one of 128 bytes."""
    values = np.random.default_rng(1).normal(size=(64, width)).astype(np.float32)
    return made(
        [node("MatMul", "x w", "z"), node("Add", "z b", "y")],
        inputs=[("x", TensorProto.FLOAT, ("n", 64))],
        outputs=[("y", TensorProto.FLOAT, ("n", width))],
        initializers=[weights("w", values), weights("b", np.arange(width))],
    )


def answer(imported: Imported, **inputs: Any) -> Any:
    """As the engine makes its session: graph and weights from memory."""
    options = onnxruntime.SessionOptions()
    held = imported.parts.weights
    if held is not None:
        options.add_external_initializers_from_files_in_memory(["weights"], [held], [len(held)])
    session = onnxruntime.InferenceSession(imported.parts.graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def inside(model: onnx.ModelProto, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


# ---- what is taken in


def test_a_graph_and_its_file_answer_as_the_graph_that_has_all_inside() -> None:
    model, content = apart(wide())
    imported = take_in(zipped(model, {"weights.bin": content}))
    np.testing.assert_array_equal(answer(imported, x=ROWS), inside(wide(), x=ROWS))
    whole = importing.check(wide().SerializeToString())
    assert imported.parameters == importing.parameters(whole)
    assert imported.weights_sha256 == importing.weights_sha256(whole)


def test_small_tensors_go_into_the_graph_and_large_ones_into_one_file() -> None:
    model, content = apart(wide())
    imported = take_in(zipped(model, {"weights.bin": content}))
    served = onnx.load_from_string(imported.parts.graph)
    lying = {tensor.name: {one.key: one.value for one in tensor.external_data} for tensor in served.graph.initializer}
    assert lying == {"w": {"location": "weights", "offset": "0", "length": "8192"}, "b": {}}
    assert imported.parts.weights is not None
    assert len(imported.parts.weights) == 8192


def test_tensors_are_aligned_wherever_they_lay() -> None:
    model, content = apart(wide(33))
    for tensor in model.graph.initializer:
        fields = {entry.key: entry.value for entry in tensor.external_data}
        lie(tensor, location="weights.bin", offset=int(fields["offset"]) + 7, length=fields["length"])
    imported = take_in(zipped(model, {"weights.bin": b"padding" + content + b"behind"}))
    np.testing.assert_array_equal(answer(imported, x=ROWS), inside(wide(33), x=ROWS))


def test_a_classifier_gets_its_head_with_its_weights_outside() -> None:
    data, _ = residual()
    whole = onnx.load_from_string(data)
    model, content = apart(whole)
    names = [f"class {number}" for number in range(7)]
    imported = take_in(zipped(model, {"weights.bin": content}), "classification", names)
    assert imported.signature["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 7]}]
    assert imported.signature["classes"] == names
    images = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    scores = inside(whole, image=images)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(answer(imported, image=images), expected, atol=1e-5)


@pytest.mark.parametrize(("task", "width"), [("regression", 1), ("embedding", 8)])
def test_every_task_is_kept(task: str, width: int) -> None:
    model, content = apart(wide(width))
    imported = take_in(zipped(model, {"weights.bin": content}), task)
    assert imported.signature["outputs"][0]["shape"] == [-1, width]
    np.testing.assert_array_equal(answer(imported, x=ROWS), inside(wide(width), x=ROWS))


def test_the_graph_may_lie_in_a_folder_and_its_files_beside_and_below_it() -> None:
    model, content = apart(wide(), "./weights.bin")
    lie(model.graph.initializer[1], location="more/bias", length=128)
    files = {"export/weights.bin": content, "export/more/bias": content[-128:], "export/README.md": b"read me"}
    imported = take_in(zipped(model, files, "export/model.onnx"))
    np.testing.assert_array_equal(answer(imported, x=ROWS), inside(wide(), x=ROWS))


def test_one_stretch_may_be_two_tensors() -> None:
    model = wide()
    twin = model.graph.initializer.add()
    twin.CopyFrom(model.graph.initializer[0])
    twin.name = "twin"
    model.graph.node[0].CopyFrom(node("MatMul", "x w", "half"))
    model.graph.node.insert(1, node("MatMul", "x twin", "other"))
    model.graph.node.insert(2, node("Add", "half other", "z"))
    moved, content = apart(model)
    lie(moved.graph.initializer[2], location="weights.bin", offset=0, length=8192)
    imported = take_in(zipped(moved, {"weights.bin": content}))
    assert imported.parts.weights is not None
    assert len(imported.parts.weights) == 8192
    np.testing.assert_allclose(answer(imported, x=ROWS), inside(model, x=ROWS), rtol=1e-5)


def test_what_is_not_said_is_taken_from_the_shape() -> None:
    model, content = apart(wide())
    lie(model.graph.initializer[0], location="weights.bin")
    imported = take_in(zipped(model, {"weights.bin": content}))
    np.testing.assert_array_equal(answer(imported, x=ROWS), inside(wide(), x=ROWS))


def test_a_zip_of_a_graph_that_has_all_inside_gives_that_graph() -> None:
    imported = take_in(zipped(linear(), {}))
    assert imported.parts.weights is None
    assert b"".join(imported.parts.pieces()) == imported.parts.graph


def test_half_floats_whole_numbers_and_four_bits_lie_outside_too() -> None:
    scale = weights("scale", np.full(1024, 0.5), np.float16)
    packed = TensorProto(name="packed", data_type=TensorProto.INT4, dims=[2048], raw_data=bytes(1024))
    index = weights("index", np.arange(1024), np.int64)
    model = made(
        [
            node("Cast", "packed", "wide", to=TensorProto.FLOAT),
            node("Gather", "wide index", "chosen", axis=0),
            node("Cast", "scale", "scales", to=TensorProto.FLOAT),
            node("Add", "chosen scales", "row"),
            node("ReduceSum", "row", "sum", keepdims=0),
            node("Add", "x sum", "y"),
        ],
        initializers=[scale, packed, index],
        opset=21,
    )
    moved, content = apart(model)
    x = np.zeros((2, 4), dtype=np.float32)
    np.testing.assert_allclose(answer(take_in(zipped(moved, {"weights.bin": content})), x=x), x + 512)


# ---- what is refused


Change = Callable[[onnx.ModelProto], None]


def first(model: onnx.ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def placed(**fields: Any) -> Change:
    return lambda model: lie(first(model), **fields)


def both(model: onnx.ModelProto) -> None:
    first(model).raw_data = bytes(8192)


def said_twice(model: onnx.ModelProto) -> None:
    first(model).external_data.add(key="location", value="weights.bin")


def not_said_to_be_outside(model: onnx.ModelProto) -> None:
    first(model).data_location = TensorProto.DEFAULT


def of_type(datatype: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        first(model).data_type = datatype

    return change


def overlapping(model: onnx.ModelProto) -> None:
    lie(model.graph.initializer[1], location="weights.bin", offset=64, length=128)


LIES: dict[str, tuple[Change, str]] = {
    "an absolute path": (placed(location="/etc/passwd"), "outside the zip"),
    "a way out": (placed(location="../weights.bin"), "outside the zip"),
    "a way out and in again": (placed(location="../here/weights.bin"), "outside the zip"),
    "a way out by backslashes": (placed(location="..\\weights.bin"), "outside the zip"),
    "a file that is not there": (placed(location="other.bin"), "outside the zip"),
    "the graph itself": (placed(location="model.onnx"), "outside the zip"),
    "the engine's own memory": (placed(location="*/_ORT_MEM_ADDR_/*", offset=4096), "outside the zip"),
    "no path": (placed(offset=0), "outside the zip"),
    "an empty path": (placed(location=""), "outside the zip"),
    "an end behind the file's": (placed(location="weights.bin", offset=8192 - 64), "their file"),
    "an offset of nine exabytes": (placed(location="weights.bin", offset=2**63 - 1), "at None"),
    "an offset below zero": (placed(location="weights.bin", offset=-1), "at None"),
    "an offset in words": (placed(location="weights.bin", offset="one"), "at None"),
    "an offset in other digits": (placed(location="weights.bin", offset="٣"), "at None"),
    "a length shorter than the shape": (placed(location="weights.bin", length=8188), "need 8192"),
    "a length longer than the shape": (placed(location="weights.bin", length=8196), "need 8192"),
    "an unknown field": (placed(location="weights.bin", url="http://x"), "plainly"),
    "a field twice": (said_twice, "plainly"),
    "outside but not said to be": (not_said_to_be_outside, "plainly"),
    "inside and outside": (both, "inside it too"),
    "texts": (of_type(TensorProto.STRING), "type or shape"),
    "a type of tomorrow": (of_type(99), "type or shape"),
    "a shape below zero": (lambda model: first(model).dims.__setitem__(0, -64), "type or shape"),
    "a shape beyond all memory": (lambda model: first(model).dims.__setitem__(0, 2**62), "need"),
    "an overlap": (overlapping, "overlap"),
}


def refusal(file: io.BytesIO) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        take_in(file)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("case", LIES)
def test_weights_that_are_not_plainly_in_the_zip_are_refused(case: str) -> None:
    change, says = LIES[case]
    model, content = apart(wide())
    change(model)
    problem = refusal(zipped(model, {"weights.bin": content}))
    assert problem.code == "onnx_external_data"
    assert says in problem.message


def nested(model: onnx.ModelProto, inner: TensorProto) -> onnx.ModelProto:
    constant = node("Constant", "", "out", value=inner)
    branch = helper.make_graph([constant], "then", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    chosen = made([node("If", "condition", then_branch=branch, else_branch=branch)])
    chosen.graph.initializer.append(weights("condition", True, np.bool_))
    chosen.graph.initializer.extend(model.graph.initializer)
    return chosen


def test_tensors_of_inner_graphs_stay_in_the_file() -> None:
    model, content = apart(wide())
    problem = refusal(zipped(nested(model, first(model)), {"weights.bin": content}))
    assert problem.code == "onnx_external_data"
    assert "outermost" in str(problem.hint)


def test_a_plain_onnx_file_may_have_nothing_outside() -> None:
    with pytest.raises(ImportRefused) as caught:
        importing.check(apart(wide())[0].SerializeToString())
    assert caught.value.code == "onnx_external_data"


def test_two_tensors_of_one_name_are_refused() -> None:
    model, content = apart(wide())
    model.graph.initializer[1].name = "w"
    assert refusal(zipped(model, {"weights.bin": content})).code == "onnx_invalid"


@pytest.mark.parametrize("names", [[], ["a.onnx", "b.onnx"], ["a.onnx", "deep/down/B.ONNX"]])
def test_a_zip_holds_exactly_one_graph(names: list[str]) -> None:
    content = dict.fromkeys(names, linear().SerializeToString())
    assert refusal(io.BytesIO(archive({"weights.bin": b"w", **content}))).code == "onnx_zip_graph"


def test_too_many_tensors_outside_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MOST_TENSORS", 1)
    model, content = apart(wide())
    assert "2 weights" in refusal(zipped(model, {"weights.bin": content})).message


def test_weights_that_inflate_beyond_measure_are_refused_before_they_are_read() -> None:
    model, _ = apart(made([node("Identity")], initializers=[weights("w", np.zeros(2**22))]))
    with pytest.raises(DataRefused) as caught:
        take_in(zipped(model, {"weights.bin": bytes(2**24)}, method=zipfile.ZIP_DEFLATED))
    assert caught.value.code == "zip_bomb"


def test_a_file_that_is_damaged_behind_the_last_tensor_is_refused() -> None:
    model, content = apart(wide())
    file = bytearray(zipped(model, {"weights.bin": content + b"BEHIND"}, method=zipfile.ZIP_STORED).getvalue())
    file[file.index(b"BEHIND")] ^= 1
    with pytest.raises(DataRefused) as caught:
        take_in(io.BytesIO(bytes(file)))
    assert caught.value.code == "zip_entry_damaged"


def test_a_file_shorter_than_the_zip_says_is_refused() -> None:
    """The list of entries gives it more bytes than there are."""
    model, content = apart(wide())
    plain = zipped(model, {"weights.bin": content[:-128]}, method=zipfile.ZIP_STORED).getvalue()
    entry = plain.rindex(b"PK\x01\x02", 0, plain.rindex(b"weights.bin"))
    lying = bytearray(plain)
    lying[entry + 24 : entry + 28] = len(content).to_bytes(4, "little")
    with pytest.raises((ImportRefused, DataRefused)):
        take_in(io.BytesIO(bytes(lying)))


def test_more_weights_than_a_bundle_may_have_are_refused() -> None:
    with pytest.raises(ImportRefused) as caught:
        Weights([2**40, 1])
    assert caught.value.code == "onnx_too_large"


def test_weights_beyond_the_jobs_memory_are_out_of_memory() -> None:
    def ask() -> None:
        from training.importing.weights import Weights

        Weights([3 * 2**30])

    assert inside_sandbox(ask).error == "MemoryError"


GOOD_MODEL, GOOD_CONTENT = apart(wide())


@settings(max_examples=examples(150))
@given(
    offset=st.one_of(st.integers(-2, 9000), st.integers()),
    length=st.one_of(st.integers(-2, 9000), st.integers()),
    dims=st.lists(st.one_of(st.integers(-1, 70), st.integers(-(2**63), 2**63 - 1)), max_size=4),
    location=st.sampled_from(["weights.bin", "./weights.bin", "a/../weights.bin", "weights.bin/", "", "model.onnx"]),
)
def test_any_other_place_is_refused_or_inside_the_file(
    offset: int, length: int, dims: list[int], location: str
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(GOOD_MODEL)
    tensor = first(model)
    lie(tensor, location=location, offset=offset, length=length)
    tensor.dims[:] = dims
    try:
        take_in(zipped(model, {"weights.bin": GOOD_CONTENT}))
    except ImportRefused:
        return
    assert 0 <= offset <= offset + length <= len(GOOD_CONTENT)
    assert math.prod(dims) * 4 == length
