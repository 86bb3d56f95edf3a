"""A keeper with a real zygote and real cells; the orders and the reports are the test's."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest

from strongroom.deployments.cells import Conditions, LoadRefused, Zygote
from strongroom.deployments.keeper import Keeper, Ties
from strongroom.deployments.rows import Order, Report, Wanted
from strongroom.deployments.shared import GIVER_LOST
from strongroom.errors import NotFound, Unavailable
from tests.deployments.test_client import sealed
from tests.inference import graphs

pytestmark = pytest.mark.slow

TENANT, DEPLOYMENT = uuid4(), uuid4()


class Desk:
    """Gives orders as `answers` says (a model's bytes, an error to raise, or `kill`) and keeps what it is told."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        numbers = itertools.count(1)
        ties = Ties(zygote, folder, self.order, self.shared, self.told, lambda: None, lambda: f"{next(numbers)}.sock")
        self.keeper = Keeper(TENANT, "cpu", ties)
        self.answers: dict[UUID, list[bytes | Exception | str]] = {}
        self.reports: list[Report] = []
        self.lost_givers = 0  # how many shared copies fail before one is there

    async def order(self, wanted: Wanted) -> Order:
        answers = self.answers.get(wanted.version) or [graphs.mlp()[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer == "kill" and self.keeper.cell is not None:
            os.kill(self.keeper.cell.pid, signal.SIGKILL)
            return sealed(TENANT, *graphs.mlp())
        assert isinstance(answer, bytes)
        order = sealed(TENANT, answer, graphs.mlp()[1])
        order.is_public = wanted.share
        return order

    async def shared(self, order: Order) -> None:
        self.lost_givers -= 1
        if self.lost_givers >= 0:
            raise LoadRefused(GIVER_LOST, "the cell ended")

    def states(self) -> list[str]:
        return [report.state for report in self.reports]

    def told(self, report: Report) -> None:
        self.reports.append(report)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.02)


def wanted(name: str, version: UUID | None = None, max_batch: int = 8, *, share: bool = False) -> Wanted:
    return Wanted(TENANT, DEPLOYMENT, name, "cpu", version or uuid4(), max_batch, share=share)


def key(one: Wanted) -> tuple[str, str]:
    return one.name, str(one.version)


def run(test: Callable[[Desk], Awaitable[None]], *first: Wanted, answers: list[bytes | Exception | str] | None) -> None:
    """The first of `first` gets `answers`, the others a model that loads."""

    async def whole() -> None:
        with TemporaryDirectory(prefix="sr-") as folder:
            zygote = Zygote(Conditions(memory_bytes=1 << 30, threads=1, mode="auto"))
            zygote.start()
            zygote.watch()
            desk = Desk(zygote, Path(folder))
            if answers is not None:
                desk.answers[first[0].version] = answers
            desk.keeper.assign(first)
            task = asyncio.create_task(desk.keeper.run())
            try:
                async with asyncio.timeout(60):
                    await test(desk)
            finally:
                task.cancel()
                zygote.end()

    asyncio.run(whole())


def test_a_version_that_kills_the_cell_twice_is_given_up_and_the_others_are_served() -> None:
    bad, good = wanted("bad"), wanted("good")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: key(bad) in desk.keeper.failures and key(good) in desk.keeper.loaded)
        assert desk.keeper.failures[key(bad)].code == "load_killed"
        assert next(report for report in desk.reports if report.state == "failed").error_code == "load_killed"
        desk.answers[bad.version] = [graphs.mlp()[0]]
        desk.keeper.assign([wanted("bad", bad.version, max_batch=16), good])  # changed: it gets another chance
        await desk.until(lambda: key(bad) in desk.keeper.loaded)

    run(test, bad, good, answers=["kill"])


def test_a_reason_that_passes_is_tried_again_and_told_as_loading() -> None:
    one = wanted("digits")
    away = Unavailable("the key service is away", code="keys_unavailable")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: key(one) in desk.keeper.loaded)
        assert [report.state for report in desk.reports] == ["loading", "loading", "ready"]
        assert not desk.keeper.failures

    run(test, one, answers=[away, away, graphs.mlp()[0]])


def test_a_version_is_served_until_the_one_that_replaces_it_is_loaded_even_where_that_fails() -> None:
    old, new = wanted("digits"), wanted("digits")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: key(old) in desk.keeper.loaded)
        desk.answers[new.version] = [b"no model"]
        desk.keeper.assign([new])
        await desk.until(lambda: key(new) in desk.keeper.failures)
        assert list(desk.keeper.loaded) == [key(old)]
        desk.answers[new.version] = [graphs.mlp()[0]]
        better = wanted("digits", new.version, max_batch=16)
        desk.keeper.assign([better])
        await desk.until(lambda: list(desk.keeper.loaded) == [key(better)])

    run(test, old, answers=None)


@pytest.mark.parametrize("loading", [{DEPLOYMENT}, set()], ids=["its row says loading", "its row never said so"])
def test_going_back_from_a_version_that_failed_is_told(loading: set[UUID]) -> None:
    old, new = wanted("digits"), wanted("digits")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: key(old) in desk.keeper.loaded)
        desk.answers[new.version] = [b"no model"]
        desk.keeper.assign([new])
        await desk.until(lambda: desk.states()[-1] == "failed")
        desk.keeper.assign([old], loading)
        assert desk.states()[-1] == "ready"

    run(test, old, answers=None)


def test_what_failed_is_tried_again_where_somebody_asks_for_it() -> None:
    one = wanted("digits")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: desk.states()[-1:] == ["failed"])
        desk.keeper.assign([one])
        assert desk.keeper.failures
        desk.keeper.assign([one], loading={DEPLOYMENT})
        await desk.until(lambda: desk.states()[-1] == "ready")

    run(test, one, answers=[b"no model", graphs.mlp()[0]])


def test_a_withdrawn_model_is_there_again_once_it_is_published_again() -> None:
    one = wanted("adopted")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: desk.states()[-1:] == ["failed"])
        desk.keeper.assign([one])  # the rows changed
        await desk.until(lambda: desk.states()[-1] == "ready")

    run(test, one, answers=[NotFound("withdrawn"), graphs.mlp()[0]])


def test_what_nobody_wants_any_more_fails_for_nobody() -> None:
    old, new = wanted("digits"), wanted("digits")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: key(old) in desk.keeper.loaded)

        async def order(asked: Wanted) -> Order:
            desk.keeper.assign([old])  # while it is being loaded
            raise NotFound("gone")

        desk.keeper._ties.order = order
        desk.keeper.assign([new])
        await desk.until(lambda: key(new) not in desk.keeper._wanted)
        await asyncio.sleep(0.2)
        assert "failed" not in desk.states()
        assert not desk.keeper.failures

    run(test, old, answers=None)


def test_a_long_answer_of_an_unloaded_version_holds_up_no_other() -> None:
    old, other, new = wanted("old"), wanted("other"), wanted("new")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: len(desk.keeper.loaded) == 2)
        cell, answered = desk.keeper.cell, asyncio.Event()
        assert cell is not None

        async def unload(name: str, version: str) -> None:
            await answered.wait()

        cell.unload = unload  # type: ignore[method-assign]  # an answer that takes as long as the test says
        desk.keeper.assign([other, new])
        await desk.until(lambda: desk.keeper.loaded.keys() == {key(other), key(new)})
        desk.keeper.assign([other, new, old])  # again, while its last answer is still on its way
        await desk.until(lambda: key(old) in desk.keeper.loaded)
        desk.keeper.assign([])
        await asyncio.sleep(1)
        assert not cell.ended.is_set()
        answered.set()
        await desk.until(cell.ended.is_set)

    run(test, old, other, answers=None)


def test_the_end_of_a_giving_cell_is_not_the_end_of_the_tenants() -> None:
    one, shared = wanted("one"), wanted("shared", share=True)

    async def test(desk: Desk) -> None:
        await desk.until(lambda: key(one) in desk.keeper.loaded)
        cell = desk.keeper.cell
        desk.lost_givers = 1
        desk.keeper.assign([one, shared])
        await desk.until(lambda: key(shared) in desk.keeper.loaded)
        assert desk.keeper.cell is cell
        assert "failed" not in desk.states()
        assert len(desk.keeper.maps) == 1
        never = wanted("never", share=True)
        desk.lost_givers = 99
        desk.keeper.assign([one, never])
        await desk.until(lambda: desk.states()[-1] == "failed")
        assert desk.keeper.failures[key(never)].code == "load_killed"
        await desk.until(lambda: desk.keeper.maps == set())  # one failed, the other is unloaded
        assert desk.keeper.cell is cell

    run(test, one, answers=None)


def test_a_killed_cell_comes_back_with_everything_that_it_had() -> None:
    one, two = wanted("one"), wanted("two")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: len(desk.keeper.loaded) == 2)
        cell = desk.keeper.cell
        assert cell is not None
        os.kill(cell.pid, signal.SIGKILL)
        await desk.until(lambda: desk.keeper.cell is not cell and len(desk.keeper.loaded) == 2)
        assert "loading" in {report.state for report in desk.reports}
        assert desk.keeper.state == "ready"

    run(test, one, two, answers=None)


def test_a_cell_ends_when_nothing_is_wanted_of_it_any_more() -> None:
    one = wanted("one")

    async def test(desk: Desk) -> None:
        await desk.until(lambda: bool(desk.keeper.loaded))
        cell = desk.keeper.cell
        assert cell is not None
        desk.keeper.assign([])
        await desk.until(lambda: desk.keeper.state == "dead")
        assert cell.ended.is_set()
        assert not cell.path.exists()

    run(test, one, answers=None)
