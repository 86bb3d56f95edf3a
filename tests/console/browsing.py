"""A signed-in browser without scripts: opens pages, fills in forms with their tokens, presses buttons. And the list of
all pages, read from the two sites' own tables of addresses, so that a new page is walked by the tests at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver

from strongroom.console import members, operators, urls
from strongroom.console.sites import ClosedSite
from strongroom.tenants.models import User

SITES: Mapping[str, ClosedSite] = {"/admin/": members.site, "/operator/": operators.site}
assert urls.urlpatterns  # what registers the pages


class Browser:
    """Django's client with CSRF enforced, as that person or as nobody."""

    def __init__(self, user: User | None = None) -> None:
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=True)
        if user is not None:
            self.client.force_login(user)

    def open(self, address: str, **query: Any) -> HttpResponse:
        return self.client.get(address, query)

    def text(self, address: str) -> str:
        """The page, which must be there."""
        answer = self.open(address)
        assert answer.status_code in (200, 286), (address, answer.status_code)
        return answer.content.decode()

    def post(self, address: str, data: Mapping[str, Any] | None = None, *, token: bool = True) -> HttpResponse:
        """With the token of a page of this site, as a form sends it."""
        given = dict(data or {})
        if token:
            given["csrfmiddlewaretoken"] = self.token()
        return self.client.post(address, given)

    def token(self) -> str:
        found = re.search(
            r'name="csrfmiddlewaretoken" value="(\w+)"', self.client.get("/admin/login/").content.decode()
        )
        assert found is not None
        return found[1]

    def follow(self, answer: HttpResponse) -> str:
        assert answer.status_code == 302, (answer.status_code, answer.content[:500])
        return self.text(answer["Location"])


@dataclass(frozen=True)
class Page:
    """One address of a site, its parameters still open."""

    site: str
    name: str  # such as jobs_job_change
    route: str  # such as /admin/jobs/<uuid:pk>/
    parameters: tuple[str, ...] = field(default=())

    @property
    def model(self) -> str:
        """The beginning of its name: jobs_job."""
        return "_".join(self.name.split("_")[:2])

    def address(self, **values: Any) -> str:
        return re.sub(r"<\w+:(\w+)>", lambda found: str(values[found[1]]), self.route)


def pages() -> list[Page]:
    """Every page of both sites."""
    return [page for prefix, site in SITES.items() for page in _walk(prefix, prefix, site.get_urls())]


def _walk(site: str, prefix: str, patterns: list[Any]) -> Iterator[Page]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(site, route, pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            yield Page(site, pattern.name or "", route, tuple(re.findall(r"<\w+:(\w+)>", route)))


def verbs_of(page: Page) -> tuple[str, ...]:
    """The buttons behind a page's `<verb>`."""
    for admin in SITES[page.site]._registry.values():
        if page.model == admin.names:
            return tuple(admin.verbs)
    return ()


def addresses(page: Page, objects: Mapping[str, Any]) -> list[str]:
    """Where the page is for another's objects: one address, or one for each button."""
    if not page.parameters:
        return [page.address()]
    thing = objects[page.model]
    values: dict[str, Any] = {"pk": thing.pk, "name": getattr(thing, "dataset", thing), "number": 1}
    if "verb" in page.parameters:
        return [page.address(**values, verb=verb) for verb in verbs_of(page)]
    return [page.address(**values)]
