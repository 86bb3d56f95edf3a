"""One zygote a session, as on a node; each test forks the cells that it needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.inference import graphs
from tests.inference.cells import Cell, Connection, Zygote

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@pytest.fixture(scope="session")
def sockets() -> Iterator[Path]:
    with TemporaryDirectory(prefix="sr-") as folder:  # short: a socket's path has 107 bytes
        yield Path(folder)


@pytest.fixture
def cell(zygote: Zygote, sockets: Path) -> Iterator[Cell]:
    forked = zygote.fork(sockets / f"{next(_numbers)}.sock")
    yield forked
    forked.agent.close()
    assert zygote.packet()["pid"] == forked.pid


@pytest.fixture
def mlp_cell(cell: Cell) -> Cell:
    assert cell.load("mlp", *graphs.mlp()).fields()["loaded"]
    return cell


@pytest.fixture
def edge(cell: Cell) -> Iterator[Connection]:
    connection = cell.connect()
    yield connection
    connection.close()
