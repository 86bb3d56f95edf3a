"""A whole node under its supervisor, whose processes are killed, and what must hold of a job afterwards.

`make proof` repeats each fault twenty times, each time at another moment of the work.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from strongroom import ids
from tests import servers
from tests.depth import TIMES
from tests.journeys import TERMINAL, Journey, command_line, lives, promised, training, until
from tests.nodes import Node, below

each_time = pytest.mark.parametrize(
    "time_number", [pytest.param(number, marks=[pytest.mark.proof] if number else []) for number in range(TIMES)]
)
EPOCHS = 800
NEW_ATTEMPT_SECONDS = 8.0
CANCEL_SECONDS = 1.0
BACK_SECONDS = 5.0
PACE_SECONDS = 8.0  # the supervisor gives up on what dies five times in half a minute
PROGRAMS = {"web", "worker", "agent", "scheduler"}
# What counts ended jobs and their outputs once: (question, answer)
LEFT = {"checkpoint": 0, "result": 0, "profile": 0}


def long_training(**sections: Any) -> dict[str, Any]:
    """The spec of every fault here: some seconds of work, a checkpoint each half second."""
    return training(epochs=EPOCHS, **sections)


@dataclass
class Loss:
    """A running job whose next loss is timed: what was there just before."""

    job: str
    step: int
    processes: list[int]
    at: float = field(default=0.0)


class Stand(Journey):
    """`manage.py up` with a broker of its own."""

    def __init__(self, node: Node, broker: servers.Redis | None) -> None:
        super().__init__(node)
        self.broker = broker
        self._killed: dict[str, float] = {}

    # --- processes

    def pid(self, name: str) -> int:
        """One of the four, `job` (the job's process) or `cell`."""
        return until(lambda: self._find(name), 30)

    def _find(self, name: str) -> int | None:
        pids = self.node.descendants()
        if name == "cell":
            zygotes = [pid for pid in pids if "inference.zygote" in command_line(pid) and below(pid)]
            return next((cell for zygote in zygotes for cell in below(zygote)), None)
        ending = "training.run" if name == "job" else f"manage.py {name}"
        return next((pid for pid in pids if command_line(pid).endswith(ending)), None)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> float:
        """When it was sent. What the process had started is gone soon after, and nothing of it is left."""
        pid = self.pid(name)
        if name in PROGRAMS:
            time.sleep(max(0.0, self._killed.get(name, -PACE_SECONDS) + PACE_SECONDS - time.monotonic()))
            self._killed[name] = time.monotonic()
        children = below(pid)
        at = time.time()
        os.kill(pid, number)
        if number == signal.SIGKILL:
            until(lambda: not any(lives(one) for one in [pid, *children]), 5)
        return at

    def whole(self) -> None:
        """All four run, and the front door answers with a model behind it."""
        for name in PROGRAMS:
            self.pid(name)
        until(lambda: self.node.status("/api/v1/health/ready") == 200, 60, 0.1)

    # --- jobs

    def running(self, time_number: int, **sections: Any) -> Loss:
        """A job that has sealed a checkpoint; in `make proof` each time a little later."""
        job = self.submit(long_training(**sections))
        attempts = until(lambda: [one for one in self.attempts(job) if one[2] is not None], 60)
        time.sleep(0.04 * time_number)
        newest = self.attempts(job)[-1]
        assert newest[:2] == attempts[-1][:2] == (1, None), "the job ended before its loss"
        return Loss(job, newest[2] or 0, [self.pid("job")])

    def went_on(self, loss: Loss, outcome: str, reference: dict[str, Any]) -> None:
        """The second attempt began in time, from the checkpoint, and made once what an unbroken run makes."""
        done = self.succeeded(loss.job)
        assert done["attempt"] == 2
        assert [one[:2] for one in self.attempts(loss.job)] == [(1, outcome), (2, "succeeded")]
        began = self.began(loss.job, 2)
        if outcome == "lost":  # from the process or worker that ended; one that hands back needs its time to stop
            assert began - loss.at <= promised(NEW_ATTEMPT_SECONDS), self.logs()
        self._from_checkpoint(loss)
        self.once(done, reference)
        assert not any(lives(pid) for pid in loss.processes), "a process of the lost attempt lives"

    def began(self, job: str, attempt: int) -> float:
        query = "SELECT started_at FROM jobs_attempt WHERE job_id = %s AND number = %s"
        return float(self.rows(query, ids.parse("job", job), attempt)[0][0].timestamp())

    def _from_checkpoint(self, loss: Loss) -> None:
        events = self.events(loss.job)
        second = next(n for n, (_, kind, data) in enumerate(events) if kind == "state" and data.get("attempt") == 2)
        steps = [data["step"] for _, kind, data in events[second:] if kind == "progress"]
        assert steps[0] >= loss.step > 0
        said = [line["text"] for line in self.pages(f"/api/v1/jobs/{loss.job}/logs")]
        assert any("goes on from epoch" in text for text in said), said
        told = [(data["name"], data["epoch"]) for _, kind, data in events if kind == "metric"]
        assert len(told) == len(set(told)), "a point of a curve is told twice"
        epochs = [epoch for name, epoch in told if name == "train/loss" and epoch is not None]
        assert sorted(set(range(1, EPOCHS + 1)) - set(epochs)) == [], "points of the curve are missing"

    def once(self, done: dict[str, Any], reference: dict[str, Any]) -> None:
        """One end, one version, one output, and the weights of the unbroken run."""
        job = ids.parse("job", done["id"])
        ends = [data for _, kind, data in self.events(done["id"]) if kind == "state" and data["state"] in TERMINAL]
        assert [end["state"] for end in ends] == ["succeeded"]
        versions = self.rows("SELECT number, artefact_id FROM registry_version WHERE job_id = %s", job)
        assert [number for number, _ in versions] == [done["result"]["version"]]
        models = self.rows("SELECT count(*) FROM vault_artefact WHERE kind = 'model' AND state = 'sealed'")[0][0]
        assert models == self.rows("SELECT count(*) FROM registry_version WHERE state <> 'deleted'")[0][0]
        kinds = self.rows("SELECT kind, count(*) FROM vault_artefact WHERE state = 'sealed' GROUP BY kind")
        assert {kind: count for kind, count in kinds if kind in LEFT} == {}
        version = self.get(f"/api/v1/models/{done['result']['model']}/versions/{done['result']['version']}").json
        assert version["lineage"]["spec_sha256"] == reference["lineage"]["spec_sha256"]
        assert version["lineage"]["weights_sha256"] == reference["lineage"]["weights_sha256"]
        assert version["metrics"] == reference["metrics"]
