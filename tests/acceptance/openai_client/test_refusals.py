"""What is wrong with a request, in OpenAI's own shape and the class that its client raises for it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from tests.acceptance.openai_client.conftest import deployed
from tests.journeys import Journey, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HELLO: Any = [{"role": "user", "content": "Hello"}]
DEEP: Any = {"type": "object"}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


def schema(of: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": of}}


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "wizard"),
        ({"temperature": 9}, "temperature", "2"),
        ({"stop": ["x"] * 1000}, "stop", "1000"),
        ({"extra_body": {"temprature": 1}}, "temprature", "temperature"),
        ({"extra_body": {"store": True}}, "store", "kept"),
        ({"max_tokens": 100_000}, "messages", "8192"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages", "8192"),
        ({"response_format": schema(DEEP)}, "response_format.json_schema.schema", "deep"),
        ({"response_format": schema({"$ref": "http://example.org/x"})}, None, ""),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "chat template"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "token id"),
    ],
    ids=lambda value: None if not isinstance(value, dict) else next(iter(value)),
)
def test_a_bad_request_names_the_parameter_and_the_remedy(
    client: OpenAI, changes: Any, param: str | None, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "smollm2", "messages": HELLO} | changes)
    assert said in str(caught.value)
    if param is not None:
        assert caught.value.param == param, caught.value.body


def test_a_context_overflow_names_both_numbers(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=8192)
    assert caught.value.code == "context_length_exceeded"
    assert "8192" in str(caught.value)
    assert "maximum context length" in str(caught.value)


def test_bytes_that_are_no_utf_8_are_refused(house: Journey) -> None:
    body = b'{"model": "smollm2", "messages": [{"role": "user", "content": "\xff\xfe"}]}'
    answer = house.call("POST", "/v1/chat/completions", body, Content_Type="application/json")
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


def test_keys_scopes_and_deployments_are_as_for_every_face(house: Journey) -> None:
    def ask(key: str) -> None:
        with OpenAI(api_key=key, base_url=f"{house.node.url}/v1", max_retries=0) as client:
            client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=1)

    ask(house.key("predict", allowed_models=["smollm2"]))
    with pytest.raises(openai.PermissionDeniedError, match="deployment"):
        ask(house.key("predict", allowed_models=["minilm"]))
    with pytest.raises(openai.PermissionDeniedError, match="predict"):
        ask(house.key("models:read"))
    with pytest.raises(openai.AuthenticationError):
        ask("sr_nonsense")
    with pytest.raises(openai.NotFoundError) as caught:
        ask(house.keys["beta"])
    assert caught.value.code == "model_not_found"


def test_a_model_of_arrays_or_vectors_says_what_it_is(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not a language model"):
        client.chat.completions.create(model="minilm", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="embedding"):
        client.embeddings.create(model="smollm2", input="Hello")
    with pytest.raises(openai.BadRequestError, match="384"):
        client.embeddings.create(model="minilm", input="Hello", dimensions=100)


def test_what_is_refused_takes_no_place(house: Journey, client: OpenAI) -> None:
    with deployed(house, "narrow", "minilm", concurrency=1) as name:
        for _ in range(3):
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(model=name, input=[1, 2])
        assert client.embeddings.create(model=name, input="a").data


def test_a_language_model_refuses_arrays(house: Journey) -> None:
    answer = house.post("/api/v1/deployments/smollm2/predict", {"rows": [{"a": 1}]})
    assert answer.status == 422
    assert "/v1/chat/completions" in answer.json["detail"]


def test_a_thousand_at_once_are_answered_or_told_to_come_back(house: Journey) -> None:
    async def ask(reader: Any, writer: Any) -> int:
        body = json.dumps({"model": "smollm2", "prompt": "a", "max_tokens": 2}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.keys['alpha']}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status

    async def all_of_them() -> list[int]:
        connections = [await asyncio.open_connection("127.0.0.1", house.node.port) for _ in range(1000)]
        return await asyncio.gather(*[ask(*connection) for connection in connections])

    statuses = asyncio.run(all_of_them())
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 32


def running(house: Journey) -> int:
    """Requests that the deployment's concurrency counts, by trying what is left of it."""
    answer = house.post("/v1/completions", {"model": "smollm2", "prompt": "a", "max_tokens": 1})
    return answer.status


def test_a_caller_who_disconnects_or_reads_slowly_holds_up_nobody(house: Journey, client: OpenAI) -> None:
    body = json.dumps({"model": "smollm2", "prompt": "Tell me", "max_tokens": 4000, "stream": True, "ignore_eos": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.keys['alpha']}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    connections = []
    for _ in range(40):  # more than there are slots
        connection = socket.create_connection(("127.0.0.1", house.node.port))
        connection.sendall(request)
        connections.append(connection)
    for connection in connections[:20]:
        connection.close()  # at once
    for connection in connections[20:]:
        assert connection.recv(1) == b"H"  # one byte, and then no more
    answer = client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=4)
    assert answer.choices
    for connection in connections[20:]:
        connection.close()
    until(lambda: running(house) == 200)


def outcome(ask: Callable[[], Any]) -> type[object]:
    try:
        return type(ask())
    except openai.APIStatusError as error:
        return type(error)


def test_the_clients_own_retry_gets_through_after_a_limit(house: Journey, client: OpenAI) -> None:
    with deployed(house, "limited", requests_per_second=2) as name:
        ask = partial(client.completions.create, model=name, prompt="a", max_tokens=1)
        with ThreadPoolExecutor(10) as callers:
            until(lambda: openai.RateLimitError in callers.map(outcome, [ask] * 10))
        retrying = client.with_options(max_retries=5)
        for _ in range(5):
            assert retrying.completions.create(model=name, prompt="a", max_tokens=1).choices


def test_a_deadline_is_kept(house: Journey, client: OpenAI) -> None:
    with deployed(house, "hasty", deadline_ms=300) as name:
        until(lambda: outcome(partial(client.completions.create, model=name, prompt="a", max_tokens=1)) is Completion)
        with pytest.raises(openai.InternalServerError) as late:
            client.completions.create(model=name, prompt="a", max_tokens=500, extra_body={"ignore_eos": True})
    assert (late.value.status_code, late.value.code) == (503, "deadline_exceeded")


def test_a_stream_that_is_late_is_never_told_as_finished(house: Journey, client: OpenAI) -> None:
    asked: dict[str, Any] = {"stream": True, "extra_body": {"ignore_eos": True}}
    with deployed(house, "hurried", deadline_ms=1000) as name:
        until(lambda: outcome(partial(client.completions.create, model=name, prompt="a", max_tokens=1)) is Completion)
        chunks: list[Any] = []
        stream = client.chat.completions.create(model=name, messages=HELLO, max_tokens=4000, **asked)
        with pytest.raises(openai.APIError, match="the deadline passed"):
            chunks.extend(stream)
        assert chunks
        assert {choice.finish_reason for chunk in chunks for choice in chunk.choices} == {None}
        said = client.responses.create(model=name, input="Hello", max_output_tokens=4000, **asked)
        kinds = [event.type for event in said]
    assert kinds[-1] == "response.failed"
    ended = {"response.completed", "response.incomplete", "response.output_text.done", "response.output_item.done"}
    assert not ended.intersection(kinds)
