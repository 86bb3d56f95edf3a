"""Root URLs of what Django answers: the native API of every room, its documentation, the two admin sites."""

from __future__ import annotations

from importlib.util import find_spec

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, URLResolver, include, path

from strongroom.rest import documents, failures

API = [
    path("", include(f"strongroom.{room}.api"))
    for room in ("access", "tenants", "datasets", "registry", "jobs", "deployments")
    if find_spec(f"strongroom.{room}.api")
]


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")


urlpatterns: list[URLPattern | URLResolver] = [
    path("", home),
    path("api/v1/", include(API)),
    path("api/v1/schema", documents.schema, name="schema"),
    path("docs", documents.DocumentsView.as_view()),
    path("docs/errors", documents.errors),
]

handler400 = failures.malformed
handler403 = failures.denied
handler404 = failures.not_found
handler500 = failures.internal
