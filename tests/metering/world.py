"""Processes that reserve from one budget while anything may happen to them and to their database: a state machine.

Time is the machine's own. What asks the database waits until a rule has it answered: heard, failed before anything was
written, written but not heard of, or given up while its thread still comes through later. The books kept here are the
worst case: what a killed process had reserved was made to the last token.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import OperationalError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from strongroom import ids
from strongroom.errors import StrongroomError, Unavailable
from strongroom.metering.budgets import Limit
from strongroom.metering.leases import Leases, Reservation
from strongroom.metering.ledger import Account, Order, Told, begins, ends

START = datetime(2026, 11, 29, 23, 58, tzinfo=UTC)
HOW = st.sampled_from(["heard", "heard", "heard", "failed", "unheard", "abandoned"])
WHICH = st.integers(0, 1000)
TOKENS = st.integers(1, 20) | st.integers(1, 300)


@dataclass(eq=False)
class Use:
    """One reservation, and what came of it."""

    reservation: Reservation
    window: datetime
    made: int


@dataclass(eq=False)
class Process:
    leases: Leases
    open: list[Use] = field(default_factory=list)
    asking: list[asyncio.Task[Reservation]] = field(default_factory=list)
    is_cut: bool = False


@dataclass(eq=False)
class Question:
    process: Process
    answer: asyncio.Future[list[Told]]
    orders: Sequence[Order]


class Memory:
    """The database: one budget's row and its leases."""

    def __init__(self, tokens: int, period: str | None) -> None:
        self.limit = Limit(ids.new(), ids.new(), None, tokens, period)
        self.now = START
        self.window_start = begins(period, START, START)
        self.account = Account(tokens, self.window_start)
        self.settled = 0  # of this window, without the process's word

    def report(self, orders: Sequence[Order]) -> list[Told]:
        return [self._take(order) for order in orders]

    def change(self, tokens: int) -> None:
        self.account.tokens = tokens
        self.limit = Limit(self.limit.id, self.limit.tenant_id, None, tokens, self.limit.period)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        start = begins(self.limit.period, self.now, self.window_start)
        if start > self.window_start:
            self.window_start, self.account, self.settled = start, Account(self.account.tokens, start), 0

    def _take(self, order: Order) -> Told:
        spent = self.account.spent
        self.account.settle(self.now, but=order.lease)
        self.settled += self.account.spent - spent
        told = self.account.take(order, self.now)
        end = ends(self.limit.period, self.window_start)
        seconds = None if end is None else (end - self.now).total_seconds()
        return replace(told, window_end=end, window_seconds=seconds)

    @property
    def spent(self) -> int:
        return self.account.spent_so_far

    @property
    def reserved(self) -> int:
        return self.account.reserved


class Processes(RuleBasedStateMachine):
    """`open_database` says on what; everything runs on the loop that `rule`s step."""

    def open_database(self, tokens: int, period: str | None) -> Any:
        return Memory(tokens, period)

    @initialize(tokens=st.integers(0, 2000) | st.just(1000), period=st.sampled_from([None, "day", "month"]))
    def begin(self, tokens: int, period: str | None) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = 0.0
        self.database = self.open_database(tokens, period)
        self.most = tokens  # that the budget ever was in this window
        self.limit = self.database.limit  # as the processes know it
        self.uses: list[Use] = []
        self.questions: list[Question] = []
        self.late: list[Sequence[Order]] = []
        self.processes: list[Process] = []
        for _ in range(2):
            self.start()

    # --- the processes

    @precondition(lambda self: len(self.processes) < 4)
    @rule()
    def start(self) -> None:
        self.processes.append(Process(Leases(self.database.report, lambda: self.clock)))

    @rule(which=WHICH, tokens=TOKENS, count=st.sampled_from([1, 1, 2, 4]))
    def ask(self, which: int, tokens: int, count: int = 1) -> None:
        process = self.process(which)
        for _ in range(count):
            run = functools.partial(self.run, process)
            process.asking.append(self.loop.create_task(process.leases.reserve([self.limit], tokens, run)))

    @rule(which=WHICH, tokens=TOKENS)
    def ask_and_hear(self, which: int, tokens: int) -> None:
        self.ask(which, tokens)
        self.all_is_answered()

    @rule(which=WHICH)
    def ask_for_all_that_is_left(self, which: int) -> None:
        """Then nothing may be left anywhere else."""
        left = self.database.limit.tokens - self.database.spent - self.database.reserved
        if left > 0:
            self.ask_and_hear(which, left)

    @precondition(lambda self: self.questions)
    @rule()
    def all_is_answered(self) -> None:
        for _ in range(300):
            self.step()
            if not self.questions:
                return
            self.answer(0, "heard")
        raise AssertionError("the processes never stop asking")

    @precondition(lambda self: self.questions)
    @rule(which=WHICH, how=HOW)
    def answer(self, which: int, how: str) -> None:
        question = self.questions.pop(which % len(self.questions))
        if how == "abandoned":
            self.late.append(question.orders)
            question.answer.set_exception(Unavailable("too slow", code="database_unavailable"))
        elif how == "failed":
            question.answer.set_exception(OperationalError())
        else:
            told = self.database.report(question.orders)
            if how == "unheard":
                question.answer.set_exception(OperationalError())
            else:
                question.answer.set_result(told)

    @precondition(lambda self: self.late)
    @rule(which=WHICH)
    def a_thread_comes_through_late(self, which: int) -> None:
        self.database.report(self.late.pop(which % len(self.late)))

    @precondition(lambda self: any(process.asking for process in self.processes))
    @rule(which=WHICH)
    def a_caller_leaves(self, which: int) -> None:
        asking = [task for process in self.processes for task in process.asking]
        asking[which % len(asking)].cancel()

    @precondition(lambda self: any(process.open for process in self.processes))
    @rule(which=WHICH, part=st.floats(0, 1) | st.none())
    def an_answer_ends(self, which: int, part: float | None) -> None:
        """None: a cell is lost, and with it what it made."""
        running = [(process, use) for process in self.processes for use in process.open]
        process, use = running[which % len(running)]
        process.open.remove(use)
        used = None if part is None else int(use.reservation.tokens * part)
        use.made = use.reservation.tokens if used is None else used
        use.reservation.settle(used)
        use.reservation.settle(0)  # a second word changes nothing

    @rule(which=WHICH)
    def flush(self, which: int) -> None:
        """As it goes when all is well."""
        process = self.process(which)
        process.is_cut = False
        if process.leases.cut():
            process.leases.send()

    @rule(which=WHICH)
    def cut(self, which: int) -> None:
        process = self.process(which)
        process.is_cut = process.leases.cut()

    @precondition(lambda self: any(process.is_cut for process in self.processes))
    @rule(which=WHICH, how=st.sampled_from(["heard", "heard", "failed", "unheard"]))
    def send(self, which: int, how: str) -> None:
        cut = [process for process in self.processes if process.is_cut]
        process = cut[which % len(cut)]
        process.is_cut = False
        real = process.leases._report

        def report(orders: Sequence[Order]) -> list[Told]:
            if how == "unheard":
                real(orders)
            raise OperationalError

        try:
            process.leases._report = real if how == "heard" else report
            process.leases.send()
        except OperationalError:
            assert how != "heard"
        finally:
            process.leases._report = real

    @precondition(lambda self: len(self.processes) > 1)
    @rule(which=WHICH)
    def kill(self, which: int) -> None:
        """Its cells made all that it had asked for; what its threads had sent may come through yet."""
        process = self.process(which)
        self.processes.remove(process)
        self.late += [question.orders for question in self.questions if question.process is process]
        self.questions = [question for question in self.questions if question.process is not process]
        ending: list[asyncio.Future[Any]] = [*process.asking, *process.leases._asking]
        for task in ending:
            task.cancel()
        self.step()

    # --- the world

    @rule(seconds=st.sampled_from([0.3, 2.0, 2.0, 11.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds
        window = self.database.window_start
        self.database.pass_time(seconds)
        if self.database.window_start != window:
            self.most = self.database.limit.tokens

    @rule(tokens=st.integers(0, 2000), is_heard=st.booleans())
    def somebody_sets_another_number(self, tokens: int, is_heard: bool) -> None:
        self.database.change(tokens)
        self.most = max(self.most, tokens)
        self.limit = self.database.limit if is_heard else self.limit

    @precondition(lambda self: self.limit != self.database.limit)
    @rule()
    def the_processes_hear_of_the_number(self) -> None:
        self.limit = self.database.limit

    @invariant()
    def nothing_is_over_spent(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.step()
        assert self.made() <= self.most

    # --- the end

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.everything_comes_back()
        finally:
            self.loop.close()

    def everything_comes_back(self) -> None:
        """Once all is quiet, what is spent is what was made, and what was settled without a word of its process."""
        while self.late:
            self.a_thread_comes_through_late(0)
        self.all_is_answered()
        for process in self.processes:
            while process.open:
                self.an_answer_ends(0, 0.0)
            for _ in range(10):
                if not process.leases.cut():
                    break
                process.leases.send()
            else:
                raise AssertionError("there is always something to tell")
        self.time_passes(31.0)
        self.start()
        self.ask(-1, 1)  # whoever asks settles what nobody renews
        self.step()
        self.all_is_answered()
        last = self.processes[-1]
        for use in last.open:
            use.made = 0
            use.reservation.settle(0)
        while last.leases.cut():
            last.leases.send()
        assert self.database.reserved == 0
        assert self.database.spent <= self.made() + self.database.settled

    # --- looking

    def process(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    async def run(self, process: Process, call: Any, orders: Sequence[Order]) -> list[Told]:
        question = Question(process, self.loop.create_future(), orders)
        self.questions.append(question)
        return await question.answer

    def step(self) -> None:
        """All that can go on goes on; reservations that were made are written down."""
        while True:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            if not self.loop._ready:  # type: ignore[attr-defined]  # asyncio has no public word for "nothing left to do"
                break
        for process in self.processes:
            for task in [task for task in process.asking if task.done()]:
                process.asking.remove(task)
                if task.cancelled():
                    continue
                if task.exception() is None:
                    use = Use(task.result(), self.database.window_start, task.result().tokens)
                    process.open.append(use)
                    self.uses.append(use)
                else:
                    assert isinstance(task.exception(), StrongroomError), task.exception()

    def made(self) -> int:
        """In this window, at worst."""
        return sum(use.made for use in self.uses if use.window == self.database.window_start)
