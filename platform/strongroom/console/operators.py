"""The platform operator's site at /operator/: metadata of all tenants, never content, and nothing to change.

Each class names the columns it shows; no page opens an object, and the sealed columns are never fetched. Runs in the
operator's scope (access/middleware.py).
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import Count, Q, Sum
from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.decorators import display

from strongroom import ids
from strongroom.access.models import ApiKey
from strongroom.console.entries import EntryColumns
from strongroom.console.sites import ClosedAdmin, ClosedSite
from strongroom.console.templatetags.console import ago, badge, number, percent, size
from strongroom.deployments.models import Deployment
from strongroom.jobs.models import Job
from strongroom.jobs.states import State
from strongroom.tenants import services as tenants
from strongroom.tenants.models import Member, Tenant
from strongroom.vault.fields import SealedJSON
from strongroom.vault.models import Artefact


class OperatorAdmin(ClosedAdmin):
    """A list of named columns; `columns` are fetched and no other."""

    columns: ClassVar[tuple[str, ...]]
    list_display_links = None
    ordering = ("-id",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.admin_site.has_permission(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.admin_site.has_permission(request)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        sealed = [name for name in self.columns if isinstance(self.opts.get_field(name), SealedJSON)]
        if sealed:
            raise ImproperlyConfigured(f"the operator sees no content: {', '.join(sealed)}")
        return super().get_queryset(request).defer(None).only("id", *self.columns)

    @display(description="state")
    def shown_state(self, row: Any) -> str:
        return badge(row.state)

    @admin.display(description="made", ordering="id")
    def shown_created(self, row: Any) -> str:
        return ago(row.created_at)


class TenantsAdmin(OperatorAdmin):
    slug, list_title = "tenants", "Tenants"
    columns = ("name", "display_name", "state", "limits", "created_at")
    list_display = (
        "name",
        "display_name",
        "shown_state",
        "shown_running",
        "shown_storage",
        "shown_rate",
        "shown_created",
    )
    list_filter = ("state",)
    search_fields = ("name", "display_name")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        running = Job.objects.filter(tenant=models.OuterRef("pk"), state=State.RUNNING).values("tenant")
        stored = Artefact.objects.filter(tenant=models.OuterRef("pk"), state=Artefact.State.SEALED).values("tenant")
        return (
            super()
            .get_queryset(request)
            .annotate(
                running=models.Subquery(running.annotate(count=Count("id")).values("count")),
                stored=models.Subquery(stored.annotate(sum=Sum("stored_bytes")).values("sum")),
            )
        )

    @admin.display(description="running jobs")
    def shown_running(self, row: Any) -> str:
        return f"{row.running or 0} of {tenants.limits(row)['max_running_jobs']}"

    @admin.display(description="stored")
    def shown_storage(self, row: Any) -> str:
        limit = tenants.limits(row)["storage_bytes"]
        return f"{size(row.stored or 0)} of {'any' if limit is None else size(limit)}"

    @admin.display(description="requests a second")
    def shown_rate(self, row: Any) -> str:
        return number(tenants.limits(row)["requests_per_second"])


class OwnedAdmin(OperatorAdmin):
    """A tenant's rows, with the tenant's name."""

    list_select_related = ("tenant",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).only("id", "tenant__name", "tenant__display_name", *self.columns)

    @admin.display(description="tenant", ordering="tenant__name")
    def shown_tenant(self, row: Any) -> str:
        return row.tenant.name


class JobsAdmin(OwnedAdmin):
    slug, list_title = "jobs", "Jobs"
    columns = ("tenant", "kind", "state", "attempt", "queue", "worker", "progress", "error_code", "created_at")
    list_display = (
        *("shown_id", "shown_tenant", "kind", "shown_state", "shown_progress"),
        *("attempt", "queue", "worker", "error_code", "shown_created"),
    )
    list_filter = ("state", "kind", "tenant")

    @admin.display(description="job")
    def shown_id(self, row: Job) -> str:
        return ids.text("job", row.id)

    @admin.display(description="progress")
    def shown_progress(self, row: Job) -> str:
        return percent((row.progress or {}).get("fraction"))


class DeploymentsAdmin(OwnedAdmin):
    slug, list_title = "deployments", "Deployments"
    columns = ("tenant", "name", "state", "device", "error_code", "created_at")
    list_display = ("name", "shown_tenant", "shown_state", "device", "shown_replicas", "error_code", "shown_created")
    list_filter = ("state", "tenant")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).annotate(loaded=Count("replicas", filter=Q(replicas__state="ready")))

    @admin.display(description="loaded on")
    def shown_replicas(self, row: Any) -> str:
        return f"{row.loaded} node{'' if row.loaded == 1 else 's'}"


class KeysAdmin(OwnedAdmin):
    slug, list_title = "keys", "API keys"
    columns = ("tenant", "prefix", "scopes", "expires_at", "last_used_at", "revoked_at", "created_at")
    list_display = (
        "prefix",
        "shown_tenant",
        "shown_scopes",
        "shown_expires",
        "shown_used",
        "shown_revoked",
        "shown_created",
    )
    list_filter = ("tenant",)

    @admin.display(description="scopes")
    def shown_scopes(self, row: ApiKey) -> str:
        return f"{len(row.scopes)}"

    @admin.display(description="expires", ordering="expires_at")
    def shown_expires(self, row: ApiKey) -> str:
        return ago(row.expires_at) if row.expires_at else "never"

    @admin.display(description="last used", ordering="last_used_at")
    def shown_used(self, row: ApiKey) -> str:
        return ago(row.last_used_at) if row.last_used_at else "never"

    @admin.display(description="revoked", ordering="revoked_at")
    def shown_revoked(self, row: ApiKey) -> str:
        return ago(row.revoked_at)


class ArtefactsAdmin(OwnedAdmin):
    slug, list_title = "artefacts", "Artefacts"
    columns = ("tenant", "kind", "state", "size_bytes", "stored_bytes", "created_at", "expires_at", "destroyed_at")
    list_display = ("shown_id", "shown_tenant", "kind", "shown_state", "shown_stored", "shown_expires", "shown_created")
    list_filter = ("state", "kind", "tenant")

    @admin.display(description="artefact")
    def shown_id(self, row: Artefact) -> str:
        return ids.text("art", row.id)

    @admin.display(description="stored", ordering="stored_bytes")
    def shown_stored(self, row: Artefact) -> str:
        return size(row.stored_bytes)

    @admin.display(description="expires", ordering="expires_at")
    def shown_expires(self, row: Artefact) -> str:
        return ago(row.expires_at) if row.expires_at else "never"


class AuditAdmin(EntryColumns, OwnedAdmin):
    slug, list_title = "audit", "Audit"
    columns = (
        "tenant",
        "at",
        "actor_kind",
        "actor_id",
        "action",
        "object_kind",
        "object_id",
        "outcome",
        "from_address",
    )
    list_display = ("shown_at", "shown_tenant", "action", "shown_actor", "shown_object", "outcome", "from_address")
    list_filter = ("action", "actor_kind", "tenant")


class OperatorSite(ClosedSite):
    """For those whose account says is_operator."""

    admin_base = OperatorAdmin
    settings_name = "UNFOLD_OPERATOR"
    index_title = "Platform"
    index_template = "console/operator.html"

    def has_permission(self, request: Any) -> bool:
        return bool(request.user.is_active and getattr(request.user, "is_operator", False))

    def index(self, request: HttpRequest, extra_context: Any = None) -> TemplateResponse:
        return super().index(request, {"crumbs": [("Platform", None)], "counts": counts(), **(extra_context or {})})


def counts() -> list[tuple[str, int | str, str]]:
    """(what, how many, the list's address)"""
    stored = Artefact.objects.filter(state=Artefact.State.SEALED).aggregate(sum=Sum("stored_bytes"))["sum"] or 0
    return [
        ("Tenants", Tenant.objects.count(), "operator:tenants_tenant_changelist"),
        ("Members", Member.objects.count(), "operator:tenants_tenant_changelist"),
        ("Running jobs", Job.objects.filter(state=State.RUNNING).count(), "operator:jobs_job_changelist"),
        ("Waiting jobs", Job.objects.filter(state=State.QUEUED).count(), "operator:jobs_job_changelist"),
        (
            "Deployments",
            Deployment.objects.exclude(state=Deployment.State.STOPPED).count(),
            "operator:deployments_deployment_changelist",
        ),
        ("Live keys", ApiKey.objects.filter(revoked_at=None).count(), "operator:access_apikey_changelist"),
        ("Sealed", size(stored), "operator:vault_artefact_changelist"),
    ]


site = OperatorSite(name="operator")
