"""What a tenant reads of each way to fail: the code of the contract, and no word that could be somebody's data."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from sealing import ArtefactCorrupt
from training.errors import DataRefused, Diverged
from training.run import explained
from training.spec import SpecProblems, load


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Diverged("the loss became NaN", "lower it"), "diverged"),
        (DataRefused("no", "yes", code="zip_bomb"), "zip_bomb"),
        (ArtefactCorrupt(UUID(int=7), 3), "artefact_corrupt"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried S3CR3T"), "out_of_memory"),
        (RuntimeError("std::bad_alloc"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left"), "storage_full"),
        (OSError(errno.EACCES, "S3CR3T"), "internal"),
        (ValueError("S3CR3T"), "internal"),
        (KeyError("S3CR3T"), "internal"),
    ],
)
def test_every_failure_has_its_code_and_no_foreign_text(problem: Exception, code: str) -> None:
    found, message, hint = explained(problem)
    assert found == code
    assert message
    assert "S3CR3T" not in message + str(hint)


def test_a_spec_that_is_not_valid_is_told_with_its_path() -> None:
    with pytest.raises(SpecProblems) as caught:
        load({"kind": "train", "name": "x", "task": "classification", "dataset": {"name": "d"}, "modle": {}})
    code, message, _ = explained(caught.value)
    assert code == "invalid_spec"
    assert message.startswith("/mod")
