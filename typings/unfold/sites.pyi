# Django's site, typed as what a site of ours does with it: views and answers of any kind.
from collections.abc import Callable
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse

class UnfoldAdminSite(AdminSite):
    settings_name: str
    def admin_view(self, view: Callable[..., Any], cacheable: bool = ...) -> Callable[..., Any]: ...  # type: ignore[override]
    def login(self, request: HttpRequest, extra_context: Any = ...) -> HttpResponse: ...
    def logout(self, request: HttpRequest, extra_context: Any = ...) -> HttpResponse: ...  # type: ignore[override]
