"""What a success of each kind becomes: a profile, a model version, a deployment, together with the job's end.

Called inside the one transaction that ends the job, which matches the claim's fence: killed at any point, nothing
is there twice and nothing half. The opened documents come from a sandboxed process and are taken for what they are:
claims.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
from django.db import transaction

from inference.interface import read_interface
from inference.signature import SignatureInvalid
from strongroom import ids
from strongroom.code_version import code_version
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments import services as deployments
from strongroom.errors import StrongroomError
from strongroom.jobs import endings, failures
from strongroom.jobs.endings import Failure
from strongroom.jobs.models import Job, LogLine
from strongroom.jobs.packets import Done, metrics
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from strongroom.vault.models import Artefact

MOST_BYTES = 64 << 20  # of a document that the process sealed and that is read here whole
FACTS = {
    "weights_sha256": re.compile(r"[0-9a-f]{64}"),
    "torch_version": re.compile(r"[0-9a-z.+]{1,40}"),
    "threads": re.compile(r"[0-9]{1,4}"),
}
Output = Callable[[str], Artefact]  # the sealed output of a kind, as a row of this transaction


class Refused(Exception):
    """The success cannot be taken over; the job fails with `failure` in place of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


def settle(job: Job, done: Done, output: Output) -> None:
    """Ends the job with what it made. Refused, Moved."""
    try:
        OF_KIND[job.kind](job, done, output)
    except StrongroomError as error:
        raise Refused(failure_of(error)) from error
    except vault.SlotRefused:
        raise Refused(failures.ARTEFACT_CORRUPT) from None


def failure_of(error: StrongroomError) -> Failure:
    """One of the platform's errors as the job's."""
    if error.code == "internal":
        return failures.INTERNAL
    return Failure(error.code, error.detail, error.errors[0].hint if error.errors else None)


def _check(job: Job, done: Done, output: Output) -> None:
    version = job.dataset_version
    if version is None or version.state == DatasetVersion.State.DELETED:
        raise Refused(Failure("not_found", "the data set version was deleted meanwhile"))
    profile = _opened(output("profile"))
    if not isinstance(profile.get("rows"), int) or not isinstance(profile.get("columns"), list):
        raise Refused(failures.INTERNAL)
    datasets.mark_ready(version, {"warnings": [], **profile})
    result = {"dataset": version.dataset.name, "version": version.number, "state": version.state}
    endings.succeed(job, result, said=result)


def _learn(job: Job, done: Done, output: Output) -> None:
    """Of a training and of a fine-tuning."""
    register = job.spec["register"]
    version = _registered(job, done, output, name=register["model"], stage=register["stage"])
    deployed = _deployed(job, version, register["deploy"])
    _succeed_with(job, version, deployed)


def _import(job: Job, done: Done, output: Output) -> None:
    version = _registered(job, done, output, name=job.spec["model"], stage="candidate")
    if job.input_artefact is not None:
        vault.destroy(job.input_artefact)  # the model is sealed anew; the upload has served
    _succeed_with(job, version, None)


OF_KIND: dict[str, Callable[[Job, Done, Output], None]] = {
    "check": _check,
    "train": _learn,
    "finetune": _learn,
    "import": _import,
}


def _registered(job: Job, done: Done, output: Output, *, name: str, stage: str) -> ModelVersion:
    result = _opened(output("result"))
    _check_result(result)
    reasons = [str(reason) for reason in done.result.get("reasons") or []]
    if done.result.get("state") == "rejected" and not reasons:
        reasons = ["the job's process rejected it"]
    result["metrics"] = metrics(result.get("metrics") or {})
    format = _format(job, result)
    return registry.register(
        name=name,
        task="generation" if job.kind == "finetune" else job.spec["task"],
        artefact=output("model"),
        result=result,
        lineage=_lineage(job, result),
        job_id=job.id,
        format=format,
        base=job.base_version,
        stage="candidate" if reasons else stage,
        reasons=reasons,
    )


def _check_result(result: dict[str, Any]) -> None:
    """What later readers take for granted. Refused. The lineage is no sealed column: its facts have their own form."""
    try:
        read_interface(result["signature"])
        if not isinstance(result.get("metrics") or {}, dict) or not _is_count(result.get("parameters")):
            raise Refused(failures.INTERNAL)
        if not isinstance(result.get("card"), dict | None):
            raise Refused(failures.INTERNAL)
    except (KeyError, AttributeError, TypeError, SignatureInvalid):
        raise Refused(failures.INTERNAL) from None
    for name, form in FACTS.items():
        if not form.fullmatch(str(result.get(name))):
            result[name] = None


def _format(job: Job, result: dict[str, Any]) -> str:
    """As the process says; an adapter comes of fine-tuning only, and is one of the base that the job was given."""
    found = result.get("format", "onnx")
    is_adapter, base = found == "lora", job.base_version
    if found not in registry.SERVED_FORMATS or is_adapter != (job.kind == "finetune"):
        raise Refused(failures.INTERNAL)
    if is_adapter:
        given = None if base is None else (base.signature or {}).get("weights_sha256")
        signature = result["signature"]
        if signature.get("adapter") is not True or given is None or signature.get("base_sha256") != given:
            raise Refused(failures.INTERNAL)
    return str(found)


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 1 << 63)


def _lineage(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    version = job.dataset_version
    return {
        "job": ids.text("job", job.id),
        "dataset": None if version is None else version.dataset.name,
        "dataset_version": None if version is None else version.number,
        "dataset_fingerprint": None if version is None else version.fingerprint,
        "spec_sha256": job.spec_sha256,
        "weights_sha256": result.get("weights_sha256"),
        "code_version": code_version(),
        "torch_version": result.get("torch_version"),
        "threads": result.get("threads"),
        "parent": None if job.base_version is None else str(job.base_version),
    }


def _deployed(job: Job, version: ModelVersion, name: str | None) -> str | None:
    """The deployment that was made or switched. One that cannot be leaves the version and a line in the log."""
    if name is None or version.state != ModelVersion.State.READY:
        return None
    try:
        with transaction.atomic(using=scope.alias()):
            deployments.deploy_version(Actor(job.created_by_kind, job.created_by_id), name, version)
    except StrongroomError as error:
        LogLine.objects.create(job=job, attempt=job.attempt, level="error", text=f"not deployed: {error.detail}")
        return None
    return name


def _succeed_with(job: Job, version: ModelVersion, deployed: str | None) -> None:
    named = {"model": version.model.name, "version": version.number}
    result = {**named, "state": version.state, "metrics": version.metrics}
    if deployed is not None:
        result["deployment"] = deployed
    endings.succeed(job, result, said=named)


def _opened(artefact: Artefact) -> dict[str, Any]:
    """A small document that the process sealed: read once, kept in a sealed column, the file destroyed."""
    if artefact.size_bytes > MOST_BYTES:
        raise Refused(failures.INTERNAL)
    try:
        content = orjson.loads(vault.read_bytes(artefact))
    except orjson.JSONDecodeError:
        raise Refused(failures.INTERNAL) from None
    vault.destroy(artefact)
    if not isinstance(content, dict):
        raise Refused(failures.INTERNAL)
    return content
