"""Our failures as the unmodified SDK meets them: which class it raises, what that says, and whether it tries again."""

from __future__ import annotations

import openai
import orjson
import pytest
from openai.types.shared import ErrorObject

from strongroom.errors import (
    TITLES,
    Conflict,
    FieldError,
    Invalid,
    LimitReached,
    NotFound,
    StorageUsed,
    StrongroomError,
    TooLarge,
)
from strongroom.openai import errors
from tests.edge.openai.oracle import Wire, answering, failing, fits

CLASSES: dict[str, type[openai.APIStatusError]] = {
    "malformed_body": openai.BadRequestError,
    "media_type_unsupported": openai.BadRequestError,
    "invalid_field": openai.BadRequestError,
    "extra_forbidden": openai.BadRequestError,
    "key_missing": openai.AuthenticationError,
    "key_invalid": openai.AuthenticationError,
    "scope_missing": openai.PermissionDeniedError,
    "model_not_allowed": openai.PermissionDeniedError,
    "not_found": openai.NotFoundError,
    "expired": openai.NotFoundError,
    "in_use": openai.ConflictError,
    "idempotency_running": openai.ConflictError,
    "body_too_large": openai.APIStatusError,
    "budget_exhausted": openai.RateLimitError,
    "rate_limited": openai.RateLimitError,
    "concurrency_limited": openai.RateLimitError,
    "queue_full": openai.RateLimitError,
    "internal": openai.InternalServerError,
    "model_loading": openai.InternalServerError,
    "engine_lost": openai.InternalServerError,
}
TRIED_AGAIN = {code for code, (status, _) in TITLES.items() if status in (429, 500, 503)} | {"idempotency_running"}
COMPLETION = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}


def raised(wire: Wire, retries: int = 0) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        wire.client(retries).chat.completions.create(model="m", messages=[])
    return caught.value


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The SDK's pauses between tries, in seconds, without waiting for them."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


@pytest.mark.parametrize(("code", "kind"), CLASSES.items())
def test_each_failure_raises_the_class_that_callers_catch(code: str, kind: type[openai.APIStatusError]) -> None:
    caught = raised(Wire(failing(StrongroomError("what happened", code=code))))
    assert type(caught) is kind
    assert caught.body is not None
    fits(ErrorObject, caught.body)
    assert "what happened" in caught.message
    assert caught.request_id is not None
    assert caught.request_id.startswith("req_")


@pytest.mark.parametrize("code", TITLES)
def test_every_code_of_ours_has_a_body_and_a_status_that_the_sdk_reads(code: str) -> None:
    error = StrongroomError("what happened", code=code, hint="the remedy")
    document = errors.document(error)
    assert document["error"]["message"] == "what happened, the remedy"
    fits(ErrorObject, document["error"])
    assert errors.status(error) in {400, 401, 403, 404, 405, 409, 413, 429, 500, 503}


@pytest.mark.parametrize(
    ("error", "kind", "param", "code"),
    [
        (NotFound("there is no deployment 'm'"), "invalid_request_error", "model", "model_not_found"),
        (NotFound("x", hint="GET /v1/models lists them"), "invalid_request_error", "model", "model_not_found"),
        (StrongroomError("x", code="model_not_allowed"), "invalid_request_error", "model", "model_not_allowed"),
        (StrongroomError("x", code="key_missing"), "invalid_request_error", None, "invalid_api_key"),
        (StrongroomError("x", code="budget_exhausted"), "insufficient_quota", None, "insufficient_quota"),
        (LimitReached("x", code="rate_limited"), "requests", None, "rate_limit_exceeded"),
        (StrongroomError("x", code="model_loading"), "server_error", None, "model_loading"),
        (StrongroomError("x"), "server_error", None, "internal"),
        (Invalid.field("/messages/2/role", "is wrong"), "invalid_request_error", "messages[2].role", "invalid_value"),
        (Invalid.field("?after", "is wrong"), "invalid_request_error", "after", "invalid_value"),
        (Invalid.field("", "must be an object"), "invalid_request_error", None, "invalid_value"),
    ],
)
def test_type_param_and_code_are_openais(error: StrongroomError, kind: str, param: str | None, code: str) -> None:
    told = errors.document(error)["error"]
    assert (told["type"], told["param"], told["code"]) == (kind, param, code)


def test_what_is_not_found_among_files_and_jobs_is_no_model() -> None:
    for path, code in (
        ("/v1/models/m", "model_not_found"),
        ("/v1/files/f", "not_found"),
        ("/v1/batches/b", "not_found"),
    ):
        _, _, body = failing(NotFound("there is no such object"), path)
        assert orjson.loads(body)["error"]["code"] == code


def test_the_message_has_the_first_problem_and_counts_the_others() -> None:
    problems = [FieldError(f"/messages/{number}/role", "x", "is wrong", "write it right") for number in range(9)]
    assert errors.document(Invalid.all(problems))["error"]["message"] == (
        "messages[0].role is wrong, write it right "
        "(and 8 more, at messages[1].role, messages[2].role, messages[3].role, messages[4].role)"
    )
    assert errors.document(Invalid.field("", "must be an object"))["error"]["message"] == "the body must be an object"
    assert errors.document(TooLarge("it is too large", hint="at most 7"))["error"]["message"] == (
        "it is too large, at most 7"
    )


def test_an_overflow_of_the_context_is_told_with_both_numbers_and_in_openais_words() -> None:
    told, hint = "need 4200 tokens (4000 in the prompt and 200 for the answer)", "the context has 4096; send less"
    caught = raised(Wire(failing(Invalid.field("/messages", told, hint=hint, code="context_length"))))
    assert type(caught) is openai.BadRequestError
    assert (caught.code, caught.param) == ("context_length_exceeded", "messages")
    assert f"This model's maximum context length is exceeded: messages {told}, {hint}" in caught.message


@pytest.mark.parametrize("code", sorted(TITLES))
def test_the_sdk_tries_again_only_what_waiting_mends(code: str, no_waiting: list[float]) -> None:
    wire = Wire(failing(StrongroomError("x", code=code)))
    raised(wire, retries=2)
    assert len(wire.asked) == (3 if code in TRIED_AGAIN - {"budget_exhausted"} else 1)


def test_the_sdk_waits_as_long_as_it_is_told(no_waiting: list[float]) -> None:
    done = answering(COMPLETION)
    busy = Wire(failing(LimitReached("x", code="queue_full", retry_after_seconds=7)), *done._answers)
    assert busy.client(2).chat.completions.create(model="m", messages=[]).id == "chatcmpl-1"
    assert no_waiting == [7.0]


def test_the_headers_say_when_and_whether_to_try_again() -> None:
    waiting = dict(errors.headers(LimitReached("x", code="rate_limited", retry_after_seconds=3)))
    assert waiting == {b"retry-after": b"3", b"retry-after-ms": b"3000", b"x-should-retry": b"true"}
    assert dict(errors.headers(Conflict("x"))) == {b"x-should-retry": b"false"}
    assert dict(errors.headers(Invalid("x"))) == {}
    assert b"www-authenticate" in dict(errors.headers(StrongroomError("x", code="key_missing")))


def test_a_stream_that_breaks_ends_with_an_error_that_the_sdk_raises() -> None:
    broken = errors.event(StrongroomError("the engine was lost", code="engine_lost"))
    stream = (
        answering(broken, "text/event-stream").client().chat.completions.create(model="m", messages=[], stream=True)
    )
    with pytest.raises(openai.APIError, match="the engine was lost") as caught:
        list(stream)
    assert caught.value.code == "engine_lost"


@pytest.mark.parametrize(
    ("pointer", "said"),
    [
        ("", None),
        ("/model", "model"),
        ("/messages/2/content/0/type", "messages[2].content[0].type"),
        ("/a~1b/c~0d", "a/b.c~d"),
        ("?limit", "limit"),
    ],
)
def test_a_json_pointer_becomes_openais_path(pointer: str, said: str | None) -> None:
    assert errors.path(pointer) == said


def test_storage_that_is_used_up_is_not_tried_again() -> None:
    """The SDK would send the file again, twice."""
    sent = dict(errors.headers(StorageUsed("the tenant stores its limit")))
    assert sent[b"x-should-retry"] == b"false"
    assert b"retry-after" not in sent


def test_a_path_that_is_none_is_no_model_that_is_not_there() -> None:
    error = errors.document(StrongroomError("there is nothing at /v1/moderations", code="not_found"))["error"]
    assert (error["code"], error["param"]) == ("not_found", None)
