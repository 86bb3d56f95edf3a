"""`python -m training.run` on a spec of kind train, in the real sandbox: packets, sealed outputs, failures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnxruntime import InferenceSession

from tests.training.attempts import DIGITS, Attempt
from tests.training.given import Json, digits, digits_npz, document
from tests.training.worker import Tenant

pytestmark = pytest.mark.slow
MLP: Json = {"kind": "catalogue", "name": "mlp"}
QUICK: Json = {"optimizer": {"name": "adamw", "lr": 0.01}, "batch_size": 64, "epochs": 3}


def ended(content: Json, *, about: Json = DIGITS) -> tuple[Attempt, Json]:
    with Attempt(Tenant()) as attempt:
        attempt.train(content, digits_npz(8, 1), about)
        *_, last = attempt.follow()
    return attempt, last


def test_a_training_ends_with_a_sealed_model_sealed_facts_and_a_small_packet() -> None:
    attempt, last = ended(document(model=MLP, train=QUICK))
    facts = attempt.result()
    assert last == {"type": "done", "result": {"metrics": facts["metrics"], "state": "ready", "reasons": []}}
    assert facts.keys() == {
        "task",
        "signature",
        "metrics",
        "evaluation",
        "parameters",
        "weights_sha256",
        "torch_version",
        "threads",
    }
    (model,) = [packet for packet in attempt.of_type("sealed") if packet["kind"] == "model"]
    assert model["about"] == {"format": "onnx"}
    images, labels = digits(8, 1)
    (found,) = InferenceSession(attempt.outputs["model"]).run(None, {"image": images})
    assert (found.argmax(axis=1) == labels).mean() > 0.8
    ends = [packet for packet in attempt.of_type("progress") if packet["metrics"]]
    assert [(packet["epoch"], packet["epochs"], packet["step"], packet["steps"]) for packet in ends] == [
        (1, 3, 20, 60),
        (2, 3, 40, 60),
        (3, 3, 60, 60),
    ]
    assert ends[-1]["fraction"] == 1
    assert ends[-1]["eta_seconds"] == 0


@pytest.mark.parametrize(
    ("content", "code", "words", "hint"),
    [
        (
            document(model=MLP, train={**QUICK, "optimizer": {"name": "sgd", "lr": 1e30}}),
            "diverged",
            "the loss became",
            "lower train.optimizer.lr, now 1e+30",
        ),
        (document(model=MLP, modality="tabular"), "dataset_contradicts_spec", "the data set is image", "use auto"),
        (document(model=MLP, target="digit"), "dataset_contradicts_spec", "'digit'", None),
        (document(model=MLP, resources={"max_seconds": 0.01}), "timed_out", "0.01 seconds were not enough", None),
    ],
)
def test_a_failure_has_its_code_its_words_and_its_remedy(
    content: Json, code: str, words: str, hint: str | None
) -> None:
    attempt, last = ended(content)
    assert (last["type"], last["code"]) == ("failed", code), last
    assert words in last["message"]
    assert hint is None or last["hint"] == hint
    assert attempt.outputs == {}


def test_another_data_set_than_the_one_in_the_spec_is_not_trained_on() -> None:
    content = document(model=MLP, dataset={"name": "digits", "fingerprint": "sha256:" + "1" * 64})
    _, last = ended(content, about={**DIGITS, "fingerprint": "sha256:" + "2" * 64})
    assert last["code"] == "dataset_contradicts_spec"
    assert "fingerprint" in last["message"]


def test_a_cancel_is_answered_and_nothing_is_sealed() -> None:
    with Attempt(Tenant()) as attempt:
        attempt.train(document(model=MLP, train={**QUICK, "epochs": 100_000}), digits_npz(8, 1), DIGITS)
        for packet in attempt.follow():
            if packet["type"] == "progress" and not np.isnan(packet["fraction"]):
                attempt.want("cancel")
    assert (packet["type"], packet["code"]) == ("failed", "cancelled")
    assert json.dumps(attempt.of_type("sealed")) == "[]"
