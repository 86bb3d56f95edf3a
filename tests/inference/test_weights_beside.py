"""A graph whose weights lie beside it answers as the one that has them inside, in the engine and in a real cell."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from inference.engine import OnnxEngine
from inference.errors import LoadFailed
from inference.signature import Signature
from tests.inference import graphs
from tests.inference.bundles import apart, bundled
from tests.inference.cells import Cell, Connection, outputs_of

MODEL, DOCUMENT = graphs.mlp()
ROWS = np.random.default_rng(0).normal(size=(5, 64)).astype("f4")


def engine(weights: bytearray | mmap.mmap | None, graph: bytes | None = None) -> OnnxEngine:
    return OnnxEngine(graph or apart(MODEL)[0], Signature.from_json(DOCUMENT), weights=weights)


def mapped() -> mmap.mmap:
    weights = apart(MODEL)[1]
    memory = mmap.mmap(-1, len(weights))
    memory[:] = weights
    return memory


def test_the_weights_are_needed_no_longer_when_the_engine_is_made() -> None:
    """They are overwritten and given back: the session has its own."""
    memory = mapped()
    made = engine(memory)
    memory[:] = b"\xff" * len(memory)
    memory.close()
    np.testing.assert_allclose(made.run({"x": ROWS}, ["probabilities"])[0], graphs.mlp_expected(ROWS), atol=1e-5)


def test_a_graph_without_the_weights_beside_it_is_refused() -> None:
    with pytest.raises(LoadFailed):
        engine(None)


def test_weights_that_are_too_short_are_refused() -> None:
    with pytest.raises(LoadFailed):
        engine(bytearray(mapped()[:-4]))


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights", "weights2"])
def test_a_graph_that_names_another_file_is_refused(location: str) -> None:
    graph, weights = apart(MODEL, location)
    with pytest.raises(LoadFailed):
        engine(bytearray(weights), graph)


@pytest.mark.slow
def test_a_cell_serves_a_sealed_bundle(cell: Cell, edge: Connection) -> None:
    assert cell.load("mlp", bundled(MODEL), DOCUMENT).fields()["loaded"]
    edge.infer("mlp", {"x": ROWS})
    np.testing.assert_allclose(outputs_of(edge.frame())["probabilities"], graphs.mlp_expected(ROWS), atol=1e-5)


@pytest.mark.slow
def test_a_cell_refuses_a_bundle_that_is_not_valid(cell: Cell) -> None:
    fields = cell.load("mlp", bundled(MODEL)[:-1], DOCUMENT).fields()
    assert (fields["code"], "bundle is not valid" in fields["message"]) == ("load_failed", True)
