"""How a job ends when it does not succeed: one small tree, each with the code, message and hint that its tenant reads.

`run.py` is the one place that turns these into a `failed` packet (docs/formats/processes.md); codes are
the API's. Anything that is not a `JobError` is a defect of ours and becomes `internal`, without text.
Messages may name columns, classes and numbers of the tenant's own data: they are sealed by who stores them.
"""

from __future__ import annotations


class JobError(Exception):
    """A job that ends with an explained reason."""

    code = "internal"

    def __init__(self, message: str, hint: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class Cancelled(JobError):
    """The parent asked for the end; nothing is kept."""

    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("cancelled")


class Drained(JobError):
    """The parent hands the job back; a checkpoint was sealed just before."""

    code = "drained"

    def __init__(self) -> None:
        super().__init__("drained")


class Diverged(JobError):
    """The loss left the finite numbers."""

    code = "diverged"


class DatasetContradictsSpec(JobError):
    """What the spec asks for cannot be done with this data set."""

    code = "dataset_contradicts_spec"


class ParityFailed(JobError):
    """The exported graph answers differently from the network that was trained."""

    code = "parity_failed"


class TimedOut(JobError):
    """resources.max_seconds is used up."""

    code = "timed_out"


class DataRefused(JobError):
    """The data set is not what it says it is; finer codes are passed as `code` (`zip_entry_outside`, …)."""

    code = "check_failed"


class ImportRefused(JobError):
    """The model file is not one that can be served; finer codes are passed as `code`."""

    code = "import_refused"
