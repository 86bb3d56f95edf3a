"""The edge's client against real cells: answers, the engines' errors as ours, and never a hang whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from inference.protocol import ERROR, encode
from sealing import Identity, new_data_key, seal_memory
from strongroom.deployments.cells import Cell, CellLost, Conditions, Zygote
from strongroom.deployments.client import Engines
from strongroom.deployments.rows import Order, Wanted
from strongroom.errors import Invalid, LimitReached, StrongroomError, Unavailable, Unsupported
from tests.inference import graphs

pytestmark = pytest.mark.slow

ONE = {"x": np.ones((1, 64), "f4")}
SLOW = {"x": np.ones((1, 1, 1), "f4")}


class Place:
    """A home with a runtime folder, a zygote and cells.json written as the agent would."""

    def __init__(self, home: Path) -> None:
        self.home, self.runtime = home, home / "r"
        self.runtime.mkdir()
        (home / "runtime").write_text(str(self.runtime))
        self.zygote = Zygote(Conditions(memory_bytes=1 << 30, threads=1, mode="auto"))
        self.engines = Engines(home)
        self.tenant, self.version = uuid4(), uuid4()
        self.cells: dict[str, Cell] = {}
        self.generation = 0

    async def serve(self, name: str, graph: tuple[bytes, dict[str, Any]], *, publish: bool = True) -> Cell:
        """One cell a deployment, so that a test can kill one."""
        self.generation += 1
        cell = await Cell.start(self.zygote, self.tenant, "cpu", self.runtime / f"{name}-{self.generation}.sock")
        await cell.load(self.wanted(name), sealed(self.tenant, *graph))
        self.cells[name] = cell
        if publish:
            self.publish()
        return cell

    def wanted(self, name: str) -> Wanted:
        return Wanted(self.tenant, uuid4(), name, "cpu", self.version, 64)

    def publish(self, failed: dict[str, list[str]] | None = None) -> None:
        cells = [
            {
                "tenant": str(self.tenant),
                "device": "cpu",
                "socket": cell.path.name,
                "state": "dead" if cell.ended.is_set() else "ready",
                "deployments": {name: [str(self.version)]},
                "failed": failed or {},
            }
            for name, cell in self.cells.items()
        ]
        self.generation += 1
        path = self.runtime / ".cells.json"
        path.write_text(json.dumps({"generation": self.generation, "cells": cells}))
        path.rename(self.runtime / "cells.json")

    async def ask(self, name: str, inputs: Any = None, **options: Any) -> Any:
        return await self.engines.infer(self.tenant, name, self.version, inputs, **options)


def sealed(tenant: UUID, model: bytes, signature: dict[str, Any]) -> Order:
    artefact, key, descriptor = uuid4(), new_data_key(), os.memfd_create("sealed")
    tag = seal_memory(model, descriptor, key, Identity(tenant, artefact, "model"))
    return Order(
        artefact=artefact,
        header_tag=tag,
        stored_bytes=os.fstat(descriptor).st_size,
        interface=json.dumps(signature).encode(),
        data_key=bytearray(key),
        descriptor=descriptor,
        tenant=tenant,
        version=uuid4(),
        size_bytes=len(model),
    )


@asynccontextmanager
async def a_place() -> AsyncIterator[Place]:
    with TemporaryDirectory(prefix="sr-") as folder:
        place = Place(Path(folder))
        place.zygote.start()
        place.zygote.watch()
        try:
            yield place
        finally:
            place.engines.close()
            place.zygote.end()


def run(test: Callable[[Place], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), a_place() as place:
            await test(place)

    asyncio.run(whole())


async def refusal(call: Awaitable[Any]) -> StrongroomError:
    with pytest.raises(StrongroomError) as caught:
        await call
    return caught.value


def test_arrays_go_and_come_on_one_connection_in_any_number() -> None:
    async def test(place: Place) -> None:
        await place.serve("mlp", graphs.mlp())
        inputs = [np.random.default_rng(i).normal(size=(1 + i % 2, 64)).astype("f4") for i in range(200)]
        answers = await asyncio.gather(*[place.ask("mlp", {"x": x}, principal=i % 3) for i, x in enumerate(inputs)])
        for x, answer in zip(inputs, answers, strict=True):
            np.testing.assert_allclose(answer.outputs["probabilities"], graphs.mlp_expected(x), atol=1e-5)
        assert max(answer.batch for answer in answers) > 2

    run(test)


def test_several_inputs_texts_and_files_go_too() -> None:
    async def test(place: Place) -> None:
        await place.serve("table", graphs.table())
        inputs = {"radius": np.ones((2, 1), "f4"), "texture": np.array([["a"], ["ä"]], dtype=object)}
        answer = await place.ask("table", inputs, outputs=["echo"])
        assert answer.outputs["echo"].tolist() == [[b"a"], ["ä".encode()]]
        answer = await place.ask("table", raw=b"radius,texture\n3,x\n", content_type="text/csv")
        assert answer.outputs["value"].tolist() == [[3.0]]
        big = {"radius": np.ones((200_000, 1), "f4"), "texture": np.full((200_000, 1), "texture", dtype=object)}
        answer = await place.ask("table", big)
        assert answer.outputs["echo"].shape == (200_000, 1)

    run(test)


def test_what_the_cell_refuses_becomes_the_platforms_error() -> None:
    async def test(place: Place) -> None:
        await place.serve("mlp", graphs.mlp())
        await place.serve("lookup", graphs.lookup())
        wrong = await refusal(place.ask("mlp", {"x": np.ones((1, 3), "f4")}))
        assert isinstance(wrong, Invalid)
        assert wrong.detail == "input 'x' has shape [1, 3], expected [-1, 64]"
        assert [error.as_dict() for error in wrong.errors] == [
            {"path": "/inputs/x", "code": "shape", "message": "has shape [1, 3]", "hint": "expected [-1, 64]"}
        ]
        assert wrong.title == "The input does not fit the model"
        assert isinstance(await refusal(place.ask("mlp", raw=b"x", content_type="audio/ogg")), Unsupported)
        failed = await refusal(place.ask("lookup", {"index": np.array([[99]])}))
        assert (failed.status, failed.title) == (422, "The model failed on this input")
        huge = await refusal(place.ask("mlp", {"x": np.ones((300_000, 64), "f4")}))
        assert huge.code == "body_too_large"

    run(test)


def test_kill_9_of_the_cell_answers_every_waiter_and_the_next_one_waits_for_another_cell() -> None:
    async def test(place: Place) -> None:
        cell = await place.serve("slow", graphs.slow(times=60))
        waiters = [asyncio.ensure_future(place.ask("slow", SLOW)) for _ in range(20)]
        while not (await cell.stats())["waiting"]:
            await asyncio.sleep(0.01)
        os.kill(cell.pid, signal.SIGKILL)
        errors = await asyncio.gather(*waiters, return_exceptions=True)
        assert {getattr(error, "code", error) for error in errors} == {"engine_lost"}
        assert {getattr(error, "retry_after_seconds", None) for error in errors} == {1}
        await cell.ended.wait()
        later = asyncio.ensure_future(place.ask("slow", SLOW, deadline_ms=30_000))
        await asyncio.sleep(0.1)
        assert not later.done()
        await place.serve("slow", graphs.slow(times=1))
        assert (await later).outputs["out"].shape == (1, 1)

    run(test)


def state(task: Path) -> str:
    """One letter, as ps has it."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def test_a_cell_that_stands_still_is_given_up_at_each_requests_deadline() -> None:
    async def test(place: Place) -> None:
        cell = await place.serve("mlp", graphs.mlp())
        await place.ask("mlp", ONE)
        os.kill(cell.pid, signal.SIGSTOP)
        try:
            while any(state(task) != "T" for task in Path(f"/proc/{cell.pid}/task").iterdir()):
                await asyncio.sleep(0.005)  # the signal is sent, not yet obeyed
            errors = await asyncio.gather(*[refusal(place.ask("mlp", ONE, deadline_ms=200)) for _ in range(3)])
        finally:
            os.kill(cell.pid, signal.SIGCONT)
        assert {error.code for error in errors} == {"deadline_exceeded"}
        assert (await place.ask("mlp", ONE)).outputs

    run(test)


def test_a_deadline_passes_in_the_cell_while_another_request_computes() -> None:
    async def test(place: Place) -> None:
        await place.serve("slow", graphs.slow(times=200))
        first = asyncio.ensure_future(place.ask("slow", SLOW))
        await asyncio.sleep(0.05)
        assert (await refusal(place.ask("slow", SLOW, deadline_ms=100))).code == "deadline_exceeded"
        assert not first.done()
        await first

    run(test)


def test_what_a_caller_no_longer_waits_for_is_not_computed() -> None:
    async def test(place: Place) -> None:
        cell = await place.serve("slow", graphs.slow(times=60))
        first = asyncio.ensure_future(place.ask("slow", SLOW))
        await asyncio.sleep(0.05)
        others = [asyncio.ensure_future(place.ask("slow", SLOW)) for _ in range(5)]
        await asyncio.sleep(0.01)
        for other in others:
            other.cancel()
        await first
        await place.ask("slow", SLOW)
        assert (await cell.stats())["requests"] == 2

    run(test)


def test_a_deployment_that_is_not_loaded_is_asked_for_and_awaited_inside_the_deadline() -> None:
    async def test(place: Place) -> None:
        bell = await _bell(place.runtime / "agent.sock")
        place.publish()
        early = await refusal(place.ask("mlp", ONE, deadline_ms=100))
        assert (early.code, early.status, early.retry_after_seconds) == ("model_loading", 503, 1)
        assert json.loads(await bell.get()) == {"want": "load", "tenant": str(place.tenant), "deployment": "mlp"}
        waiting = asyncio.ensure_future(place.ask("mlp", ONE, deadline_ms=30_000))
        await place.serve("mlp", graphs.mlp())
        assert (await waiting).outputs

    run(test)


async def _bell(path: Path) -> asyncio.Queue[bytes]:
    rung: asyncio.Queue[bytes] = asyncio.Queue()

    class Bell(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: object) -> None:
            rung.put_nowait(data)

    import socket

    await asyncio.get_running_loop().create_datagram_endpoint(Bell, local_addr=str(path), family=socket.AF_UNIX)
    return rung


def test_a_deployment_whose_model_failed_is_refused_without_waiting() -> None:
    async def test(place: Place) -> None:
        await place.serve("mlp", graphs.mlp())
        place.publish(failed={"broken": [str(place.version)]})
        error = await refusal(place.ask("broken", ONE, deadline_ms=30_000))
        assert isinstance(error, Unavailable)
        assert "could not be loaded" in error.detail

    run(test)


def test_more_than_the_cell_takes_is_told_to_come_back() -> None:
    async def test(place: Place) -> None:
        await place.serve("slow", graphs.slow(times=60))
        calls = [asyncio.ensure_future(place.ask("slow", SLOW)) for _ in range(4200)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in done]
        for task in waiting:
            task.cancel()
        assert any(isinstance(error, LimitReached) and error.code == "queue_full" for error in errors)

    run(test)


def test_a_cell_that_answers_nonsense_is_lost_and_nobody_waits() -> None:
    async def test(place: Place) -> None:
        cell = await place.serve("mlp", graphs.mlp())
        fake = place.runtime / "fake.sock"

        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(encode(ERROR, 1, {"code": "model_loading", "message": "not loaded"}))
            await reader.read(1000)
            writer.write(b"\xff" * 64)
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(nonsense, str(fake))
        cell.path = fake
        place.publish()
        assert (await refusal(place.ask("mlp", ONE))).code == "engine_lost"
        server.close()

    run(test)


def test_the_cells_key_is_wiped_and_its_file_closed_whether_it_loads_or_not() -> None:
    async def test(place: Place) -> None:
        cell = await place.serve("mlp", graphs.mlp())
        good, bad = sealed(place.tenant, *graphs.mlp()), sealed(place.tenant, b"no model", graphs.mlp()[1])
        await cell.load(place.wanted("again"), good)
        with pytest.raises(Exception, match="refused the model"):
            await cell.load(place.wanted("bad"), bad)
        for order in (good, bad):
            assert (bytes(order.data_key), order.descriptor) == (bytes(32), -1)
        cell.end()
        with pytest.raises(CellLost):
            await cell.stats()

    run(test)
