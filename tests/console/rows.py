"""A tenant with something of every kind, made by the rooms' doors; each name and text holds the tenant's marker."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone

from strongroom.access import services as access
from strongroom.access.models import ApiKey
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments import services as deployments
from strongroom.deployments.models import Deployment
from strongroom.jobs import services as jobs
from strongroom.jobs.models import Event, Job, LogLine
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.vault import services as vault
from tests.callers import Deposit

CLASSES = [str(number) for number in range(10)]
SIGNATURE = {
    "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, 32, 32]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    "classes": CLASSES,
    "task": "classification",
}


@dataclass
class Filled:
    """What a tenant has."""

    deposit: Deposit
    dataset: DatasetVersion
    job: Job
    version: ModelVersion
    deployment: Deployment
    key: ApiKey
    secret_texts: list[str] = field(default_factory=list)  # sealed: no operator may see them

    @property
    def objects(self) -> dict[str, Any]:
        """The beginning of the names of each kind's addresses → an object of it."""
        return {
            "datasets_datasetversion": self.dataset,
            "jobs_job": self.job,
            "registry_modelversion": self.version,
            "deployments_deployment": self.deployment,
            "access_apikey": self.key,
            "tenants_member": self.deposit.owner,
        }


def filled(deposit: Deposit, marker: str = "") -> Filled:
    """`marker` (lower-case letters) is in every name, class and log line; the tenant's name by default."""
    marker = marker or deposit.name
    actor = Actor("member", deposit.owner.id)
    with scope.tenant(deposit.id):
        dataset = ready_dataset(actor, f"{marker}-digits", [f"{marker} {name}" for name in CLASSES])
        job = running_job(actor, f"{marker}-lenet", dataset, f"{marker} said so")
        version = model_version(deposit, f"{marker}-lenet", dataset, job)
        deployment = deployments.deploy(
            actor, {"name": f"{marker}-served", "versions": [{"model": f"{marker}-lenet", "version": 1}]}
        )
        maker = access.principal_of(deposit.owner)
        key = access.create(maker, name=f"{marker} key", scopes=["predict"]).key
    secrets = [f"{marker} {name}" for name in CLASSES] + [f"{marker} said so"]
    return Filled(deposit, dataset, job, version, deployment, key, secrets)


def ready_dataset(actor: Actor, name: str, classes: list[str], *, data: bytes = b"bytes") -> DatasetVersion:
    version = uploaded(actor, name, data)
    rows = [180 - 7 * index for index in range(len(classes))]
    blank = {"missing": 0, "unique": None, "min": None, "max": None, "mean": None, "classes": None, "shape": None}
    columns = [
        blank | {"name": "image", "type": "image", "shape": [3, 32, 32], "min": 0, "max": 255, "mean": 78.1},
        blank
        | {
            "name": "label",
            "type": "category",
            "unique": len(classes),
            "classes": [{"name": each, "rows": count} for each, count in zip(classes, rows, strict=True)],
        },
    ]
    warnings = [{"code": "duplicate_rows", "column": None, "message": "2 rows repeat an earlier one, target included"}]
    profile = {"rows": sum(rows), "modality": "image", "columns": columns, "warnings": warnings}
    datasets.mark_ready(version, profile)
    return version


def uploaded(actor: Actor, name: str, data: bytes = b"bytes", format: str = "npz") -> DatasetVersion:
    """A version in state `checking`, its check waiting, as the edge leaves it."""
    upload = datasets.begin_upload(name, format=format)
    upload.draft.fill(data)
    upload.draft.publish()
    version, _ = datasets.finish_upload(actor, upload, hashlib.sha256(data).hexdigest())
    jobs.submit_check(actor, version)
    return version


def training(name: str, dataset: str) -> dict[str, Any]:
    return {
        "kind": "train",
        "name": name,
        "task": "classification",
        "dataset": {"name": dataset},
        "model": {"kind": "catalogue", "name": "lenet"},
        "train": {"optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9}, "batch_size": 4, "epochs": 25},
    }


def running_job(actor: Actor, name: str, dataset: DatasetVersion, said: str) -> Job:
    """Eleven epochs in, as a worker writes it."""
    job = jobs.submit(actor, training(name, dataset.dataset.name))
    for epoch in range(1, 12):
        for metric, value in (
            ("train/loss", 2.3 / epoch),
            ("validation/loss", 2.5 / epoch),
            ("validation/accuracy", 1 - 0.9 / epoch),
        ):
            Event.objects.create(
                job=job, kind="metric", data={"name": metric, "epoch": epoch, "step": 315 * epoch, "value": value}
            )
        LogLine.objects.create(job=job, attempt=1, level="info", text=f"{said}: epoch {epoch} of 25")
    progress = {"fraction": 0.44, "epoch": 11, "epochs": 25, "step": 3465, "steps": 7875, "eta_seconds": 6.8}
    metrics = {"train/loss": 0.209, "validation/loss": 0.227, "validation/accuracy": 0.918}
    Job.objects.filter(id=job.id).update(
        state="running", attempt=1, progress=progress, metrics=metrics, started_at=timezone.now(), worker="node1-cpu-1"
    )
    job.refresh_from_db()
    return job


def model_version(deposit: Deposit, name: str, dataset: DatasetVersion, job: Job | None = None) -> ModelVersion:
    confusion = [[24 if true == found else int((true + found) % 7 == 0) for found in range(10)] for true in range(10)]
    metrics = {"validation/accuracy": 0.974, "test/accuracy": 0.963, "test/loss": 0.13, "test/f1": 0.961}
    result = {
        "signature": SIGNATURE,
        "evaluation": {"confusion": confusion},
        "metrics": metrics,
        "parameters": 62006,
    }
    return registry.register(
        name=name,
        task="classification",
        artefact=vault.seal_bytes(deposit.id, "model", b"weights"),
        result=result,
        lineage={
            "job": None if job is None else str(job.id),
            "dataset": dataset.dataset.name,
            "dataset_version": dataset.number,
            "dataset_fingerprint": dataset.fingerprint,
        },
        job_id=None if job is None else job.id,
    )
