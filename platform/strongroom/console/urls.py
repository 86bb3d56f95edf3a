"""What stands in which site, and where the two sites are."""

from __future__ import annotations

from django.urls import path

from strongroom.access.models import ApiKey
from strongroom.audit.models import Entry
from strongroom.console import members, operators
from strongroom.console.pages.audit import AuditAdmin
from strongroom.console.pages.datasets import DatasetVersionAdmin
from strongroom.console.pages.deployments import DeploymentAdmin
from strongroom.console.pages.jobs import JobAdmin
from strongroom.console.pages.keys import ApiKeyAdmin
from strongroom.console.pages.members import MemberAdmin
from strongroom.console.pages.models import ModelVersionAdmin
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments.models import Deployment
from strongroom.jobs.models import Job
from strongroom.registry.models import ModelVersion
from strongroom.tenants.models import Member, Tenant
from strongroom.vault.models import Artefact

members.site.register(DatasetVersion, DatasetVersionAdmin)
members.site.register(Job, JobAdmin)
members.site.register(ModelVersion, ModelVersionAdmin)
members.site.register(Deployment, DeploymentAdmin)
members.site.register(ApiKey, ApiKeyAdmin)
members.site.register(Member, MemberAdmin)
members.site.register(Entry, AuditAdmin)

operators.site.register(Tenant, operators.TenantsAdmin)
operators.site.register(Job, operators.JobsAdmin)
operators.site.register(Deployment, operators.DeploymentsAdmin)
operators.site.register(ApiKey, operators.KeysAdmin)
operators.site.register(Artefact, operators.ArtefactsAdmin)
operators.site.register(Entry, operators.AuditAdmin)

urlpatterns = [path("admin/", members.site.urls), path("operator/", operators.site.urls)]
