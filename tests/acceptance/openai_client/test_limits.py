"""What is left is told in OpenAI's headers, what is used up in its errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from openai import APITimeoutError, OpenAI, RateLimitError

from tests.acceptance.openai_client.conftest import deployed
from tests.journeys import Journey, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ASKED: Any = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


def budgeted(house: Journey, tokens: int, **options: Any) -> OpenAI:
    """A client of alpha with a key of its own, whose budget every process knows."""
    made = house.post("/api/v1/keys", {"name": "budgeted", "scopes": ["predict"]}).json
    assert house.call("PUT", f"/api/v1/budgets/{made['id']}", {"tokens": tokens} | options).status == 200
    time.sleep(1)  # a process hears of it within a second, and nothing tells when
    return OpenAI(api_key=made["secret"], base_url=f"{house.node.url}/v1", timeout=60, max_retries=0)


def until_refused(ask: Callable[[], Any]) -> tuple[int, RateLimitError]:
    """The tokens used by then."""
    used = 0
    while True:
        try:
            used += ask().usage.total_tokens
        except RateLimitError as error:
            return used, error


def left(raw: Any) -> tuple[int, int]:
    return int(raw.headers["x-ratelimit-limit-tokens"]), int(raw.headers["x-ratelimit-remaining-tokens"])


def test_the_tokens_that_are_left_go_down_by_what_was_used(house: Journey) -> None:
    with budgeted(house, 5000, period="day") as client:
        client.chat.completions.create(**ASKED)
        first = client.chat.completions.with_raw_response.create(**ASKED)
        second = client.chat.completions.with_raw_response.create(**ASKED)
        assert left(first)[0] == left(second)[0] == 5000
        usage = first.parse().usage
        assert usage is not None
        assert left(first)[1] - left(second)[1] == usage.total_tokens > 0
        assert second.headers["x-ratelimit-reset-tokens"].endswith("s")


def test_who_has_no_limit_is_told_of_none(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASKED)
    assert not [name for name in raw.headers if name.startswith("x-ratelimit")]


def test_embeddings_are_paid_for_by_the_budget(house: Journey) -> None:
    with budgeted(house, 200) as client:
        ask = partial(client.embeddings.create, model="minilm", input="A cat sits on the mat.")
        used, refused = until_refused(ask)
        assert refused.code == "insufficient_quota"
        assert 100 < used <= 200


def test_whoever_leaves_a_stream_of_two_prompts_pays_for_what_was_made_and_no_more(house: Journey) -> None:
    with budgeted(house, 20_000) as client:
        asked: Any = {"prompt": ["Tell me of the sea.", "Tell me of ships."], "max_tokens": 1500, "temperature": 0}
        with client.completions.create(
            model="smollm2", stream=True, extra_body={"ignore_eos": True}, **asked
        ) as stream:
            assert next(stream).choices
    used = until(lambda: used_by(house, client), 15)
    assert used["tokens_cancelled"] > 0
    assert 0 < used["tokens_in"] < used["tokens_in"] + used["tokens_out"] < 1500


def test_whoever_does_not_wait_for_vectors_pays_for_them_all_the_same(house: Journey) -> None:
    texts = ["A cat sits on the mat. " * 20] * 400
    with deployed(house, "patient", "minilm", deadline_ms=600_000) as name, budgeted(house, 1_000_000) as client:
        with pytest.raises(APITimeoutError):
            client.embeddings.create(model=name, input=texts, timeout=1)
        used = until(lambda: used_by(house, client), 100)
    assert used["tokens_in"] > 10_000
    assert used["errors"] == 0


def used_by(house: Journey, client: OpenAI) -> dict[str, int] | None:
    """What the usage says of a client's key, once it says something."""
    keys = house.get("/api/v1/keys?limit=200").json["data"]
    key = next(row["id"] for row in keys if row["prefix"] in client.api_key)
    rows = house.get(f"/api/v1/usage?key={key}&by=day").json["data"]
    return rows[0] if rows else None


def test_a_rate_is_told(house: Journey, client: OpenAI) -> None:
    with deployed(house, "slowly", requests_per_second=4) as name:
        raw = client.chat.completions.with_raw_response.create(**ASKED | {"model": name})
    limit, remaining = (int(raw.headers[f"x-ratelimit-{what}-requests"]) for what in ("limit", "remaining"))
    assert 0 <= remaining <= limit == 4  # all again where the answer took its time
    assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
