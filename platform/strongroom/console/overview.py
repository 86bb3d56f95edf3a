"""What the first page shows: work under way, what is newest, what is served, how much of the storage is used.

Only what the member's scopes allow to be seen elsewhere, too. Knows no request.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Sum
from django.utils import timezone

from strongroom.access.services import Principal
from strongroom.datasets import services as datasets
from strongroom.deployments import services as deployments
from strongroom.jobs.models import Job
from strongroom.jobs.states import State
from strongroom.metering.models import Usage
from strongroom.registry import services as registry
from strongroom.tenants import services as tenants
from strongroom.tenants.models import Tenant
from strongroom.vault import services as vault

SHOWN = 6
COLUMNS = ("id", "tenant_id", "name", "kind", "state", "progress", "created_at", "finished_at")


def facts(principal: Principal) -> dict[str, Any]:
    found: dict[str, Any] = {"storage": storage(principal), "counts": counts(principal), **jobs_facts(principal)}
    if "models:read" in principal.scopes:
        newest = registry.versions().defer("evaluation", "signature", "card", "reasons").order_by("-created_at")
        found["models"] = list(newest[:SHOWN])
    if "deployments:read" in principal.scopes:
        found["deployments"] = list(deployments.live().prefetch_related("traffic__version__model")[:SHOWN])
    return found


def jobs_facts(principal: Principal) -> dict[str, Any]:
    """Jobs under way first, then the last that ended."""
    if "jobs:read" not in principal.scopes:
        return {"running": [], "ended": []}
    rows = Job.objects.only(*COLUMNS)
    running = list(rows.filter(state__in=(State.RUNNING, State.QUEUED)).order_by("-state", "id")[:SHOWN])
    ended = list(rows.filter(finished_at__isnull=False).order_by("-finished_at")[: max(2, SHOWN - len(running))])
    return {"running": running, "ended": ended}


def storage(principal: Principal) -> dict[str, Any]:
    limit = tenants.limits(Tenant.objects.get(id=principal.tenant_id))["storage_bytes"]
    used = vault.stored_bytes(principal.tenant_id)
    return {"used": used, "limit": limit, "share": min(1.0, used / limit) if limit else None}


def counts(principal: Principal) -> list[tuple[str, int, str]]:
    """(what, how many, the list's address by name)"""
    rows = [
        ("Data sets", "datasets:read", datasets.newest, "datasets_datasetversion"),
        ("Model versions", "models:read", registry.versions, "registry_modelversion"),
        ("Deployments", "deployments:read", deployments.live, "deployments_deployment"),
    ]
    found = [
        (what, query().count(), f"admin:{page}_changelist")
        for what, scope, query, page in rows
        if scope in principal.scopes
    ]
    if "usage:read" in principal.scopes:
        found.append(("Predictions, 24 h", predictions(), "admin:deployments_deployment_changelist"))
    return found


def predictions() -> int:
    since = timezone.now() - timedelta(hours=24)
    return Usage.objects.filter(minute__gte=since).aggregate(sum=Sum("items"))["sum"] or 0
