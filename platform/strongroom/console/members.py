"""The tenants' panel at /admin/: the site, the base class of its pages, the switch between tenants.

Every query runs in the scope of the chosen tenant (access/middleware.py) and through the scoped managers. What a member
may do follows from the same scopes as an API key's. Pages parse, call one service, show; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from strongroom.access.members import note_password
from strongroom.access.services import Principal
from strongroom.access.sessions import TENANT_KEY
from strongroom.console import overview
from strongroom.console.forms.document import DocumentForm
from strongroom.console.sites import ClosedAdmin, ClosedSite
from strongroom.errors import StrongroomError
from strongroom.tenants import scope
from strongroom.tenants.actor import Actor
from strongroom.tenants.models import Owned

TENANT_FIELD = "_tenant"
POLLING_ENDS = 286  # htmx stops asking at this status


def principal_of(request: Any) -> Principal:
    principal: Principal = request.principal
    return principal


def tenant_of(request: Any) -> UUID:
    return principal_of(request).tenant_id


def actor_of(request: Any) -> Actor:
    return principal_of(request).actor


class TenantAdmin(ClosedAdmin):
    """The pages of one kind of a tenant's objects.

    object_template   the page of one object, at `<id>/`
    live_template     the part of it that is asked for again each second, at `<id>/live/`
    verbs             what its buttons do: a method (request, object) → where to go, or None for the object's page
    adds              pages that make something: name of the page → method (request)

    Nothing is changed by Django's own forms.
    """

    view_scope: ClassVar[str]
    change_scope: ClassVar[str | None] = None
    object_template: ClassVar[str | None] = None
    live_template: ClassVar[str | None] = None
    verbs: ClassVar[Sequence[str]] = ()
    adds: ClassVar[Mapping[str, str]] = {}

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

    def own_urls(self) -> list[Any]:
        view, names = self.admin_site.admin_view, self.names
        urls = [path(f"{add}/", view(self.changing(getattr(self, add))), name=f"{names}_{add}") for add in self.adds]
        if self.object_template is not None:
            urls.append(path("<uuid:pk>/", view(self.object_view), name=f"{names}_change"))
        if self.live_template is not None:
            urls.append(path("<uuid:pk>/live/", view(self.live_view), name=f"{names}_live"))
        if self.verbs:
            urls.append(path("<uuid:pk>/<slug:verb>/", view(self.verb_view), name=f"{names}_verb"))
        return urls

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        adds = [(title, self.url(add)) for add, title in self.adds.items()] if self.may_change(request) else []
        return super().changelist_view(request, {"adds": adds, **(extra_context or {})})

    def one(self, request: HttpRequest, pk: UUID) -> Any:
        """The object, if this member may see it; another tenant's and an unknown one answer the same 404."""
        found = self.get_queryset(request).filter(pk=pk).first()
        if found is None or not self.has_view_permission(request, found):
            raise Http404
        return found

    def object_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        obj = self.one(request, pk)
        return self.object_page(request, obj)

    def object_page(self, request: HttpRequest, obj: Any, status: int = 200, **context: Any) -> TemplateResponse:
        shown = self.object_context(request, obj) | context
        return self.page(request, str(self.object_template), str(obj), status, object=obj, **shown)

    def object_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        return {}

    def live_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The moving part alone. Its buttons come with it only where the state changed since they were drawn."""
        obj = self.one(request, pk)
        moving = self.is_moving(obj)
        context = {**self.object_context(request, obj), "object": obj, "may_change": self.may_change(request)}
        context |= {"moved": request.GET.get("seen") != self.state_seen(obj), "is_fragment": True}
        context |= self.addresses(obj)
        return TemplateResponse(request, str(self.live_template), context, status=200 if moving else POLLING_ENDS)

    def is_moving(self, obj: Any) -> bool:
        """Whether the page should go on asking."""
        return False

    def state_seen(self, obj: Any) -> str:
        """What decides which buttons there are."""
        return str(obj.state)

    def page(
        self, request: HttpRequest, template: str, title: str, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """One of our pages in the panel's frame."""
        whole = {**self.admin_site.each_context(request), "title": title, "opts": self.opts}
        whole |= {"may_change": self.may_change(request), "list_url": self.url("changelist")}
        whole |= {"crumbs": [(self.list_title, self.url("changelist")), (title, None)]}
        if (obj := context.get("object")) is not None:
            whole |= self.addresses(obj)
        return TemplateResponse(request, template, whole | context, status=status)

    def addresses(self, obj: Any) -> dict[str, Any]:
        """Where the object's buttons and its moving part are."""
        found: dict[str, Any] = {"verb_urls": {verb: self.url("verb", obj.pk, verb) for verb in self.verbs}}
        if self.live_template is not None:
            found |= {"live_url": self.url("live", obj.pk), "moving": self.is_moving(obj), "seen": self.state_seen(obj)}
        return found

    # --- what they do

    def changing(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        """A page for those who may change something."""

        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not self.may_change(request):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

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
        return answer or redirect(self.url("change", pk) if self.object_template else self.url("changelist"))

    def filled(self, form: DocumentForm, act: Callable[[dict[str, Any]], HttpResponse]) -> HttpResponse | None:
        """What `act` makes of a form that was sent; None where the form has to be shown (again).

        `act` calls one service, in a savepoint; each of its errors is hung on the field it is about.
        """
        if not form.is_valid():
            return None
        try:
            with transaction.atomic(using=scope.alias()):
                return act(form.document)
        except StrongroomError as error:
            form.hang(error)
            return None

    def form_page(
        self, request: HttpRequest, template: str, title: str, form: DocumentForm, **context: Any
    ) -> TemplateResponse:
        """422 where there are errors: the middleware undoes what was written until then."""
        return self.page(request, template, title, 422 if form.errors else 200, form=form, **context)


class MemberSite(ClosedSite):
    """For members: what the role allows in the tenant chosen in the header."""

    admin_base = TenantAdmin
    settings_name = "UNFOLD"
    index_title = "Overview"
    index_template = "console/overview.html"

    def has_permission(self, request: Any) -> bool:
        return request.user.is_active and getattr(request, "principal", None) is not None

    def admin_view(  # type: ignore[override]  # as in ClosedSite
        self, view: Callable[..., Any], cacheable: bool = False
    ) -> Callable[..., Any]:
        """A form names the tenant it was drawn for; sent after a switch in another tab, it changes nothing."""

        def same_tenant(request: Any, *args: Any, **kwargs: Any) -> Any:
            drawn_for = request.POST.get(TENANT_FIELD)
            if drawn_for is not None and drawn_for != str(tenant_of(request)):
                messages.error(request, "The tenant was switched in another tab; nothing was changed.")
                return redirect(f"{self.name}:index")
            return view(request, *args, **kwargs)

        return super().admin_view(same_tenant, cacheable)

    def own_urls(self) -> list[Any]:
        return [
            path("tenant/", self.admin_view(self.choose), name="choose_tenant"),
            path("running/", self.admin_view(self.running), name="running"),
        ]

    def each_context(self, request: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().each_context(request)
        if (member := getattr(request, "member", None)) is not None:
            choices = [other for other in request.memberships() if other.tenant_id != member.tenant_id]
            context |= {"member": member, "tenant": member.tenant, "choices": choices}
        return context

    def password_change(  # type: ignore[override]  # Django answers with a redirect, too
        self, request: Any, extra_context: Any = None
    ) -> HttpResponse:
        answer = super().password_change(request, extra_context)
        if isinstance(answer, HttpResponseRedirect):  # the form was taken
            note_password(principal_of(request))
        return answer

    def index(self, request: HttpRequest, extra_context: Any = None) -> TemplateResponse:
        facts = overview.facts(principal_of(request))
        return super().index(request, {"crumbs": [("Overview", None)], **facts, **(extra_context or {})})

    def running(self, request: HttpRequest) -> HttpResponse:
        """The overview's jobs, asked for again while some are under way."""
        facts = overview.jobs_facts(principal_of(request))
        status = 200 if facts["running"] else POLLING_ENDS
        return TemplateResponse(request, "console/overview_jobs.html", facts, status=status)

    def choose(self, request: Any) -> HttpResponse:
        """The switch: a membership of one's own, or nothing changes."""
        if request.method != "POST":
            raise Http404
        wanted = request.POST.get("tenant", "")
        if any(str(member.tenant_id) == wanted for member in request.memberships()):
            request.session[TENANT_KEY] = wanted
        return redirect(reverse(f"{self.name}:index"))


site = MemberSite(name="admin")
