"""Jobs and what happened to them. The spec, the result and the log lines are sealed; numbers and states are not."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from strongroom.datasets.models import DatasetVersion
from strongroom.deployments.models import Deployment
from strongroom.files.models import File
from strongroom.jobs.states import State
from strongroom.registry.models import ModelVersion
from strongroom.tenants.models import Made, Numbered, Owned
from strongroom.vault.fields import SealedJSON
from strongroom.vault.models import Artefact


class Job(Owned, Made):
    """One long piece of work. Its row is the truth; Celery only wakes whoever looks at it."""

    kind = models.CharField(max_length=10)
    name = models.CharField(max_length=63)
    spec = SealedJSON(null=True)
    spec_sha256 = models.CharField(max_length=64)
    dataset_version = models.ForeignKey(DatasetVersion, models.PROTECT, null=True, related_name="+")
    base_version = models.ForeignKey(ModelVersion, models.PROTECT, null=True, related_name="+")  # that is fine-tuned
    input_artefact = models.ForeignKey(Artefact, models.SET_NULL, null=True, related_name="+")
    output_artefact = models.ForeignKey(Artefact, models.SET_NULL, null=True, related_name="+")
    deployment = models.ForeignKey(Deployment, models.SET_NULL, null=True, related_name="+")
    state = models.CharField(max_length=9, choices=State.choices, default=State.QUEUED)
    cancel_requested_at = models.DateTimeField(null=True)
    attempt = models.PositiveIntegerField(default=0)
    max_attempts = models.PositiveIntegerField(default=3)
    priority = models.SmallIntegerField(default=0)
    queue = models.CharField(max_length=20, default="cpu")
    not_before = models.DateTimeField(null=True)
    worker = models.CharField(max_length=120, null=True)
    device = models.CharField(max_length=20, null=True)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    progress = models.JSONField(null=True)
    metrics = models.JSONField(default=dict)
    usage = models.JSONField(null=True)
    cost = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    currency = models.CharField(max_length=3, null=True)
    result = SealedJSON(null=True)
    error_code = models.CharField(max_length=40, null=True)
    error = SealedJSON(null=True)
    retry_of = models.UUIDField(null=True)
    metadata = SealedJSON(null=True)  # what a fine-tuning's submitter wrote on it, for itself
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    class Meta(Owned.Meta):
        indexes = [
            models.Index(
                "queue",
                models.F("priority").desc(),
                "created_at",
                condition=models.Q(state="queued"),
                name="job_waiting",
            ),
            models.Index(fields=["lease_until"], condition=models.Q(state="running"), name="job_leased"),
            models.Index(fields=["tenant", "id"], name="job_by_tenant"),
        ]

    def __str__(self) -> str:
        return self.name


class Attempt(Owned):
    """One worker's try at a job."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    worker = models.CharField(max_length=120)
    device = models.CharField(max_length=20, null=True)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=9, null=True)
    usage = models.JSONField(null=True)
    checkpoint_artefact = models.ForeignKey(Artefact, models.SET_NULL, null=True, related_name="+")
    checkpoint_step = models.BigIntegerField(null=True)
    previous_artefact = models.ForeignKey(Artefact, models.SET_NULL, null=True, related_name="+")

    class Meta(Owned.Meta):
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="attempt_once")]


class Batch(Owned):
    """What a job of kind `batch` has beside its row: how many lines there are and were answered, and its two files."""

    job = models.OneToOneField(Job, models.CASCADE, related_name="batch")
    metadata = SealedJSON(null=True)
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    began_at = models.DateTimeField(null=True)
    finalizing_at = models.DateTimeField(null=True)
    has_expired = models.BooleanField(default=False)  # before all lines were answered
    output_file = models.ForeignKey(File, models.SET_NULL, null=True, related_name="+")
    error_file = models.ForeignKey(File, models.SET_NULL, null=True, related_name="+")
    problems = SealedJSON(null=True)  # of the file as a whole: code, line, message, param

    class Meta(Owned.Meta):
        pass


class Event(Numbered):
    """State, progress or metric: numbers and states only."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=8)
    data = models.JSONField()

    class Meta(Numbered.Meta):
        indexes = [models.Index(fields=["job", "id"], name="event_by_job")]


class LogLine(Numbered):
    """What the job's process said; sealed, since it may name tenants' content."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="log")
    attempt = models.PositiveIntegerField()
    at = models.DateTimeField(default=timezone.now)
    level = models.CharField(max_length=8)
    text = SealedJSON(bound_to="job_id")

    class Meta(Numbered.Meta):
        indexes = [models.Index(fields=["job", "id"], name="logline_by_job")]


class Lease(models.Model):
    """Who sweeps: any number of schedulers may run, the holder acts until `until`. No tenant's."""

    name = models.CharField(max_length=20, primary_key=True)
    holder = models.UUIDField(null=True)
    until = models.DateTimeField(null=True)
