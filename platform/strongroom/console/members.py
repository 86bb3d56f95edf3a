"""The tenants' panel at /admin/: the site, the base class of its pages, the switch between tenants.

Every query runs in the scope of the chosen tenant (access/middleware.py) and through the scoped managers. What a member
may do follows from the same scopes as an API key's. Pages parse, call one service, show; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from strongroom.access.services import memberships
from strongroom.access.sessions import TENANT_KEY
from strongroom.console import overview
from strongroom.console.sites import ClosedAdmin, ClosedSite
from strongroom.errors import StrongroomError
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Owned


class TenantAdmin(ClosedAdmin):
    """The pages of one kind of a tenant's objects.

    `object_template` is the page of one object; `verbs` are what its buttons may do: name → method of this class, called
    with (request, object) after permission and CSRF were checked. Nothing is changed by Django's own forms.
    """

    view_scope: ClassVar[str]
    change_scope: ClassVar[str | None] = None
    object_template: ClassVar[str]
    verbs: ClassVar[Sequence[str]] = ()
    actions = None
    list_display_links: Any = None

    # --- who may

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._holds(request, self.view_scope)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._holds(request, self.view_scope) and (obj is None or obj.tenant_id == tenant_of(request))

    def may_change(self, request: HttpRequest) -> bool:
        return self.change_scope is not None and self._holds(request, self.change_scope)

    def _holds(self, request: Any, wanted: str) -> bool:
        return request.principal is not None and wanted in request.principal.scopes

    # --- what they see

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).filter(tenant_id=tenant_of(request))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        remote = db_field.remote_field.model
        if not issubclass(remote, Owned):
            raise ImproperlyConfigured(f"{db_field} points at {remote}, which no tenant owns")
        kwargs["queryset"] = remote.objects.filter(tenant_id=tenant_of(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_urls(self) -> list[Any]:
        """The list, the page of an object, its buttons, and what a class adds; none of Django's forms."""
        view, names = self.admin_site.admin_view, self.name
        return [
            path("", view(self.changelist_view), name=f"{names}_changelist"),
            *self.own_urls(),
            path("<uuid:pk>/change/", view(self.object_view), name=f"{names}_change"),
            path("<uuid:pk>/<slug:verb>/", view(self.verb_view), name=f"{names}_verb"),
        ]

    def own_urls(self) -> list[Any]:
        return []

    @property
    def name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def one(self, request: HttpRequest, pk: UUID) -> Any:
        """The object, if this member may see it; another tenant's and an unknown one answer the same 404."""
        found = self.get_queryset(request).filter(pk=pk).first()
        if found is None or not self.has_view_permission(request, found):
            raise Http404
        return found

    def object_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        obj = self.one(request, pk)
        return self.page(request, self.object_template, str(obj), object=obj, **self.object_context(request, obj))

    def object_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {}

    def page(
        self, request: HttpRequest, template: str, title: str, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """One of our pages in the panel's frame."""
        whole = {**self.admin_site.each_context(request), "title": title, "opts": self.opts}
        whole |= {"may_change": self.may_change(request), "list_url": self.url("changelist"), **context}
        return TemplateResponse(request, template, whole, status=status)

    def url(self, what: str, *args: Any) -> str:
        return reverse(f"{self.admin_site.name}:{self.name}_{what}", args=args)

    # --- what they do

    def verb_view(self, request: HttpRequest, pk: UUID, verb: str) -> HttpResponse:
        """One button: POST, permitted, one service call in a savepoint; a failure becomes a message."""
        obj = self.one(request, pk)
        if request.method != "POST" or verb not in self.verbs:
            raise Http404
        if not self.may_change(request):
            raise PermissionDenied
        done: Callable[[HttpRequest, Any], HttpResponse | None] = getattr(self, verb)
        try:
            with transaction.atomic(using=scope.alias()):
                answer = done(request, obj)
        except StrongroomError as error:
            messages.error(request, error.detail)
            answer = None
        return answer or redirect(self.url("change", pk))


def tenant_of(request: Any) -> UUID:
    tenant_id: UUID = request.principal.tenant_id
    return tenant_id


def actor_of(request: Any) -> Actor:
    actor: Actor = request.principal.actor
    return actor


class MemberSite(ClosedSite):
    """For members: what the role allows in the tenant chosen in the header."""

    admin_base = TenantAdmin
    settings_name = "UNFOLD"
    index_title = "Overview"
    index_template = "console/overview.html"

    def has_permission(self, request: Any) -> bool:
        return request.user.is_active and getattr(request, "principal", None) is not None

    def get_urls(self) -> list[Any]:
        return [path("tenant/", self.admin_view(self.choose), name="choose_tenant"), *super().get_urls()]

    def each_context(self, request: Any) -> dict[str, Any]:
        context = super().each_context(request)
        if (member := getattr(request, "member", None)) is not None:
            context |= {"member": member, "tenant": member.tenant, "choices": request.memberships()}
        return context

    def index(self, request: HttpRequest, extra_context: Any = None) -> TemplateResponse:
        return super().index(request, {**(extra_context or {}), **overview.facts(request)})

    def choose(self, request: Any) -> HttpResponse:
        """The switch: a membership of one's own, or nothing changes."""
        if request.method != "POST":
            raise Http404
        wanted = request.POST.get("tenant", "")
        if any(str(member.tenant_id) == wanted for member in request.memberships()):
            request.session[TENANT_KEY] = wanted
        return redirect(f"{self.name}:index")


site = MemberSite(name="admin")
