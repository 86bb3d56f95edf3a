"""What the tests of the jobs share: data sets, specs, and a worker's work done step by step in the test's thread."""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from datetime import timedelta
from typing import Any

import numpy as np
from django.utils import timezone
from onnx import TensorProto, helper

from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.jobs import services
from strongroom.jobs.attempts import see_through
from strongroom.jobs.claim import Taker, claim
from strongroom.jobs.models import Attempt, Job
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from tests.callers import Deposit

LEASE_SECONDS = 6
TAKER = Taker("node1-cpu-1", ("cpu",), LEASE_SECONDS)
CLASSES = ("0", "1", "2")
ROWS = 60


def actor(deposit: Deposit) -> Actor:
    return Actor("member", deposit.owner.id)


@functools.cache
def images() -> bytes:
    """An NPZ of small bright or dark images, so that something can be learned."""
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % len(CLASSES)
    pictures = random.integers(0, 60, (ROWS, 1, 32, 32)) + (labels * 80)[:, None, None, None]
    buffer = io.BytesIO()
    np.savez(buffer, image=pictures.astype(np.uint8), label=labels)
    return buffer.getvalue()


@functools.cache
def affine() -> bytes:
    """A small ONNX model: y = 2x + 1."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["doubled"]), helper.make_node("Add", ["doubled", "one"], ["y"])]
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in (("two", 2), ("one", 1))]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph(nodes, "affine", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def uploaded(deposit: Deposit, data: bytes, name: str = "digits", format: str = "npz") -> DatasetVersion:
    """A version in state `checking`, as the edge leaves it."""
    with scope.tenant(deposit.id):
        upload = datasets.begin_upload(name, format=format)
        upload.draft.fill(data)
        upload.draft.publish()
        version, _ = datasets.finish_upload(actor(deposit), upload, hashlib.sha256(data).hexdigest())
        return version


def ready_dataset(deposit: Deposit, name: str = "digits") -> DatasetVersion:
    version = uploaded(deposit, images(), name)
    columns = [
        {"name": "image", "type": "image", "shape": [1, 32, 32], "missing": 0, "unique": None, "classes": None},
        {
            "name": "label",
            "type": "category",
            "shape": None,
            "missing": 0,
            "unique": len(CLASSES),
            "classes": [{"name": each, "rows": ROWS // len(CLASSES)} for each in CLASSES],
        },
    ]
    with scope.tenant(deposit.id):
        datasets.mark_ready(version, {"rows": ROWS, "modality": "image", "columns": columns, "warnings": []})
    return version


def training(name: str = "digits-net", *, epochs: int = 2, **sections: Any) -> dict[str, Any]:
    """The smallest training of `digits`."""
    return {
        "kind": "train",
        "name": name,
        "task": "classification",
        "dataset": {"name": "digits"},
        "model": {"kind": "catalogue", "name": "mlp"},
        "train": {"epochs": epochs, "batch_size": 16, "checkpoint_seconds": 0.5},
        **sections,
    }


def submitted(deposit: Deposit, document: dict[str, Any] | None = None) -> Job:
    with scope.tenant(deposit.id):
        return services.submit(actor(deposit), document or training())


def taken(taker: Taker = TAKER) -> tuple[Job, Attempt]:
    found = claim(taker)
    assert found is not None, "nothing to claim"
    return found


def worked(stop: threading.Event | None = None) -> Job:
    """Claims the next job and sees its attempt through, with a real process; the row as it is afterwards."""
    job, attempt = taken()
    see_through(job, attempt, stop or threading.Event(), LEASE_SECONDS)
    return fresh(job)


def fresh(job: Job) -> Job:
    with scope.tenant(job.tenant_id, write=False):
        found = Job.objects.get(id=job.id)
        _ = (found.spec, found.result, found.error)  # opened here, inside the scope
        return found


def expired(job: Job) -> None:
    """The lease ran out: its worker is silent."""
    with scope.tenant(job.tenant_id):
        Job.objects.filter(id=job.id).update(lease_until=timezone.now() - timedelta(seconds=1))


def attempts(job: Job) -> list[tuple[int, str | None]]:
    with scope.tenant(job.tenant_id, write=False):
        return list(Attempt.objects.filter(job=job).order_by("number").values_list("number", "outcome"))
