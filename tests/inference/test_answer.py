"""Outputs as predictions, under each output policy."""

from __future__ import annotations

import numpy as np
import pytest

from inference.answer import predictions, probabilities
from inference.signature import Signature
from tests.inference.graphs import signature

CLASSES = Signature.from_json(
    signature({"x": ("FP32", [-1, 2])}, {"probabilities": ("FP32", [-1, 3])}, ["cat", "dog", "owl"])
)
SHARES = np.array([[0.125, 0.75, 0.125], [0.5, 0.25, 0.25]], "f4")


def of_task(task: str) -> Signature:
    return Signature.from_json(signature({"x": ("FP32", [-1, 2])}, {"out": ("FP32", [-1, 1])}, task=task))


def test_a_classification_names_the_winner_with_all_scores() -> None:
    assert predictions(CLASSES, {"probabilities": SHARES}) == [
        {"label": "dog", "score": 0.75, "scores": {"cat": 0.125, "dog": 0.75, "owl": 0.125}},
        {"label": "cat", "score": 0.5, "scores": {"cat": 0.5, "dog": 0.25, "owl": 0.25}},
    ]


def test_logits_of_an_imported_model_become_their_softmax() -> None:
    logits = np.array([[1.0, 3.0, -2.0]], "f4")
    (prediction,) = predictions(CLASSES, {"probabilities": logits})
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert prediction["label"] == "dog"
    np.testing.assert_allclose(list(prediction["scores"].values()), expected, rtol=1e-6)
    assert probabilities(SHARES) is SHARES


def test_huge_logits_do_not_overflow() -> None:
    assert probabilities(np.array([[1e4, 0.0]], "f4")).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({"top_k": 1}, {"dog": 0.75}),
        ({"top_k": 9}, {"cat": 0.125, "dog": 0.75, "owl": 0.125}),
        ({"decimals": 1}, {"cat": 0.1, "dog": 0.8, "owl": 0.1}),
        ({"scores": False}, None),
    ],
)
def test_the_output_policy_limits_what_is_told(policy: dict[str, object], shown: object) -> None:
    assert predictions(CLASSES, {"probabilities": SHARES[:1]}, policy)[0]["scores"] == shown


def test_classes_without_names_are_numbered() -> None:
    numbered = Signature.from_json(signature({"x": ("FP32", [-1, 2])}, {"probabilities": ("FP32", [-1, 3])}))
    assert predictions(numbered, {"probabilities": SHARES})[0]["label"] == "1"


def test_regression_embedding_and_anything_else_have_their_own_form() -> None:
    column = np.array([[1.5], [2.5]], "f4")
    assert predictions(of_task("regression"), {"out": column}) == [{"value": 1.5}, {"value": 2.5}]
    assert predictions(of_task("embedding"), {"out": column}) == [{"vector": [1.5]}, {"vector": [2.5]}]
    assert predictions(of_task("other"), {"out": column, "t": np.array([[b"a"], [b"b"]], dtype=object)}) == [
        {"outputs": {"out": [1.5], "t": ["a"]}},
        {"outputs": {"out": [2.5], "t": ["b"]}},
    ]


def test_outputs_without_a_common_batch_are_told_whole() -> None:
    outputs = {"a": np.zeros((2, 1), "f4"), "b": np.full((), 3, "f4")}
    assert predictions(of_task("other"), outputs) == [{"outputs": {"a": [[0.0], [0.0]], "b": 3.0}}]


def test_a_classifier_without_classes_answers_its_empty_rows() -> None:
    assert predictions(CLASSES, {"probabilities": np.zeros((2, 0), np.float32)}) == [
        {"outputs": {"probabilities": []}},
        {"outputs": {"probabilities": []}},
    ]
