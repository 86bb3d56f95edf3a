"""Our failures as OpenAI's: `{"error": {message, type, param, code}}`, with the status that makes the SDK raise the
right class, and the headers that make it try again where that helps, and only there.

401, 403, 404 and 409 are as they are; a document that is wrong is 400; a budget that is used up is 429 with
`insufficient_quota`; what can be mended by waiting is 429 `rate_limit_exceeded` or 503, with a time to wait.
"""

from __future__ import annotations

from typing import Any

import orjson

from strongroom.errors import NotFound, StorageUsed, StrongroomError
from strongroom.rest import problem

STATUSES = {402: 429, 410: 404, 412: 400, 415: 400, 422: 400}
CODES = {
    "key_missing": "invalid_api_key",
    "key_malformed": "invalid_api_key",
    "key_invalid": "invalid_api_key",
    "budget_exhausted": "insufficient_quota",
    "rate_limited": "rate_limit_exceeded",
    "concurrency_limited": "rate_limit_exceeded",
    "queue_full": "rate_limit_exceeded",
    "limit_reached": "rate_limit_exceeded",
    "context_length": "context_length_exceeded",
    "extra_forbidden": "unknown_parameter",
    "invalid_field": "invalid_value",
}
# The SDK tries 409 and 429 again by itself: of these no second try can end otherwise.
FINAL = frozenset(
    {
        "budget_exhausted",
        "idempotency_conflict",
        "idempotency_secret",
        "in_use",
        "job_finished",
        "job_unfinished",
        "name_taken",
    }
)
MOST_NAMED = 4  # of the problems after the first


def status(error: StrongroomError) -> int:
    return STATUSES.get(error.status, error.status)


def document(error: StrongroomError, *, is_of_model: bool = True) -> dict[str, Any]:
    """The body. `is_of_model`: what is not found is the deployment, which here is called a model."""
    code, param = CODES.get(error.code, error.code), None
    if is_of_model and (isinstance(error, NotFound) or error.code == "model_not_allowed"):
        code, param = ("model_not_found" if error.code == "not_found" else code), "model"
    elif error.errors:
        first = error.errors[0]
        code, param = CODES.get(first.code, first.code), path(first.path)
    return {"error": {"message": _message(error), "type": _type(error), "param": param, "code": code}}


def headers(error: StrongroomError) -> list[tuple[bytes, bytes]]:
    found = [(name.lower().encode(), value.encode()) for name, value in problem.headers(error)]
    if error.code in FINAL or isinstance(error, StorageUsed):
        return [*(one for one in found if one[0] != b"retry-after"), (b"x-should-retry", b"false")]
    if error.retry_after_seconds is not None:
        found.append((b"retry-after-ms", b"%d" % (1000 * error.retry_after_seconds)))
        found.append((b"x-should-retry", b"true"))
    return found


def event(error: StrongroomError) -> bytes:
    """The last event of a stream of chunks that broke: the SDK raises APIError with its message."""
    return b"data: " + orjson.dumps(document(error)) + b"\n\n"


def path(pointer: str) -> str | None:
    """`/messages/2/role` as OpenAI writes it, `messages[2].role`; None for the whole body."""
    said = ""
    for key in pointer.removeprefix("?").split("/"):
        name = key.replace("~1", "/").replace("~0", "~")
        if name.isascii() and name.isdigit():
            said += f"[{name}]"
        elif name:
            said += f".{name}" if said else name
    return said or None


def _type(error: StrongroomError) -> str:
    if error.code == "budget_exhausted":
        return "insufficient_quota"
    if error.status == 429:
        return "requests"
    return "server_error" if error.status >= 500 else "invalid_request_error"


def _message(error: StrongroomError) -> str:
    """The first problem and its remedy, and where the others are."""
    if not error.errors:
        return error.detail
    first, *others = error.errors
    is_whole = first.message == error.detail
    said = first.message if is_whole else f"{path(first.path) or 'the body'} {first.message}"
    if first.code == "context_length":  # the words by which callers' libraries know it
        said = f"This model's maximum context length is exceeded: {said}"
    if first.hint:
        said += f", {first.hint}"
    if others:
        said += (
            f" (and {len(others)} more, at {', '.join(path(one.path) or 'the body' for one in others[:MOST_NAMED])})"
        )
    return said
