"""A cell, the agent or web is killed while callers predict: each gets an answer, or a 503 with its time."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.edge.house import Answer
from tests.faults.stand import Stand, each_time
from tests.journeys import row, stream, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CALLERS = 6
DEADLINE_SECONDS = 10.0  # the deployment's, as tests/faults/conftest.py makes it
GRACE_SECONDS = 2.0  # the machine's own lateness


@dataclass
class Callers:
    """Threads that predict without a pause until they are told to stop."""

    stand: Stand
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    longest: float = 0.0

    def __enter__(self) -> Callers:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.answers) >= CALLERS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.answers.append(self.stand.predict("weather", timeout=60))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(f"{type(error).__name__} {error}")
                time.sleep(0.05)
            self.longest = max(self.longest, time.monotonic() - began)

    def answered(self, seconds: float = 30) -> None:
        """Until a call that began after now has come through."""
        seen = len(self.answers)
        until(lambda: any(answer.status == 200 for answer in self.answers[seen + CALLERS :]), seconds)

    def check(self) -> None:
        refused = [answer for answer in self.answers if answer.status != 200]
        assert {answer.status for answer in refused} <= {503}, [answer.body for answer in refused]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert {answer.code for answer in refused} <= {"engine_lost", "model_loading", "deadline_exceeded"}
        assert self.longest <= DEADLINE_SECONDS + GRACE_SECONDS


@each_time
def test_a_killed_cell_gives_every_caller_an_answer(stand: Stand, time_number: int) -> None:
    cell = stand.pid("cell")
    with Callers(stand) as callers:
        time.sleep(0.01 * time_number)
        stand.kill("cell")
        callers.answered()
    callers.check()
    assert not callers.broken
    assert stand.pid("cell") != cell


@each_time
def test_a_killed_agent_takes_its_cells_along_and_brings_them_back(stand: Stand, time_number: int) -> None:
    agent = stand.pid("agent")
    with Callers(stand) as callers:
        time.sleep(0.01 * time_number)
        stand.kill("agent")
        waiting = stand.post("/api/v1/predictions", {"deployment": "weather", "rows": [row()]})
        assert waiting.status == 202, waiting.body
        callers.answered()
    callers.check()
    assert not callers.broken
    assert stand.pid("agent") != agent
    accepted = f"/api/v1/predictions/{waiting.json['id']}"
    done: Any = until(lambda: [one for one in [stand.get(accepted, Prefer="wait=10").json] if one["finished_at"]])
    assert done[0]["state"] == "succeeded", (done[0], "what was accepted is done")


@each_time
def test_a_killed_web_comes_back_to_known_keys_and_running_jobs(stand: Stand, time_number: int) -> None:
    web = stand.pid("web")
    loss = stand.running(time_number)
    connection = http.client.HTTPConnection("127.0.0.1", stand.node.port, timeout=30)
    connection.request(
        "GET", f"/api/v1/jobs/{loss.job}/events", headers={"Authorization": f"Bearer {stand.keys['alpha']}"}
    )
    answer, body = connection.getresponse(), b""
    while b"id:" not in body.partition(b"\n\nid:")[2]:  # two events, the first one whole
        body += answer.read1(65536)
    with Callers(stand) as callers:
        stand.kill("web")
        connection.close()
        callers.answered(60)
    callers.check()
    assert callers.broken, "nobody was calling when web was killed"
    assert stand.pid("web") != web
    done = stand.succeeded(loss.job)
    assert done["attempt"] == 1, "the job did not notice"
    seen = stream(body[: body.rfind(b"\n\n") + 2])
    rest = stand.events(loss.job, seen[-1][0])
    assert [*seen, *rest] == stand.events(loss.job), "the stream goes on where it broke off"
    assert rest[-1][1:] == ("state", {"state": "succeeded", "attempt": 1, "result": rest[-1][2]["result"]})
