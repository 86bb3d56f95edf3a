"""What both admin sites share: who gets in, which addresses there are, and what of Django's admin neither may have.

Every hole of Django's admin between tenants and its remedy is listed in docs/decisions/004-two-admin-sites.md; a test
walks every registered page of both sites as the wrong tenant. Knows nothing of tenants and operators: members.py,
operators.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.admin.options import ModelAdmin as DjangoModelAdmin
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import include, path, reverse
from unfold.admin import ModelAdmin
from unfold.forms import AuthenticationForm as UnfoldLogin
from unfold.sites import UnfoldAdminSite


class Login(UnfoldLogin):
    """Django's own form asks for staff; here whoever is active may sign in, and has_permission says what they see."""

    def confirm_login_allowed(self, user: Any) -> None:
        AuthenticationForm.confirm_login_allowed(self, user)


class ClosedSite(UnfoldAdminSite):
    """An admin site that takes only classes made for it and has only the addresses listed in `get_urls`."""

    login_form = Login
    login_template = "console/login.html"
    admin_base: type[ClosedAdmin]

    def admin_view(  # type: ignore[override]  # the stubs bind the view's type, which a wrapper cannot give
        self, view: Callable[..., Any], cacheable: bool = False
    ) -> Callable[..., Any]:
        """`{% url 'admin:…' %}` in a page of this site leads to this site, not to the one named admin."""

        def named(request: Any, *args: Any, **kwargs: Any) -> Any:
            request.current_app = self.name
            return view(request, *args, **kwargs)

        return super().admin_view(named, cacheable)

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        if admin_class is None or not issubclass(admin_class, self.admin_base):
            raise ImproperlyConfigured(f"{self.name} takes subclasses of {self.admin_base.__name__} only")
        super().register(model_or_iterable, admin_class, **options)

    def get_urls(self) -> list[Any]:
        """Not Django's list: its autocomplete, search, content types' short cut and lists of apps are not wanted.

        Signing in and out need no permission; a member without one must be able to leave.
        """
        view = self.admin_view
        return [
            path("", view(self.index), name="index"),
            path("login/", self.login, name="login"),
            path("logout/", self.logout, name="logout"),
            path("password_change/", view(self.password_change), name="password_change"),
            path("password_change/done/", view(self.password_change_done), name="password_change_done"),
            *self.own_urls(),
            *(path(f"{admin.slug}/", include(admin.urls)) for admin in self.pages()),
        ]

    def own_urls(self) -> list[Any]:
        return []

    def pages(self) -> list[ClosedAdmin]:
        """The classes registered here."""
        return [admin for admin in self._registry.values() if isinstance(admin, ClosedAdmin)]

    def login(self, request: Any, extra_context: Any = None) -> HttpResponse:
        """After signing in one lands on this site, though the form was opened without `?next=`."""
        request.current_app = self.name  # as in admin_view
        request.GET = request.GET.copy()
        request.GET.setdefault(REDIRECT_FIELD_NAME, reverse(f"{self.name}:index"))
        return super().login(request, extra_context)

    def logout(  # type: ignore[override]  # Django answers with a redirect, too
        self, request: Any, extra_context: Any = None
    ) -> HttpResponse:
        request.current_app = self.name
        return super().logout(request, extra_context)

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """The side bar is a setting (settings/panel.py)."""
        return []


class ClosedAdmin(ModelAdmin):
    """One kind of object: a list, and what a subclass adds. None of Django's forms, deletions, actions and history."""

    slug: str
    list_title: str
    change_list_template = "console/list.html"
    list_before_template = "console/list_before.html"
    view_on_site = False
    actions = None
    list_per_page = 50
    list_filter_sheet = True
    show_full_result_count = False

    @property
    def names(self) -> str:
        """What the names of this class's addresses begin with."""
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [path("", view(self.changelist_view), name=f"{self.names}_changelist"), *self.own_urls()]

    def own_urls(self) -> list[Any]:
        return []

    def url(self, what: str, *args: Any) -> str:
        return reverse(f"{self.admin_site.name}:{self.names}_{what}", args=args)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            raise SuspiciousOperation("a query with NUL")  # PostgreSQL would fall over it
        context = {"title": self.list_title, "crumbs": [(self.list_title, None)], **(extra_context or {})}
        return super().changelist_view(request, context)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Sealed and other binary columns stay in the database until one of our pages asks for them."""
        binary = [field.name for field in self.opts.concrete_fields if isinstance(field, models.BinaryField)]
        return super().get_queryset(request).defer(*binary)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what list_filter names: Django allows `?secret__startswith=` on every local column."""
        if request is None:
            return False
        names = {f if isinstance(f, str) else f[0] for f in self.get_list_filter(request)}
        return any(lookup in (n, f"{n}__exact", f"{n}__id__exact", f"{n}__isnull", f"{n}__in") for n in names)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # Not reachable: get_urls has no such address. Whoever adds one meets these.

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Steps past unfold's mixin: it takes a POST with a field named `dataset` for its own and saves nothing."""
        return DjangoModelAdmin.changeform_view(self, request, object_id, form_url, extra_context)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        raise Http404

    def log_addition(  # type: ignore[override]  # there is no entry to give back
        self, request: HttpRequest, obj: Any, message: Any
    ) -> None:
        """Django's log has no tenant; audit/ is written by the services."""

    log_change = log_deletion = log_deletions = log_addition
