"""A training killed with -9 in its real, sandboxed process goes on from its sealed checkpoint, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from tests.training.attempts import DIGITS, Attempt
from tests.training.given import digits_npz, document
from tests.training.worker import Json, Tenant

STEPS_PER_EPOCH = 629
# Dropout draws from torch's generator, adamw keeps two moments, the early stop keeps the best weights: all must return.
LAYERS: list[Json] = [
    {"op": "conv2d", "out": 4, "kernel": 3},
    {"op": "relu"},
    {"op": "flatten"},
    {"op": "dropout", "p": 0.2},
    {"op": "linear", "out": 10},
]


def recipe(epochs: int) -> Json:
    train = {
        "optimizer": {"name": "adamw", "lr": 0.01},
        "batch_size": 2,
        "epochs": epochs,
        "checkpoint_seconds": 0.5,
        "early_stop": {"metric": "validation/accuracy", "patience": 100},
    }
    return document(model={"kind": "layers", "layers": LAYERS}, train=train)


class Run:
    """One training over any number of attempts."""

    def __init__(self, epochs: int) -> None:
        self.tenant = Tenant()
        self.document, self.dataset = recipe(epochs), digits_npz(8, 1)
        self.checkpoint: bytes | None = None
        self.steps: list[int] = []  # at which attempts were broken off

    def attempt(self) -> Iterator[tuple[Attempt, Json]]:
        with Attempt(self.tenant) as attempt:
            attempt.train(self.document, self.dataset, DIGITS, self.checkpoint)
            for packet in attempt.follow():
                yield attempt, packet

    def killed(self) -> None:
        """An attempt whose process is killed at its first checkpoint inside an epoch."""
        for attempt, packet in self.attempt():
            assert packet["type"] not in ("done", "failed"), "it ended before it could be killed"
            if packet["type"] == "sealed" and packet["about"]["step"] % STEPS_PER_EPOCH:
                attempt.child.process.kill()
                self.checkpoint = attempt.outputs["checkpoint"]
                self.steps.append(packet["about"]["step"])
                return

    def drained(self) -> None:
        """An attempt that is told to hand back in its first epoch."""
        for attempt, packet in self.attempt():
            if packet["type"] == "progress":
                attempt.want("drain")
        assert packet["type"] == "failed"
        assert packet["code"] == "drained"
        self.checkpoint = attempt.outputs["checkpoint"]

    def finished(self) -> dict[str, Any]:
        *_, (attempt, packet) = self.attempt()
        assert packet["type"] == "done", packet
        self.lines = attempt.lines()
        return attempt.result()


@cache
def unbroken_run(epochs: int) -> dict[str, Any]:
    return Run(epochs).finished()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.proof)])
def test_a_training_killed_within_an_epoch_ends_with_the_weights_of_an_unbroken_one(kills: int) -> None:
    epochs = 2 + 8 * kills  # a checkpoint falls due each half second, an epoch takes 0.15 s on a fast machine
    unbroken = unbroken_run(epochs)
    run = Run(epochs)
    for _ in range(kills):
        run.killed()
    resumed = run.finished()
    assert all(before < after for before, after in pairwise([0, *run.steps])), "each attempt must get further"
    assert any("goes on from epoch" in line and f"step {run.steps[-1]} of" in line for line in run.lines)
    assert resumed["weights_sha256"] == unbroken["weights_sha256"]
    assert resumed["metrics"] == unbroken["metrics"]
    assert resumed["evaluation"] == unbroken["evaluation"]


@pytest.mark.slow
def test_a_drained_training_seals_a_checkpoint_and_a_later_attempt_goes_on_from_it() -> None:
    run = Run(epochs=10)
    run.drained()
    assert run.finished()["weights_sha256"] == unbroken_run(epochs=10)["weights_sha256"]
