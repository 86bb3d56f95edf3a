"""Every failure a caller may see: one class per kind of failure, one code → status → title.

Rooms raise these; each face (native REST, Open Inference, the panel) renders them once, in its own format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem of a document: `path` is a JSON pointer, "" for the whole, "?name" for a query field."""

    path: str
    code: str
    message: str
    hint: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


TITLES: dict[str, tuple[int, str]] = {
    "malformed_body": (400, "The body cannot be read"),
    "malformed_header": (400, "A header cannot be read"),
    "malformed_cursor": (400, "The cursor cannot be read"),
    "key_missing": (401, "An API key is needed"),
    "key_malformed": (401, "The API key is not well formed"),
    "key_invalid": (401, "The API key is not valid"),
    "budget_exhausted": (402, "The budget is used up"),
    "scope_missing": (403, "The key lacks a scope"),
    "model_not_allowed": (403, "The key may not use this deployment"),
    "network_not_allowed": (403, "The key may not be used from this address"),
    "role_missing": (403, "The role does not allow this"),
    "csrf_failed": (403, "The CSRF token is missing or wrong"),
    "not_found": (404, "There is no such object"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "idempotency_conflict": (409, "The idempotency key was used with another body"),
    "idempotency_running": (409, "The first request with this idempotency key is still running"),
    "idempotency_secret": (409, "The secret of the first answer is not kept"),
    "name_taken": (409, "The name is taken"),
    "job_finished": (409, "The job has ended"),
    "job_unfinished": (409, "The job has not ended"),
    "in_use": (409, "The object is in use"),
    "expired": (410, "The object has expired"),
    "etag_mismatch": (412, "The object has changed"),
    "body_too_large": (413, "The body is too large"),
    "media_type_unsupported": (415, "The content type is not supported"),
    "invalid_spec": (422, "The job spec is not valid"),
    "invalid_field": (422, "A field is not valid"),
    "extra_forbidden": (422, "A field is not known"),
    "dataset_not_ready": (422, "The data set is not ready"),
    "dataset_contradicts_spec": (422, "The data set contradicts the spec"),
    "version_rejected": (422, "The model version was rejected"),
    "rate_limited": (429, "Too many requests"),
    "concurrency_limited": (429, "Too many requests at once"),
    "queue_full": (429, "The queue is full"),
    "limit_reached": (429, "A limit of the tenant is reached"),
    "internal": (500, "Something failed on our side"),
    "model_loading": (503, "The model is loading"),
    "engine_lost": (503, "The engine was lost"),
    "deadline_exceeded": (503, "The deadline passed"),
    "database_unavailable": (503, "The database is unavailable"),
    "keys_unavailable": (503, "The key service is unavailable"),
    "draining": (503, "The server is stopping"),
    "storage_full": (503, "The storage is full"),
}


class StrongroomError(Exception):
    """A failure with a stable code; `detail` says what and how to mend it."""

    code = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        title: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code or type(self).code
        self.status, default_title = TITLES[self.code]
        self.title = title or default_title
        self.detail = detail
        self.errors = tuple(errors) or ((FieldError("", self.code, detail, hint),) if hint else ())
        waits = self.status == 503 or self.code == "idempotency_running" or self.status == 429
        self.retry_after_seconds = retry_after_seconds if retry_after_seconds is not None else (1 if waits else None)


class NotFound(StrongroomError):
    """No such object, or another tenant's."""

    code = "not_found"


class Unauthenticated(StrongroomError):
    """No key, a malformed one, or one that is not valid."""

    code = "key_invalid"


class Denied(StrongroomError):
    """Known, but not allowed."""

    code = "scope_missing"


class Malformed(StrongroomError):
    """Could not be read: syntax, encoding, header, cursor."""

    code = "malformed_body"


class Invalid(StrongroomError):
    """Read, and wrong."""

    code = "invalid_field"

    @classmethod
    def field(cls, path: str, message: str, *, hint: str | None = None, code: str = "invalid_field") -> Invalid:
        """One wrong field: `code` is the field's own; the whole is `invalid_field` (`extra_forbidden` for that)."""
        return cls.all([FieldError(path, code, message, hint)])

    @classmethod
    def all(cls, problems: Sequence[FieldError], code: str | None = None) -> Invalid:
        """Every problem of a document at once; `extra_forbidden` where each is that, else `invalid_field`."""
        first = problems[0]
        said = f"{first.path or 'the body'} {first.message}" + (f", {first.hint}" if first.hint else "")
        detail = said if len(problems) == 1 else f"{len(problems)} problems; the first: {said}"
        extra = all(problem.code == "extra_forbidden" for problem in problems)
        return cls(detail, code=code or ("extra_forbidden" if extra else "invalid_field"), errors=problems)


class Conflict(StrongroomError):
    """The object's state does not allow it."""

    code = "in_use"


class Gone(StrongroomError):
    """It was there and has expired."""

    code = "expired"


class TooLarge(StrongroomError):
    """The body is over the limit, which `hint` says."""

    code = "body_too_large"


class Unsupported(StrongroomError):
    """A content type that nobody here reads."""

    code = "media_type_unsupported"


class LimitReached(StrongroomError):
    """A rate, a count or an amount is used up; try again later."""

    code = "limit_reached"


class StorageUsed(LimitReached):
    """The tenant's storage has no room for it: waiting does not help, deleting does."""


class Unavailable(StrongroomError):
    """Cannot be answered now; try again after `retry_after_seconds`."""

    code = "model_loading"
