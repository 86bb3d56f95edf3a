"""Fifty streams of one key over two web processes, callers that leave, one process killed: not over-spent, little lost.

The model is tiny and real, in a real cell: what the cells say they made is what is added up here. Of answers whose end
nobody heard, what the callers had received counts, which is what was made at least.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest

from tests.edge.house import Answer, House
from tests.faults.stand import each_time
from tests.inference.language import tiny
from tests.nodes import Node, below

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CALLERS = 50
BUDGET = 200_000
USABLE = 0.95
SHORT = "Tell me of the sea and of the ships."
LONG = "the sea and the ships and the winds and the waves, " * 16
SERVE = """
from strongroom.deployments import services as deployments
from strongroom.registry import services as registry
from strongroom.vault import services as vault
artefact = vault.seal_bytes(tenant_id, "model", open({path!r}, "rb").read())
signature = {{"kind": "language", "context_length": {context}, "vocabulary": {vocabulary}}}
signature |= {{"chat": True, "tools": False}}
result = {{"signature": signature, "metrics": {{}}, "parameters": 100000, "evaluation": None}}
registry.register(name="tiny", task="generation", artefact=artefact, result=result, lineage={{}}, format="gguf")
versions = [{{"model": "tiny", "version": 1, "weight": 100, "mode": "live"}}]
deployments.deploy(SYSTEM, {{"name": "tiny", "versions": versions, "limits": {{"concurrency": 400}}}})
"""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """Two web processes and a tiny language model."""
    with Node() as node:
        found = House(node)
        found.tenant("alpha")
        node.start("web", "agent", web_processes="2")
        path = node.folder / "tiny.gguf"
        path.write_bytes(tiny.gguf())
        found.shell("alpha", SERVE.format(path=str(path), context=tiny.CONTEXT, vocabulary=len(tiny.TOKENS)))
        found.ready("alpha", "tiny")
        yield found


@dataclass
class Key:
    """A key with a budget, and what its callers were told."""

    house: House
    secret: str
    id: str
    told: int = 0  # by the cells, to callers that heard the end
    received: int = 0  # with the prompt, by callers that left or were left
    left: int = 0
    broken: int = 0
    refusals: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, house: House, **budget: Any) -> Key:
        made = house.post("/api/v1/keys", {"name": "budgeted", "scopes": ["predict"]}).json
        key = cls(house, made["secret"], made["id"])
        key.set(**budget)
        return key

    @property
    def path(self) -> str:
        return f"/api/v1/budgets/{self.id}"

    def set(self, **budget: Any) -> None:
        """Known to every process when it returns."""
        assert self.house.call("PUT", self.path, budget).status == 200
        time.sleep(1)  # a process hears of it within a second; a refusal says to come back after one

    @property
    def budget(self) -> dict[str, Any]:
        document: dict[str, Any] = self.house.get(self.path).json
        return document

    @property
    def made(self) -> int:
        return self.told + self.received

    def counted(self) -> dict[str, int]:
        """What the usage says of it."""
        rows = self.house.get(f"/api/v1/usage?key={self.id}&by=day").json["data"]
        return {name: sum(row[name] for row in rows) for name in ("tokens_in", "tokens_out", "tokens_cancelled")}

    @cached_property
    def prompt(self) -> int:
        """How many tokens the short one has."""
        return int(self.ask(SHORT, 1).json["usage"]["prompt_tokens"])

    def ask(self, text: str, max_tokens: int) -> Answer:
        document = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}
        answer = self.house.post("/v1/chat/completions", document, key=self.secret)
        if answer.status == 200:
            with self.lock:
                self.told += answer.json["usage"]["total_tokens"]
        return answer

    def stream(self, max_tokens: int, leave_after: int | None) -> None:
        """One stream, heard to its end or left after so many pieces."""
        connection = http.client.HTTPConnection("127.0.0.1", self.house.node.port, timeout=60)
        pieces, usage = 0, None
        try:
            messages = [{"role": "user", "content": SHORT}]
            document = {"model": "tiny", "messages": messages, "max_tokens": max_tokens, "stream": True}
            document["stream_options"] = {"include_usage": True}
            headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(document), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                self.refused(answer.status, answer.read())
                return
            for line in answer:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    usage = chunk.get("usage") or usage
                    pieces += sum(bool(choice["delta"].get("content")) for choice in chunk.get("choices", ()))
                    if leave_after is not None and pieces >= leave_after:
                        break
        except (OSError, http.client.HTTPException):
            with self.lock:
                self.broken += 1
        finally:
            connection.close()
        with self.lock:
            self.told += usage["total_tokens"] if usage else 0
            self.received += self.prompt + pieces if pieces and not usage else 0
            self.left += leave_after is not None and usage is None

    def refused(self, status: int, body: bytes) -> None:
        code = json.loads(body)["error"]["code"]
        with self.lock:
            self.refusals.append(f"{status} {code}")
        time.sleep(0.2)  # as a client that was refused, or between two looks

    def until_it_is_exhausted(self) -> None:
        """Large requests, then small ones, until both are refused for good."""
        for text, max_tokens in ((LONG, 16), (SHORT, 4)):
            ends = time.monotonic() + 90
            while (answer := self.ask(text, max_tokens)).json.get("error", {}).get("code") != "insufficient_quota":
                if answer.status != 200:
                    assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limit_exceeded"), answer.body
                    assert answer.headers["retry-after"] == "1"
                    time.sleep(1)  # a process hears of it within a second; a refusal says to come back after one
                assert time.monotonic() < ends, self.budget
            assert (answer.status, answer.headers["x-should-retry"]) == (429, "false")


def busiest(node: Node) -> int:
    """The server that holds the most connections: which one takes them is the kernel's to say."""
    return max(below(node.pid("web")), key=lambda pid: len(os.listdir(f"/proc/{pid}/fd")))


def quiet(key: Key) -> dict[str, Any]:
    """The budget once the processes have told everything."""
    ends = time.monotonic() + 45
    while (budget := key.budget)["reserved"]:
        assert time.monotonic() < ends, budget
        time.sleep(0.2)  # as a client that was refused, or between two looks
    time.sleep(2.5)  # the usage, too
    return key.budget


@each_time
def test_many_streams_and_a_killed_process_spend_the_budget_and_no_more(house: House, time_number: int) -> None:
    key = Key.of(house, tokens=BUDGET)
    assert key.prompt
    ends = time.monotonic() + 60  # on a slow machine

    def call(number: int) -> None:
        while key.made < 0.6 * BUDGET and time.monotonic() < ends:
            key.stream(40, leave_after=5 if number % 5 == 0 else None)

    callers = [threading.Thread(target=call, args=[number]) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    while key.made < (0.2 + 0.01 * time_number) * BUDGET:
        time.sleep(0.01)  # between two looks at what the callers count
    os.kill(busiest(house.node), signal.SIGKILL)
    for caller in callers:
        caller.join()
    assert key.left
    assert key.broken, "nobody was calling the process that was killed"
    assert set(key.refusals) <= {"429 rate_limit_exceeded"}, key.refusals
    assert 0 < key.made < BUDGET
    key.until_it_is_exhausted()
    budget, counted = quiet(key), key.counted()
    assert key.made <= budget["spent"]
    assert counted["tokens_in"] + counted["tokens_out"] <= budget["spent"] <= BUDGET
    assert counted["tokens_cancelled"] > 0
    assert key.made >= USABLE * BUDGET, (key.made, key.told, budget, counted)
    assert key.ask(SHORT, 4).status == 429


def test_what_is_told_to_the_callers_is_what_is_spent(house: House) -> None:
    key = Key.of(house, tokens=50_000, period="month")
    for _ in range(10):
        key.ask(SHORT, 20)
    key.ask(SHORT, 1000)  # more than the context leaves: refused, and nothing of it stays reserved
    budget, counted = quiet(key), key.counted()
    assert budget["spent"] == key.told == counted["tokens_in"] + counted["tokens_out"] > 0
    assert budget["remaining"] == 50_000 - key.told


def test_two_budgets_hold_the_narrower_one(house: House) -> None:
    key = Key.of(house, tokens=50_000)
    house.call("PUT", "/api/v1/budgets/tenant", {"tokens": 300, "period": "day"})
    try:
        time.sleep(1)  # a process hears of it within a second; a refusal says to come back after one
        while key.ask(SHORT, 8).status == 200:
            pass
        answer = key.ask(SHORT, 8)
        assert "the tenant's budget of 300 tokens a day" in answer.json["error"]["message"]
        budget = quiet(key)
        assert budget["spent"] == key.told <= 300
        assert house.get("/api/v1/budgets/tenant").json["spent"] == key.told
    finally:
        assert house.call("DELETE", "/api/v1/budgets/tenant").status == 204


def test_another_number_holds_in_every_process_within_a_second(house: House) -> None:
    key = Key.of(house, tokens=50_000)
    while sum(key.ask(SHORT, 4).status == 200 for _ in range(10)) < 10:
        pass
    key.set(tokens=10)
    assert {key.ask(SHORT, 4).status for _ in range(20)} == {429}
    assert house.call("DELETE", key.path).status == 204
    time.sleep(1)  # a process hears of it within a second; a refusal says to come back after one
    assert {key.ask(SHORT, 4).status for _ in range(20)} == {200}


def test_a_process_that_stops_in_order_gives_back_what_it_holds(house: House) -> None:
    key = Key.of(house, tokens=1_000_000)
    for _ in range(10):
        key.ask(SHORT, 4)
    held = key.budget
    assert held["reserved"] > 0
    assert house.node.stop("web") == 0
    house.node.start("web", web_processes="2")
    budget = key.budget
    assert (budget["spent"], budget["reserved"]) == (key.told, 0)
