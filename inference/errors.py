"""What can go wrong in a cell, one class per kind of failure.

Each has a stable `code`, the one that travels in an error frame and that the edge turns into a status. It knows
nothing of HTTP and never carries a key, a path of this machine or another caller's content.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where (JSON pointer), which kind, what is wrong, how to put it right."""

    path: str
    code: str
    message: str
    hint: str | None = None


class InferenceError(Exception):
    """A request that gets an error instead of an answer."""

    code = "internal"

    def __init__(self, message: str, *, tensor: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tensor = tensor


class InputRefused(InferenceError):
    """The input does not fit the model: says which field, what is wrong with it and what would be right."""

    code = "invalid_field"

    def __init__(self, path: str, code: str, message: str, hint: str | None = None, *, detail: str = "") -> None:
        subject = f"input '{path.removeprefix('/inputs/')}' " if path.startswith("/inputs/") else ""
        whole = detail or subject + message + (f", {hint}" if hint else "")
        super().__init__(whole, tensor=path.removeprefix("/inputs/") if subject else None)
        self.problems: tuple[Problem, ...] = (Problem(path, code, message, hint),)

    @classmethod
    def of(cls, problems: list[InputRefused]) -> InputRefused:
        """All problems in one refusal; its text is the first one's."""
        first = problems[0]
        first.problems = tuple(problem for refusal in problems for problem in refusal.problems)
        return first

    @property
    def path(self) -> str:
        return self.problems[0].path

    @property
    def reason(self) -> str:
        return self.problems[0].code

    @property
    def hint(self) -> str | None:
        return self.problems[0].hint


class MediaTypeUnsupported(InferenceError):
    """The cell decodes no such content for this model; the message lists what it takes."""

    code = "media_type_unsupported"


class ModelUnknown(InferenceError):
    """The cell holds no such model (any more)."""

    code = "model_loading"


class QueueFull(InferenceError):
    """More waits than the cell takes; try again a little later."""

    code = "queue_full"


class DeadlineExceeded(InferenceError):
    """The caller's time was over before the answer was there."""

    code = "deadline_exceeded"


class ComputeFailed(InferenceError):
    """The model itself failed on this input, alone, outside any batch."""

    code = "compute_failed"


class LoadFailed(InferenceError):
    """The sealed model did not become a session."""

    code = "load_failed"


class ModelCorrupt(LoadFailed):
    """The sealed model is not what was sealed: its file was changed or exchanged, or the key is not its own."""

    code = "artefact_corrupt"


class ProtocolError(Exception):
    """Bytes that are no frame: the connection is closed, since nothing after them can be trusted."""
