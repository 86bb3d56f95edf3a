"""The tiny model's weights, loaded once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inference.language.llama import Weights
from tests.inference.language import tiny


@pytest.fixture(scope="session")
def exact() -> Iterator[Weights]:
    """In full precision, so that the reference computes the same."""
    loaded = tiny.weights(tiny.gguf("F32"))
    yield loaded
    loaded.free()


@pytest.fixture(scope="session")
def small() -> Iterator[Weights]:
    """As models are served."""
    loaded = tiny.weights(tiny.gguf("Q4_0"))
    yield loaded
    loaded.free()
