"""The instance's own documentation of its API: the schema, the page that renders it, and one page with every code."""

from __future__ import annotations

import functools

from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularSwaggerSplitView

from strongroom.errors import TITLES

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Errors · Strongroom</title>
<style nonce="{}">body{{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}}
td{{padding:.2rem .8rem .2rem 0;vertical-align:top}}tr:target{{background:#fe9}}</style></head>
<body><h1>Errors</h1>
<p>Every failure of <code>/api/v1</code> is <code>application/problem+json</code> (RFC 9457); its <code>type</code>
points here, its <code>errors</code> name each problem with a JSON pointer and a hint, and its <code>request_id</code>
is in our log.</p>
<table>{}</table></body></html>
"""


@functools.cache
def _schema() -> bytes:
    """The same for everybody, and drawing it takes a tenth of a second: once a process."""
    return bytes(OpenApiJsonRenderer().render(SchemaGenerator().get_schema(request=None, public=True)))


@require_safe
def schema(request: HttpRequest) -> HttpResponse:
    """`/api/v1/schema`: OpenAPI 3.1, public as the routes are."""
    return HttpResponse(_schema(), content_type="application/vnd.oai.openapi+json")


schema.is_open = True  # type: ignore[attr-defined]  # read by the middleware: no key is asked


class DocumentsView(SpectacularSwaggerSplitView):
    """`/docs`, without any outside resource and without inline scripts."""

    url_name = "schema"
    authentication_classes: list[type] = []


@require_safe
def errors(request: HttpRequest) -> HttpResponse:
    """`/docs/errors`: one row a code."""
    rows = sorted((status, code, title) for code, (status, title) in TITLES.items())
    table = format_html_join(
        "\n",
        '<tr id="{}"><td>{}</td><td><code>{}</code></td><td>{}</td></tr>',
        ((code, status, code, title) for status, code, title in rows),
    )
    return HttpResponse(format_html(_PAGE, getattr(request, "csp_nonce", ""), table))
