"""What both admin sites share: who gets in, how a page is named, and what Django's admin offers that neither may have.

Every hole of Django's admin between tenants and its remedy is listed in docs/decisions/004-two-admin-sites.md; a test
walks every registered page of both sites as the wrong tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.admin.options import ModelAdmin as DjangoModelAdmin
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.forms import AuthenticationForm as UnfoldLogin
from unfold.sites import UnfoldAdminSite


class Login(UnfoldLogin):
    """Django's own form asks for staff; here whoever is active may sign in, and has_permission says what they see."""

    def confirm_login_allowed(self, user: Any) -> None:
        AuthenticationForm.confirm_login_allowed(self, user)


class ClosedSite(UnfoldAdminSite):
    """An admin site that takes only classes made for it."""

    login_form = Login
    admin_base: type[ModelAdmin]
    enable_nav_sidebar = True

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        def named(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            request.current_app = self.name  # type: ignore[attr-defined]  # else `{% url 'admin:…' %}` leads to the other site
            return view(request, *args, **kwargs)

        return super().admin_view(named, cacheable)

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        if admin_class is None or not issubclass(admin_class, self.admin_base):
            raise ImproperlyConfigured(f"{self.name} takes subclasses of {self.admin_base.__name__} only")
        super().register(model_or_iterable, admin_class, **options)

    def get_urls(self) -> list[Any]:
        """Without the content types' short cut, which looks objects up across tenants."""
        return [url for url in super().get_urls() if getattr(url, "name", "") != "view_on_site"]

    def search(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """unfold keeps results for five minutes by user and term, whatever the tenant or role is by then: off."""
        raise Http404


class ClosedAdmin(ModelAdmin):
    """No history of Django's own (audit/ has it), no look-ups on columns that the list does not filter by."""

    view_on_site = False
    list_per_page = 50
    show_full_result_count = False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what list_filter names: Django allows `?secret__startswith=` on every local column."""
        if request is None:
            return False
        names = {f if isinstance(f, str) else f[0] for f in self.get_list_filter(request)}
        return any(lookup in (n, f"{n}__exact", f"{n}__id__exact", f"{n}__isnull", f"{n}__in") for n in names)

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return to_field in ("id", "pk")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        raise Http404

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """Django's log has no tenant; audit/ is written by the services."""

    log_change = log_deletion = log_deletions = log_addition

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Steps past unfold's mixin: it takes a POST with a field named `dataset` for its own and saves nothing."""
        return DjangoModelAdmin.changeform_view(self, request, object_id, form_url, extra_context)
