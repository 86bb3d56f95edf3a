"""Files by OpenAI's unmodified client: uploaded, listed page by page, read, downloaded, deleted; by one tenant only."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI

from tests.journeys import Journey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "smollm2"}}
LINES = (json.dumps(LINE) + "\n").encode()
TALK = {"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A clerk."}]}


def stranger(house: Journey) -> OpenAI:
    return OpenAI(api_key=house.keys["beta"], base_url=f"{house.node.url}/v1", max_retries=0)


def test_a_file_goes_in_and_comes_back(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    for given in (path, path.open("rb"), ("requests.jsonl", LINES), ("requests.jsonl", io.BytesIO(LINES), "text/x")):
        made = client.files.create(file=given, purpose="batch")  # type: ignore[arg-type]  # each is one of FileTypes
        assert (made.object, made.filename, made.bytes, made.purpose) == (
            "file", "requests.jsonl", len(LINES), "batch",
        )  # fmt: skip
        assert client.files.retrieve(made.id) == made
        assert client.files.content(made.id).read() == LINES
        assert client.files.delete(made.id).deleted
        with pytest.raises(NotFoundError):
            client.files.retrieve(made.id)


def test_the_client_turns_the_pages(client: OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.jsonl", LINES), purpose="batch").id for n in range(5)]
    newest_first = [file.id for file in client.files.list(limit=2)]
    assert newest_first[:5] == made[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc", purpose="batch")][-5:] == made
    assert list(client.files.list(purpose="user_data")) == []
    for id in made:
        client.files.delete(id)


def test_a_file_for_fine_tuning_is_checked(client: OpenAI) -> None:
    content = "".join(json.dumps(TALK) + "\n" for _ in range(4)).encode()
    made = client.files.create(file=("talks.jsonl", content), purpose="fine-tune")
    done = client.files.wait_for_processing(made.id, poll_interval=0.2, max_wait_seconds=60)
    assert (done.status, done.status_details) == ("processed", None)
    with pytest.raises(BadRequestError, match="fine-tuning"):
        client.files.content(made.id)
    wrong = client.files.create(file=("talks.jsonl", content + b'{"messages": 5}\n'), purpose="fine-tune")
    told = client.files.wait_for_processing(wrong.id, poll_interval=0.2, max_wait_seconds=60)
    assert told.status == "error"
    assert "5" in (told.status_details or "")
    for id in (made.id, wrong.id):
        assert client.files.delete(id).deleted


def test_an_expiry_is_asked_for_as_the_client_writes_it(client: OpenAI) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 7200}
    made = client.files.create(file=("a.jsonl", LINES), purpose="batch", expires_after=expiry)
    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 7200) <= 1
    client.files.delete(made.id)


@pytest.mark.parametrize("purpose", ["assistants", "vision", "user_data", "evals"])
def test_a_purpose_that_has_no_use_here_is_refused_by_name(client: OpenAI, purpose: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.files.create(file=("a.jsonl", LINES), purpose=purpose)
    assert caught.value.param == "purpose"
    assert purpose in caught.value.message


def test_another_tenant_sees_nothing_of_it(client: OpenAI, house: Journey) -> None:
    made = client.files.create(file=("secret-name.jsonl", LINES), purpose="batch")
    other = stranger(house)
    assert list(other.files.list()) == []
    calls: list[Any] = [other.files.retrieve, other.files.content, other.files.delete]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call(made.id)
        assert "secret-name" not in caught.value.message
    assert client.files.retrieve(made.id).id == made.id
    client.files.delete(made.id)


def test_asynchronously_it_is_the_same(house: Journey) -> None:
    async def walk() -> None:
        async with AsyncOpenAI(api_key=house.keys["alpha"], base_url=f"{house.node.url}/v1", max_retries=0) as client:
            made = await asyncio.gather(
                *[client.files.create(file=(f"{n}.jsonl", LINES), purpose="batch") for n in range(4)]
            )
            found = [file.id async for file in client.files.list(limit=1)]
            assert {file.id for file in made} <= set(found)
            assert (await client.files.content(made[0].id)).read() == LINES
            for file in made:
                assert (await client.files.delete(file.id)).deleted

    asyncio.run(walk())


def test_what_the_client_cannot_mend_it_does_not_try_again(house: Journey) -> None:
    with OpenAI(api_key=house.keys["alpha"], base_url=f"{house.node.url}/v1", max_retries=2) as client:
        with pytest.raises(BadRequestError):
            client.files.create(file=("a.jsonl", b""), purpose="batch")
        with pytest.raises(APIStatusError) as caught:
            client.files.create(file=("a" * 300, LINES), purpose="batch")
        assert not isinstance(caught.value, ConflictError)
