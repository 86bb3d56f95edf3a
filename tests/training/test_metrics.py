"""Metrics and losses against scikit-learn's and torch's own words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from training.losses import criterion
from training.metrics import ClassTally, ValueTally

pytestmark = pytest.mark.slow

labels = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)


@given(labels, st.integers(1, 7))
def test_accuracy_f1_and_confusion_are_those_of_scikit_learn(
    given_labels: tuple[int, list[tuple[int, int]]], batch: int
) -> None:
    classes, pairs = given_labels
    truth, answer = (torch.tensor(column) for column in zip(*pairs, strict=True))
    tally = ClassTally(classes)
    for rows in torch.arange(len(pairs)).split(batch):
        tally.add(torch.nn.functional.one_hot(answer[rows], classes).float(), truth[rows])
    values = tally.values()
    assert values["accuracy"] == pytest.approx(oracle.accuracy_score(truth, answer))
    assert values["f1"] == pytest.approx(oracle.f1_score(truth, answer, average="macro", zero_division=0.0))
    assert tally.confusion.tolist() == oracle.confusion_matrix(truth, answer, labels=range(classes)).tolist()


finite = st.floats(-1e4, 1e4, width=32)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=30))
def test_r2_is_that_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    truth, answer = np.array(pairs, dtype=np.float32).T
    tally = ValueTally()
    for rows in np.array_split(np.arange(len(pairs)), 3):
        tally.add(torch.tensor(answer[rows]).reshape(-1, 1), torch.tensor(truth[rows]))
    expected = oracle.r2_score(truth.astype(np.float64), answer.astype(np.float64))
    assert tally.values()["r2"] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_losses_are_means_over_the_rows() -> None:
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    target = torch.tensor([0, 2])
    log_likelihood = torch.log_softmax(scores, 1)[[0, 1], target]
    assert criterion("cross_entropy", "classification")(scores, target).item() == pytest.approx(
        -log_likelihood.mean().item()
    )
    wrong = torch.softmax(scores, 1) - torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    assert criterion("mse", "classification")(scores, target).item() == pytest.approx((wrong**2).mean().item())
    values = torch.tensor([[1.0], [4.0]])
    assert criterion("mse", "regression")(values, torch.tensor([0.0, 2.0])).item() == pytest.approx(2.5)
