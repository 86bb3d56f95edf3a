"""The tenant itself in the native API: `/tenant`. (An api.py stands above all rooms: it may ask vault and jobs.)"""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from strongroom import ids
from strongroom.jobs import services as jobs
from strongroom.rest.bodies import moment
from strongroom.rest.fields import Moment, PrefixedId
from strongroom.rest.views import ResourceView
from strongroom.tenants import services
from strongroom.tenants.models import Tenant, TenantState
from strongroom.vault import services as vault


class Limits(serializers.Serializer[Any]):
    max_running_jobs = serializers.IntegerField(allow_null=True)
    storage_bytes = serializers.IntegerField(allow_null=True)
    upload_bytes = serializers.IntegerField(allow_null=True)
    requests_per_second = serializers.IntegerField(allow_null=True)


class InUse(serializers.Serializer[Any]):
    running_jobs = serializers.IntegerField()
    storage_bytes = serializers.IntegerField()


class TenantBody(serializers.Serializer[Any]):
    id = PrefixedId("ten")
    name = serializers.CharField()
    display_name = serializers.CharField(allow_null=True)
    state = serializers.ChoiceField(TenantState.choices)
    limits = Limits()
    usage = InUse()
    created_at = Moment()


class TenantView(ResourceView):
    scopes = {"GET": "tenant:read"}

    @extend_schema(operation_id="read_tenant", tags=["tenant"], responses=TenantBody)
    def get(self, request: Any) -> Response:
        """The tenant of the key or of the session: its limits and what is in use."""
        tenant = Tenant.objects.get(id=request.principal.tenant_id)
        usage = {
            "running_jobs": jobs.jobs(state="running").count(),
            "storage_bytes": vault.stored_bytes(tenant.id),
        }
        return Response(
            {
                "id": ids.text("ten", tenant.id),
                "name": tenant.name,
                "display_name": tenant.display_name or None,
                "state": tenant.state,
                "limits": services.limits(tenant),
                "usage": usage,
                "created_at": moment(tenant.created_at),
            }
        )


urlpatterns = [path("tenant", TenantView.as_view())]
