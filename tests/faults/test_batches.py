"""Batches while things break: a killed worker, one that drains, a killed cell, a key that ends, a window that closes.

The model is tiny and real, in a real cell. However an attempt ends, each line is answered once in what is kept.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom import ids
from tests.edge.house import stored_files
from tests.faults.test_budget import SERVE
from tests.inference.language import tiny
from tests.journeys import Journey, until
from tests.nodes import Node, below

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "cancelled", "expired")
BOUNDARY = "batch-boundary"
LINES = 2000


@pytest.fixture(scope="module")
def house() -> Iterator[Journey]:
    with Node(settings={"STRONGROOM_JOBS_PER_WORKER": "1"}) as node:
        found = Journey(node)
        found.tenant("alpha")
        node.start()
        path = node.folder / "tiny.gguf"
        path.write_bytes(tiny.gguf())
        found.shell("alpha", SERVE.format(path=str(path), context=tiny.CONTEXT, vocabulary=len(tiny.TOKENS)))
        found.ready("alpha", "tiny")
        yield found


def line(id: str, tokens: int = 24) -> bytes:
    message = {"role": "user", "content": "Tell me of the sea."}
    body = {"model": "tiny", "messages": [message], "max_completion_tokens": tokens, "ignore_eos": True}
    return json.dumps({"custom_id": id, "method": "POST", "url": CHAT, "body": body}).encode() + b"\n"


def begun(house: Journey, lines: int = LINES, key: str = "alpha") -> str:
    """The batch's id."""
    content = b"".join([line(f"n{n}") for n in range(lines)])
    said = [(b'name="purpose"', b"batch"), (b'name="file"; filename="in.jsonl"', content)]
    mark = BOUNDARY.encode()
    form = b"".join(b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (mark, *part) for part in said)
    headers = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}
    file = house.post("/v1/files", form + b"--%b--\r\n" % mark, key=key, **headers)
    assert file.status == 200, file.body
    asked = {"input_file_id": file.json["id"], "endpoint": CHAT, "completion_window": "24h"}
    made = house.post("/v1/batches", asked, key=key)
    assert made.status == 200, made.body
    return str(made.json["id"])


def batch(house: Journey, id: str) -> Any:
    answer = house.get(f"/v1/batches/{id}")
    assert answer.status == 200, answer.body
    return answer.json


def ended(house: Journey, id: str, seconds: float = 90) -> Any:
    return until(lambda: found if (found := batch(house, id))["status"] in ENDED else None, seconds, 0.1)


def under_way(house: Journey, id: str, count: int = 20) -> None:
    until(lambda: batch(house, id)["request_counts"]["completed"] >= count, 60)
    assert batch(house, id)["status"] == "in_progress"


def read(house: Journey, id: str | None) -> list[Any]:
    if id is None:
        return []
    answer = house.get(f"/v1/files/{id}/content")
    assert answer.status == 200, answer.body
    return [json.loads(one) for one in answer.body.splitlines()]


def outcomes(house: Journey, id: str) -> list[str | None]:
    return [outcome for _, outcome, _ in house.attempts(id.replace("batch_", "job_"))]


def all_are_answered_once(house: Journey, done: Any) -> None:
    assert done["status"] == "completed", (done, house.logs())
    assert done["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert sorted(one["custom_id"] for one in read(house, done["output_file_id"])) == sorted(
        f"n{n}" for n in range(LINES)
    )
    assert done["error_file_id"] is None


def test_after_a_killed_worker_the_batch_begins_anew_and_is_whole(house: Journey) -> None:
    id = begun(house)
    under_way(house, id)
    house.node.kill("worker")
    house.node.start("worker")
    all_are_answered_once(house, ended(house, id))
    assert outcomes(house, id) == ["lost", "succeeded"]


def test_a_worker_that_stops_hands_the_batch_back(house: Journey) -> None:
    before = set(stored_files(house.node))
    id = begun(house)
    under_way(house, id)
    house.node.stop("worker")
    assert batch(house, id)["status"] == "validating"
    assert len(set(stored_files(house.node)) - before) == 1, "more than the input is kept"
    house.node.start("worker")
    all_are_answered_once(house, ended(house, id))
    assert outcomes(house, id) == ["drained", "succeeded"]


def test_a_killed_cell_costs_no_line(house: Journey) -> None:
    id = begun(house)
    under_way(house, id)
    cells = [pid for pid in below(house.node.pid("agent")) if _is_cell(pid)]
    assert cells
    for pid in cells:
        os.kill(pid, signal.SIGKILL)
    all_are_answered_once(house, ended(house, id))
    assert outcomes(house, id) == ["succeeded"]


def _is_cell(pid: int) -> bool:
    """The youngest below the agent: the zygote's children."""
    with open(f"/proc/{pid}/stat") as stat:
        parent = int(stat.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{parent}/cmdline", "rb") as line:
        return b"zygote" in line.read()


def test_a_key_that_is_revoked_asks_nothing_more(house: Journey) -> None:
    made = house.post("/api/v1/keys", {"name": "ends", "scopes": ["predict"]}).json
    id = begun(house, 6000, key=made["secret"])
    under_way(house, id)
    assert house.call("DELETE", f"/api/v1/keys/{made['id']}").status == 204
    done = ended(house, id)
    assert done["status"] == "completed"
    total, completed, failed = (done["request_counts"][name] for name in ("total", "completed", "failed"))
    assert total == completed + failed == 6000
    assert 20 <= completed < 6000
    refused = read(house, done["error_file_id"])
    assert {one["response"]["status_code"] for one in refused} == {401}
    assert {one["response"]["body"]["error"]["code"] for one in refused} == {"invalid_api_key"}


def test_the_window_closes_on_what_was_not_answered_by_then(house: Journey) -> None:
    worker = house.node.pid("worker")
    os.kill(worker, signal.SIGSTOP)  # up, and takes nothing until the batch is old
    id = begun(house, 6000)
    house.shell("alpha", _AGED.format(job=str(ids.parse("batch", id)), left=6))
    os.kill(worker, signal.SIGCONT)
    done = ended(house, id)
    assert done["status"] == "expired", (done, house.logs())
    assert done["expired_at"] is not None
    counts = done["request_counts"]
    assert counts["completed"] + counts["failed"] == counts["total"] == 6000
    assert 0 < counts["completed"] < 6000
    assert len(read(house, done["output_file_id"])) == counts["completed"]
    assert {one["error"]["code"] for one in read(house, done["error_file_id"])} == {"batch_expired"}


_AGED = """
from datetime import timedelta
from django.utils import timezone
from strongroom.jobs.models import Job
Job.objects.filter(id={job!r}).update(created_at=timezone.now() - timedelta(hours=24) + timedelta(seconds={left}))
"""


def test_a_rate_holds_a_batch_up_without_any_work(house: Journey) -> None:
    def worked() -> float:
        fields = Path(f"/proc/{house.node.pid('worker')}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    path = "/api/v1/deployments/tiny"
    assert house.call("PATCH", path, {"limits": {"requests_per_second": 2}}).status == 200
    try:
        id = begun(house, 12)
        under_way(house, id, 1)
        began, before = time.monotonic(), worked()
        done = ended(house, id)
        assert done["request_counts"]["completed"] == 12
        assert worked() - before < 0.4 * (time.monotonic() - began)
    finally:
        assert house.call("PATCH", path, {"limits": {"requests_per_second": None}}).status == 200


def test_a_batch_is_cancelled_within_a_second_or_two(house: Journey) -> None:
    id = begun(house, 6000)
    under_way(house, id)
    began = time.monotonic()
    assert house.post(f"/v1/batches/{id}/cancel").status == 200
    done = ended(house, id, 20)
    assert done["status"] == "cancelled"
    assert time.monotonic() - began < 5
    assert len(read(house, done["output_file_id"])) == done["request_counts"]["completed"] > 0


def test_a_deployment_that_stops_answers_the_rest_with_its_absence(house: Journey) -> None:
    """The last of this file: nothing is served any more."""
    id = begun(house, 6000)
    under_way(house, id)
    assert house.call("DELETE", "/api/v1/deployments/tiny").status in (202, 204)
    done = ended(house, id)
    assert done["status"] == "completed"
    refused = read(house, done["error_file_id"])
    assert refused
    assert {one["response"]["status_code"] for one in refused} <= {404, 503}
    assert "model_not_found" in {one["response"]["body"]["error"]["code"] for one in refused}
