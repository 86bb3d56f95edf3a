"""A failure of `/v1` as an HTTP answer; its words are openai/errors.py's."""

from __future__ import annotations

from strongroom.edge import http
from strongroom.errors import StrongroomError
from strongroom.openai import errors

KEPT = ("/v1/files", "/v1/fine_tuning", "/v1/batches")  # where what is not found is no model


def failure(error: StrongroomError, request: http.Request) -> http.Answer:
    """The whole answer; `x-request-id` is added where it is sent."""
    body = errors.document(error, is_of_model=not request.path.startswith(KEPT))
    return http.Answer.of(errors.status(error), body, errors.headers(error))
