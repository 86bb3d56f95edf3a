"""What a job's owner reads when it failed: the process's own word where it is one of the contract's, else the
family's.

Codes are the API's: callers read them in a job's `error`; nothing here knows how the failure came about.
"""

from __future__ import annotations

import signal

from strongroom.jobs.endings import Failure
from strongroom.jobs.models import Job
from strongroom.jobs.packets import Failed
from strongroom.jobs.process import granted_bytes

CODES = frozenset(
    {
        "diverged",
        "out_of_memory",
        "timed_out",
        "dataset_contradicts_spec",
        "parity_failed",
        "artefact_corrupt",
        "storage_full",
        "import_refused",
        "check_failed",
        "base_unsuitable",
        "language_missing",
    }
)
FAMILY = {"check": "check_failed", "import": "import_refused", "finetune": "finetune_refused"}
INTERNAL = Failure("internal", "something failed on our side; the operator's log says what", "retry it")
ARTEFACT_CORRUPT = Failure(
    "artefact_corrupt", "what the job reads is not what was sealed", "upload it again, and tell the operator"
)
# Where an allocation fails inside a library, it aborts or touches what is not there.
_ALLOCATION_SIGNALS = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}


def of_process(job: Job, failed: Failed) -> Failure:
    """`failed {code, message, hint}` of a job's process."""
    if failed.code in CODES:
        return Failure(failed.code, failed.message, failed.hint)
    if failed.code != "internal" and job.kind in FAMILY:
        return Failure(FAMILY[job.kind], failed.message, failed.hint, detail_code=failed.code)
    return INTERNAL


def timed_out(job: Job) -> Failure:
    seconds = job.spec["resources"]["max_seconds"]
    return Failure("timed_out", f"the job took longer than {seconds:g} seconds", "raise resources.max_seconds")


def out_of_memory(job: Job) -> Failure:
    asked = job.spec["resources"]["memory_bytes"]
    limit = granted_bytes(asked)
    hint = "raise resources.memory_bytes" if limit == asked else "this is what the machine can give; use less data"
    return Failure("out_of_memory", f"the job needed more than {limit} bytes", hint)


def looks_out_of_memory(job: Job, exit_code: int | None, peak_bytes: int) -> bool:
    """A crash at the memory's limit; a kill -9 looks like a lost worker and is tried again."""
    return exit_code in _ALLOCATION_SIGNALS and peak_bytes >= 0.8 * granted_bytes(job.spec["resources"]["memory_bytes"])
