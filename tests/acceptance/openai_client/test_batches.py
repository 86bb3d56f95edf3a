"""Batches by OpenAI's unmodified client: a file of requests in, a file of answers out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types import Batch, Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from strongroom import ids
from tests.edge.openai.oracle import fits
from tests.journeys import Journey, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "cancelled", "expired")
Endpoint = Any  # the client's literal


def request(id: str, endpoint: str = CHAT, **body: Any) -> dict[str, Any]:
    return {"custom_id": id, "method": "POST", "url": endpoint, "body": body}


def asking(id: str, text: str = "Say a number.", **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return request(id, model="smollm2", messages=[message], temperature=0, max_tokens=6, **more)


def written(lines: list[Any]) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def begun(client: OpenAI, lines: list[Any], endpoint: Endpoint = CHAT, **more: Any) -> Batch:
    file = client.files.create(file=("in.jsonl", written(lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(client: OpenAI, batch: Batch, seconds: float = 120) -> Batch:
    ends = time.monotonic() + seconds
    while (found := client.batches.retrieve(batch.id)).status not in ENDED:
        assert time.monotonic() < ends, found
        time.sleep(0.1)  # between two polls, as a client does
    return found


def read(client: OpenAI, id: str | None) -> list[dict[str, Any]]:
    """The lines of one of the two files; none where there is no file."""
    if id is None:
        return []
    return [json.loads(line) for line in client.files.content(id).text.splitlines()]


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def test_twenty_chats_are_answered(client: OpenAI, house: Journey) -> None:
    made = begun(client, [asking(f"n{n}", f"What is {n} + {n}?") for n in range(20)], metadata={"of": "sums"})
    assert (made.object, made.endpoint, made.completion_window) == ("batch", CHAT, "24h")
    assert made.status == "validating"
    assert made.metadata == {"of": "sums"}
    assert made.expires_at == made.created_at + 86_400
    done = ended(client, made)
    assert done.status == "completed", f"{done}\n{house.logs()}"
    assert counts(done) == (20, 20, 0)
    assert done.error_file_id is None
    assert done.errors is None
    for moment in (done.in_progress_at, done.finalizing_at, done.completed_at):
        assert moment is not None
    found = {line["custom_id"]: line for line in read(client, done.output_file_id)}
    assert set(found) == {f"n{n}" for n in range(20)}
    for line in found.values():
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        answer: ChatCompletion = fits(ChatCompletion, line["response"]["body"])
        assert answer.choices[0].message.content
        assert answer.model == "smollm2"
    alone = client.chat.completions.create(**asking("x", "What is 3 + 3?")["body"])
    assert alone.usage is not None
    usage = found["n3"]["response"]["body"]["usage"]
    assert usage["prompt_tokens"] == alone.usage.prompt_tokens
    output = client.files.retrieve(str(done.output_file_id))
    assert (output.purpose, output.filename) == ("batch_output", f"{done.id}_output.jsonl")


def test_broken_lines_are_named_and_the_others_answered(client: OpenAI) -> None:
    lines = [
        asking("good"),
        b"{not json",
        b"",
        {"method": "POST", "url": CHAT, "body": {}},
        asking("streams", stream=True),
        asking("hot") | {"body": asking("hot")["body"] | {"temperature": 9}},
        {"custom_id": "got", "method": "GET", "url": CHAT, "body": {"model": "smollm2"}},
        asking("odd") | {"colour": "red"},
        b'{"custom_id": "' + b"x" * (2 << 20) + b'"}',
        asking("long", "word " * 20_000),
        asking("also-good"),
    ]
    done = ended(client, begun(client, lines))
    assert (done.status, counts(done)) == ("completed", (10, 2, 8))
    assert {line["custom_id"] for line in read(client, done.output_file_id)} == {"good", "also-good"}
    wrong = read(client, done.error_file_id)
    by_id = {line["custom_id"]: line for line in wrong if line["custom_id"]}
    unnamed = [line["error"] for line in wrong if line["custom_id"] is None]
    assert sorted(error["message"].partition(":")[0] for error in unnamed) == ["line 2", "line 4", "line 9"]
    assert {error["code"] for error in unnamed} == {"invalid_json_line", "missing_required_parameter", "line_too_long"}
    for id, param in (("streams", "stream"), ("hot", "temperature"), ("long", None)):
        response = by_id[id]["response"]
        assert response["status_code"] == 400
        assert param is None or response["body"]["error"]["param"] == param
    assert by_id["long"]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert "method" in by_id["got"]["error"]["message"]
    assert "colour" in by_id["odd"]["error"]["message"]


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        ([b"hello", b"{}"], "invalid_json_line", 1),
        ([b"", b" "], "empty_file", None),
        ([asking("a"), asking("b"), asking("a")], "duplicate_custom_id", 3),
        ([asking("a"), request("b", "/v1/completions", model="smollm2", prompt="x")], "mismatched_url", 2),
        ([asking("a"), request("b", model="minilm", messages=[])], "mismatched_model", 2),
        ([request("a", model="nothing", messages=[])], "model_not_found", 1),
        ([b"", request("a", model="minilm", messages=[])], "invalid_value", 2),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_fails_and_says_where(
    client: OpenAI, lines: list[Any], code: str, line: int | None
) -> None:
    done = ended(client, begun(client, lines))
    assert done.status == "failed"
    assert done.failed_at is not None
    assert done.errors is not None
    assert done.errors.data
    problem = done.errors.data[0]
    assert (problem.code, problem.line) == (code, line), problem
    assert problem.message
    assert (done.output_file_id, done.error_file_id) == (None, None)


def test_the_other_endpoints_answer_as_they_do_at_once(client: OpenAI) -> None:
    texts = ["A cat sits on the mat.", "The stock market fell on Monday."]
    encoded = begun(
        client,
        [request(f"e{n}", "/v1/embeddings", model="minilm", input=text) for n, text in enumerate(texts)],
        "/v1/embeddings",
    )
    legacy = begun(
        client,
        [request("c", "/v1/completions", model="smollm2", prompt=["Once", "Twice"], max_tokens=4)],
        "/v1/completions",
    )
    newer = begun(
        client,
        [request("r", "/v1/responses", model="smollm2", input="Say hello.", max_output_tokens=16)],
        "/v1/responses",
    )
    found = read(client, ended(client, encoded).output_file_id)
    vectors = {line["custom_id"]: fits(CreateEmbeddingResponse, line["response"]["body"]) for line in found}
    at_once = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    for n in range(2):
        np.testing.assert_allclose(vectors[f"e{n}"].data[0].embedding, at_once.data[n].embedding, atol=1e-5)
    (line,) = read(client, ended(client, legacy).output_file_id)
    assert len(fits(Completion, line["response"]["body"]).choices) == 2
    (line,) = read(client, ended(client, newer).output_file_id)
    assert Response.model_validate(line["response"]["body"]).output_text


def test_a_batch_that_is_cancelled_keeps_what_it_has(client: OpenAI) -> None:
    many = [asking(f"n{n}", max_completion_tokens=64, ignore_eos=True) for n in range(2000)]
    for line in many:
        line["body"].pop("max_tokens")
    made = begun(client, many)
    until(lambda: counts(client.batches.retrieve(made.id))[1] > 0, 60)
    with pytest.raises(ConflictError):
        client.files.delete(made.input_file_id)
    asked = client.batches.cancel(made.id)
    assert asked.status in ("cancelling", "cancelled")
    assert asked.cancelling_at is not None
    done = ended(client, made, 30)
    assert done.status == "cancelled"
    assert done.cancelled_at is not None
    total, completed, failed = counts(done)
    assert (total, failed) == (2000, 0)
    assert 0 < completed < 2000
    assert len(read(client, done.output_file_id)) == completed
    assert done.error_file_id is None
    assert client.batches.cancel(made.id).status == "cancelled"
    assert client.files.delete(made.input_file_id).deleted


def test_a_finished_batch_cannot_be_cancelled(client: OpenAI) -> None:
    done = ended(client, begun(client, [asking("a")]))
    with pytest.raises(ConflictError):
        client.batches.cancel(done.id)


def test_the_client_turns_the_pages(client: OpenAI) -> None:
    made = [begun(client, [b"x"]).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=2)][:3] == made[::-1]


def test_another_tenant_sees_nothing_of_it(client: OpenAI, house: Journey) -> None:
    done = ended(client, begun(client, [asking("secret-id")], metadata={"secret": "metadata"}))
    other = OpenAI(api_key=house.keys["beta"], base_url=f"{house.node.url}/v1", max_retries=0)
    assert list(other.batches.list()) == []
    theirs: list[Callable[[], Any]] = [
        lambda: other.batches.retrieve(done.id),
        lambda: other.batches.cancel(done.id),
        lambda: other.files.content(str(done.output_file_id)),
        lambda: other.batches.create(input_file_id=done.input_file_id, endpoint=CHAT, completion_window="24h"),
    ]
    for call in theirs:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert "secret" not in caught.value.message
    assert other.files.list().data == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"extra_body": {"priority": 1}}, "priority"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_at_once(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    file = client.files.create(file=("in.jsonl", written([asking("a")])), purpose="batch")
    asked: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | changes
    with pytest.raises(BadRequestError) as caught:
        client.batches.create(**asked)
    assert caught.value.param == param


def test_a_file_for_something_else_is_refused_by_name(client: OpenAI) -> None:
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    file = client.files.create(file=("t.jsonl", written([talk])), purpose="fine-tune")
    with pytest.raises(BadRequestError, match="purpose") as caught:
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"
    with pytest.raises(NotFoundError) as absent:
        client.batches.create(input_file_id="file_nothing", endpoint=CHAT, completion_window="24h")
    assert absent.value.param == "input_file_id"


def test_the_answers_end_when_they_were_told_to(client: OpenAI) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    done = ended(client, begun(client, [asking("a")], output_expires_after=expiry))
    output = client.files.retrieve(str(done.output_file_id))
    assert output.expires_at is not None
    assert 3500 < output.expires_at - output.created_at <= 3600


def test_a_bound_key_asks_its_own_models_only(client: OpenAI, house: Journey) -> None:
    open_batch = ended(client, begun(client, [asking("a")]))
    secret = house.key("predict", allowed_models=["minilm"])
    with OpenAI(api_key=secret, base_url=f"{house.node.url}/v1", max_retries=0) as bound:
        done = ended(bound, begun(bound, [asking("a")]))
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data
        assert done.errors.data[0].code == "model_not_allowed"
        with pytest.raises(NotFoundError):
            bound.batches.retrieve(open_batch.id)
        with pytest.raises(APIStatusError) as caught:
            bound.files.content(str(open_batch.output_file_id))
        assert caught.value.status_code == 403
        assert open_batch.id not in {batch.id for batch in bound.batches.list()}


def test_what_a_batch_used_is_counted_for_its_key(client: OpenAI, house: Journey) -> None:
    made = house.post("/api/v1/keys", {"name": "batch", "scopes": ["predict"]}).json
    with OpenAI(api_key=made["secret"], base_url=f"{house.node.url}/v1", max_retries=0) as own:
        done = ended(own, begun(own, [asking(f"n{n}") for n in range(5)]))
        bodies = [line["response"]["body"] for line in read(own, done.output_file_id)]
    tokens = sum(body["usage"]["completion_tokens"] for body in bodies)
    prompts = sum(body["usage"]["prompt_tokens"] for body in bodies)

    def used() -> list[int]:
        query = "SELECT tokens_in, tokens_out, calls FROM metering_usage WHERE principal_id = %s"
        rows = house.rows(query, ids.parse("key", made["id"]))
        return [sum(row[place] for row in rows) for place in range(3)]

    until(lambda: used() == [prompts, tokens, 5], 15)


def test_a_budget_bounds_a_batch_line_by_line(client: OpenAI, house: Journey) -> None:
    made = house.post("/api/v1/keys", {"name": "poor", "scopes": ["predict"]}).json
    budget = house.call("PUT", f"/api/v1/budgets/{made['id']}", {"tokens": 150, "period": None})
    assert budget.status in (200, 201)
    with OpenAI(api_key=made["secret"], base_url=f"{house.node.url}/v1", max_retries=0) as poor:
        done = ended(poor, begun(poor, [asking(f"n{n}") for n in range(20)]))
        assert done.status == "completed"
        _, completed, failed = counts(done)
        assert completed >= 1
        assert failed >= 10
        for line in read(poor, done.error_file_id):
            assert line["response"]["status_code"] == 429
            assert line["response"]["body"]["error"]["code"] == "insufficient_quota"
    spent = house.get(f"/api/v1/budgets/{made['id']}").json
    assert spent["spent"] + spent["reserved"] <= 150


def test_asynchronously_it_is_the_same(house: Journey) -> None:
    async def walk() -> None:
        async with AsyncOpenAI(api_key=house.keys["alpha"], base_url=f"{house.node.url}/v1", max_retries=0) as client:
            file = await client.files.create(file=("in.jsonl", written([asking("a")])), purpose="batch")
            batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            while batch.status not in ENDED:
                await asyncio.sleep(0.1)
                batch = await client.batches.retrieve(batch.id)
            assert batch.status == "completed"
            assert "a" in (await client.files.content(str(batch.output_file_id))).text
            assert batch.id in {one.id async for one in client.batches.list(limit=1)}

    asyncio.run(walk())
