"""Root URLs of what Django answers: the native API of every room, its documentation, the two admin sites."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, URLResolver, include, path

from strongroom.edge import openapi  # noqa: F401  # adds the edge's operations to the schema
from strongroom.rest import documents, failures

ROOMS = ("access", "tenants", "datasets", "registry", "jobs", "deployments", "metering")
API = [path("", include(f"strongroom.{room}.api")) for room in ROOMS]


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/admin/")


urlpatterns: list[URLPattern | URLResolver] = [
    path("", home),
    path("api/v1/", include(API)),
    path("api/v1/schema", documents.schema, name="schema"),
    path("docs", documents.DocumentsView.as_view()),
    path("docs/errors", documents.errors),
    path("", include("strongroom.console.urls")),
]

handler400 = failures.malformed
handler403 = failures.denied
handler404 = failures.not_found
handler500 = failures.internal
