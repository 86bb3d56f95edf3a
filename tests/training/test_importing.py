"""Bringing a model: what its task promises is what the sealed graph answers; each other file is refused, with why."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.depth import examples
from tests.training.graphs import linear, made, node, residual, weights
from tests.training.worker import Tenant, Worker
from training import importing
from training.errors import ImportRefused
from training.importing import probe, structure

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def adopt(
    model: onnx.ModelProto | bytes, task: str = "other", classes: list[str] | None = None
) -> tuple[bytes, dict[str, Any]]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return importing.adopt(importing.check(data), task=task, classes=classes, threads=1)


def answer(served: bytes, **inputs: Any) -> list[Any]:
    return onnxruntime.InferenceSession(served, providers=["CPUExecutionProvider"]).run(None, inputs)


def refusal(model: onnx.ModelProto | bytes, task: str = "other", classes: list[str] | None = None) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        adopt(model, task, classes)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


# ---- what is taken in


def test_a_residual_network_gets_softmax_behind_its_logits() -> None:
    data, network = residual()
    names = [f"class {number}" for number in range(7)]
    served, signature = adopt(data, "classification", names)
    assert signature == {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 64, 64]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 7]}],
        "classes": names,
        "task": "classification",
    }
    images = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(images)), 1).numpy()
    np.testing.assert_allclose(answer(served, image=images)[0], expected, atol=1e-5)
    model = importing.check(data)
    assert importing.parameters(model) > 40_000


def test_outputs_that_are_probabilities_already_are_left_as_they_are() -> None:
    model = made(
        [node("MatMul", "x w", "z"), node("Softmax", "z", "y", axis=1)],
        outputs=[("y", TensorProto.FLOAT, ("n", 3))],
        initializers=[weights("w", np.eye(4, 3))],
    )
    served, signature = adopt(model, "classification", ["a", "b", "c"])
    np.testing.assert_array_equal(answer(served, x=ROWS)[0], answer(model.SerializeToString(), x=ROWS)[0])
    assert signature["outputs"][0]["name"] == "probabilities"


def test_logits_that_are_called_probabilities_get_softmax_all_the_same() -> None:
    model = made(
        [node("MatMul", "x w", "probabilities")],
        outputs=[("probabilities", TensorProto.FLOAT, ("n", 3))],
        initializers=[weights("w", np.eye(4, 3))],
    )
    served, _ = adopt(model, "classification", ["a", "b", "c"])
    np.testing.assert_allclose(answer(served, x=ROWS)[0].sum(1), np.ones(5), atol=1e-6)


def test_classes_are_numbered_when_none_are_given() -> None:
    assert adopt(linear(3), "classification")[1]["classes"] == ["0", "1", "2"]


def test_a_classifier_of_scikit_learn_is_taken_by_its_scores() -> None:
    """Labels and scores side by side, as skl2onnx writes them with zipmap off."""
    classifier = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=[0.1] * 12,
        intercepts=[0.0, 0.1, 0.2],
        classlabels_ints=[0, 1, 2],
        multi_class=0,
        post_transform="SOFTMAX",
    )
    model = made(
        [classifier],
        outputs=[("label", TensorProto.INT64, ("n",)), ("scores", TensorProto.FLOAT, ("n", 3))],
        domains=[("ai.onnx.ml", 3)],
    )
    served, signature = adopt(model, "classification", ["a", "b", "c"])
    assert [one["name"] for one in signature["outputs"]] == ["probabilities"]
    assert answer(served, x=ROWS)[0].shape == (5, 3)


@pytest.mark.parametrize("shape", [("n",), ("n", 1)])
def test_a_regression_gives_one_value_a_row(shape: tuple[Any, ...]) -> None:
    nodes = [node("ReduceSum", "x axis", keepdims=len(shape) - 1)]
    model = made(nodes, outputs=[("y", TensorProto.FLOAT, shape)], initializers=[weights("axis", [1], np.int64)])
    served, signature = adopt(model, "regression")
    assert signature["outputs"] == [{"name": "value", "datatype": "FP32", "shape": [-1, 1]}]
    np.testing.assert_allclose(answer(served, x=ROWS)[0], ROWS.sum(1, keepdims=True), atol=1e-5)


def test_doubles_and_halves_come_out_as_floats() -> None:
    for datatype in (TensorProto.DOUBLE, TensorProto.FLOAT16):
        model = made([node("Cast", to=datatype)], outputs=[("y", datatype, ("n", 4))])
        served, signature = adopt(model, "embedding")
        assert signature["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
        np.testing.assert_allclose(answer(served, x=ROWS)[0], ROWS, atol=1e-2)


def test_texts_and_whole_numbers_and_open_lengths_go_in() -> None:
    encoder = helper.make_node(
        "LabelEncoder", ["words"], ["ids"], domain="ai.onnx.ml", keys_strings=["a"], values_int64s=[1], default_int64=0
    )
    model = made(
        [
            encoder,
            node("Add", "ids mask", "both"),
            node("Cast", "both", "floats", to=TensorProto.FLOAT),
            node("ReduceMean", "floats axis", "y", keepdims=1),
        ],
        inputs=[("words", TensorProto.STRING, ("n", "length")), ("mask", TensorProto.INT64, ("n", "length"))],
        outputs=[("y", TensorProto.FLOAT, ("n", 1))],
        initializers=[weights("axis", [1], np.int64)],
        domains=[("ai.onnx.ml", 3)],
    )
    _, signature = adopt(model, "regression")
    assert signature["inputs"] == [
        {"name": "words", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "mask", "datatype": "INT64", "shape": [-1, -1]},
    ]


def test_any_other_task_keeps_all_outputs() -> None:
    model = made(
        [node("Relu", "x", "y"), node("Neg", "x", "z")],
        outputs=[("y", TensorProto.FLOAT, ("n", 4)), ("z", TensorProto.FLOAT, ("n", 4))],
    )
    _, signature = adopt(model)
    assert ([one["name"] for one in signature["outputs"]], signature["task"]) == (["y", "z"], "other")


# ---- what is refused


def external() -> onnx.ModelProto:
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return model


def external_in_a_branch() -> onnx.ModelProto:
    """Weights outside the file, hidden in an attribute of a node of a nested graph."""
    inner = external().graph.initializer[0]
    inner.name = "hidden"
    constant = node("Constant", "", "out", value=inner)
    branch = helper.make_graph([constant], "then", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    condition = weights("condition", True, np.bool_)
    return made([node("If", "condition", then_branch=branch, else_branch=branch)], initializers=[condition])


def with_function() -> onnx.ModelProto:
    model = linear()
    function = helper.make_function("own", "twice", ["x"], ["y"], [node("Add", "x x")], [helper.make_opsetid("", 20)])
    model.functions.append(function)
    return model


def deep(levels: int) -> onnx.ModelProto:
    graph = linear().graph
    for _ in range(levels):
        outer = onnx.GraphProto()
        outer.node.append(node("If", "c", then_branch=graph, else_branch=onnx.GraphProto()))
        graph = outer
    model = linear()
    model.graph.CopyFrom(graph)
    return model


def foreign_in_a_branch() -> onnx.ModelProto:
    inner = helper.make_node("Run", ["x"], ["out"], domain="com.evil")
    branch = helper.make_graph([inner], "then", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    condition = weights("condition", True, np.bool_)
    return made([node("If", "condition", then_branch=branch, else_branch=branch)], initializers=[condition])


def training_graph() -> onnx.ModelProto:
    model = linear()
    model.training_info.add()
    return model


HOSTILE: dict[str, tuple[Any, str]] = {
    "empty": (b"", "onnx_unreadable"),
    "noise": (bytes(range(256)), "onnx_unreadable"),
    "a pickle": (pickle.dumps({"weights": 1}), "onnx_unreadable"),
    "cut": (linear().SerializeToString()[:-20], "onnx_unreadable"),
    "ir of tomorrow": (linear(ir=99), "onnx_ir_version"),
    "ir of yesterday": (linear(ir=2), "onnx_ir_version"),
    "opset of tomorrow": (linear(opset=99), "onnx_opset"),
    "opset of yesterday": (linear(opset=3), "onnx_opset"),
    "no opset": (made([node("Relu")], domains=[]), "onnx_opset"),
    "opset twice": (linear(domains=[("", 20)]), "onnx_opset"),
    "foreign domain": (linear(domains=[("com.microsoft", 1)]), "onnx_domain"),
    "foreign operator": (made([helper.make_node("Run", ["x"], ["y"], domain="com.evil")]), "onnx_domain"),
    "foreign operator in a branch": (foreign_in_a_branch(), "onnx_domain"),
    "unknown operator": (made([node("Summon")]), "onnx_operator"),
    "operator newer than the opset": (made([node("Gelu")], opset=13), "onnx_operator"),
    "weights outside": (external(), "onnx_external_data"),
    "weights outside in a branch": (external_in_a_branch(), "onnx_external_data"),
    "functions": (with_function(), "onnx_functions"),
    "training graph": (training_graph(), "onnx_training"),
    "nested": (deep(20), "onnx_nested"),
    "draws at random": (made([node("RandomNormalLike", scale=-1.0)]), "onnx_operator"),
    "left out": (made([helper.make_node("Min", ["x", ""], ["y"])]), "onnx_invalid"),
    "cycle": (made([node("Relu", "y", "z"), node("Relu", "z", "y")]), "onnx_invalid"),
    "input that nobody gives": (made([node("Add", "x nothing")]), "onnx_invalid"),
    "weights shorter than their shape": (
        made(
            [node("MatMul", "x w")],
            initializers=[TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT, raw_data=b"1234")],
        ),
        "onnx_invalid",
    ),
    "fixed batch": (made([node("Relu")], inputs=[("x", TensorProto.FLOAT, (1, 4))]), "onnx_batch_axis"),
    "scalar": (
        made([node("Relu")], inputs=[("x", TensorProto.FLOAT, ())], outputs=[("y", TensorProto.FLOAT, ())]),
        "onnx_batch_axis",
    ),
    "no input": (
        made(
            [node("Constant", "", "y", value=weights("c", [1.0]))], inputs=[], outputs=[("y", TensorProto.FLOAT, (1,))]
        ),
        "onnx_inputs",
    ),
    "shapes that do not fit": (
        made([node("MatMul", "x w")], initializers=[weights("w", np.ones((3, 3)))]),
        "onnx_not_runnable",
    ),
    "a sequence": (made([node("SequenceConstruct", "x", "y")], outputs=[]), "onnx_type"),
    "huge rows": (
        made(
            [node("Relu")],
            inputs=[("x", TensorProto.FLOAT, ("n", 10**10))],
            outputs=[("y", TensorProto.FLOAT, ("n", 10**10))],
        ),
        "onnx_too_large",
    ),
}
HOSTILE["no opset"][0].opset_import.pop()
HOSTILE["a sequence"][0].graph.output.append(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ("n", 4)))


@pytest.mark.parametrize("case", HOSTILE)
def test_each_file_that_cannot_be_served_is_refused_with_code_and_hint(case: str) -> None:
    model, code = HOSTILE[case]
    assert refusal(model).code == code


def test_files_of_other_kinds_are_told_what_they_are() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x")
    assert "zip" in str(refusal(buffer.getvalue()).hint)
    assert "never opened" in str(refusal(pickle.dumps(1)).hint)


def test_a_graph_of_too_many_nodes_is_refused_before_it_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MOST_NODES", 10)
    chain = [node("Relu", f"v{place}", f"v{place + 1}") for place in range(11)]
    chain[0].input[0], chain[-1].output[0] = "x", "y"
    assert refusal(made(chain)).code == "onnx_too_many_nodes"


def test_a_graph_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    body = helper.make_graph(
        [
            node("Identity", "go", "again"),
            node("Add", "state one", "next"),
            node("Constant", "", "one", value=weights("c", [1.0])),
        ][::-1],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    model = made(
        [node("Loop", "turns go x", body=body)],
        initializers=[weights("turns", 2**62, np.int64), weights("go", True, np.bool_)],
    )
    monkeypatch.setattr(probe, "SECONDS", 0.5)
    assert refusal(model).code == "onnx_too_slow"


@pytest.mark.parametrize(
    ("model", "task", "classes", "code"),
    [
        (linear(3), "classification", ["a", "b"], "onnx_classes"),
        (linear(1), "classification", ["a", "b"], "onnx_outputs"),
        (linear(3), "regression", None, "onnx_outputs"),
        (
            made([node("Flatten", axis=0)], outputs=[("y", TensorProto.FLOAT, (1, "m"))]),
            "embedding",
            None,
            "onnx_outputs",
        ),
        (
            made(
                [node("Relu", "value")],
                inputs=[("value", TensorProto.FLOAT, ("n", 1))],
                outputs=[("y", TensorProto.FLOAT, ("n", 1))],
            ),
            "regression",
            None,
            "onnx_inputs",
        ),
    ],
)
def test_outputs_that_cannot_keep_the_tasks_promise_are_refused(
    model: onnx.ModelProto, task: str, classes: list[str] | None, code: str
) -> None:
    assert refusal(model, task, classes).code == code


GOOD = linear().SerializeToString()


@settings(max_examples=examples(400))
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, len(GOOD)),
)
def test_a_broken_file_is_refused_or_served_and_nothing_else(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    try:
        served, signature = adopt(bytes(content[:cut]) if cut % 4 == 0 else bytes(content))
    except ImportRefused as problem:
        said = problem
    else:
        assert signature["inputs"]
        assert served
        return
    assert said.code.startswith("onnx_")


# ---- the job


def run(data: bytes, **spec: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    document = {
        "kind": "import",
        "name": "resnet",
        "model": "resnet",
        "task": "classification",
        "classes": None,
        **spec,
    }
    with Worker(Tenant()) as worker:
        worker.begin(document, {"format": "onnx"}, {"model": (data, "import")})
        return worker.finish(), worker.outputs


def test_the_job_seals_the_bytes_that_ran_and_what_is_known_of_them() -> None:
    data, _ = residual()
    last, outputs = run(data, classes=[str(number) for number in range(7)])
    assert last == {"type": "done", "result": {"metrics": {}, "state": "ready", "reasons": []}}
    facts = json.loads(outputs["result"])
    assert facts["signature"]["outputs"][0]["shape"] == [-1, 7]
    assert facts["parameters"] == importing.parameters(importing.check(data))
    assert set(facts) == {
        "format",
        "card",
        "signature",
        "evaluation",
        "metrics",
        "parameters",
        "weights_sha256",
        "torch_version",
        "threads",
        "task",
    }
    images = np.zeros((2, 3, 64, 64), dtype=np.float32)
    np.testing.assert_allclose(answer(outputs["model"], image=images)[0].sum(1), [1, 1], atol=1e-5)


def test_the_job_refuses_in_the_sandbox_with_code_and_hint() -> None:
    last, outputs = run(external().SerializeToString())
    assert (last["type"], last["code"]) == ("failed", "onnx_external_data")
    assert "save_as_external_data" in last["hint"]
    assert outputs == {}


def test_weights_that_would_fill_the_memory_fail_the_job_and_not_the_machine() -> None:
    shape = weights("shape", [2**20, 2**16], np.int64)
    model = made(
        [node("ConstantOfShape", "shape", "big"), node("ReduceMean", "big", "mean", keepdims=0), node("Add", "x mean")],
        initializers=[shape],
    )
    last, _ = run(model.SerializeToString(), task="other")
    assert last["code"] == "out_of_memory"
