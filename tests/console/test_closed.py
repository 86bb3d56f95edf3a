"""What of Django's and unfold's admin is shut, each way that docs/decisions/004-two-admin-sites.md names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import unfold
from django.contrib.admin.options import ModelAdmin
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.test import RequestFactory
from unfold.admin import ModelAdmin as UnfoldAdmin
from unfold.mixins import DatasetModelAdminMixin

from strongroom.access.services import principal_of
from strongroom.console import members, operators, sites
from strongroom.console.members import TenantAdmin
from strongroom.console.operators import OperatorAdmin
from strongroom.console.pages.jobs import JobAdmin
from strongroom.jobs.models import Job
from strongroom.tenants import scope
from strongroom.tenants.models import Member, Owned, User
from tests.callers import Deposit
from tests.console.browsing import SITES, Browser, pages
from tests.console.rows import Filled

pytestmark = pytest.mark.slow  # a minute of pages: left out of make fast

CONSOLE = Path(sites.__file__).parent
ADMINS = [(site, admin) for site in SITES.values() for admin in site._registry.values()]
# Our copies (templates/unfold) stand for these; where an upgrade changes one, look at what it changed, then at ours.
ORIGINALS = {
    "layouts/skeleton.html": "66af9f0bb45f98ba4e16ba5e5a11f36d87b8e07430d19066d088b29548491c2e",
    "helpers/search.html": "91996c27181d14ade8b4cbf84d90a4b0d293fdd92ae4325cda0f6889c29e28fb",
    "helpers/welcomemsg.html": "e8eab02522ba2319b937086bbcb6bf2a2bbe1489d236ad90ff23edbe070a7d6b",
    "helpers/command.html": "ae6ce324d85366131fc82945b3c35c1b980829229508343993e6adcbee4c975d",
}


def test_the_templates_that_ours_stand_for_are_those_that_we_looked_at() -> None:
    folder = Path(unfold.__file__).parent / "templates" / "unfold"
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ORIGINALS}
    assert found == ORIGINALS
    assert {
        str(path.relative_to(CONSOLE / "templates/unfold")) for path in CONSOLE.glob("templates/unfold/*/*")
    } == set(ORIGINALS)


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
@pytest.mark.parametrize("admin", [None, UnfoldAdmin, ModelAdmin], ids=["none", "unfold's", "Django's"])
def test_a_site_takes_only_classes_made_for_it(site: sites.ClosedSite, admin: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        site.register(User, admin)


def test_a_class_made_for_one_site_is_refused_by_the_other() -> None:
    for site, foreign in ((members.site, OperatorAdmin), (operators.site, TenantAdmin)):
        with pytest.raises(ImproperlyConfigured):
            site.register(User, foreign)


def test_nothing_that_no_tenant_owns_is_in_the_members_site() -> None:
    assert all(issubclass(model, Owned) for model in members.site._registry)
    assert User not in {**members.site._registry, **operators.site._registry}


def test_djangos_forms_deletions_histories_searches_and_short_cuts_have_no_address() -> None:
    names = {page.name for page in pages()}
    assert not [name for name in names if re.search(r"_(add|history)$|autocomplete|search|view_on_site|app_list", name)]
    assert {page.name for page in pages() if page.site == "/operator/"} == {
        *("index", "login", "logout", "password_change", "password_change_done"),
        *(f"{admin.names}_changelist" for admin in operators.site._registry.values()),
    }


@pytest.mark.parametrize(
    "address",
    [
        "search/?s=acme",
        "autocomplete/?term=acme&app_label=jobs&model_name=job&field_name=dataset_version",
        "r/1/1/",
        "jobs/add/",
        "jobs/{pk}/history/",
        "jobs/{pk}/delete/",
        "jobs/{pk}/change/",
        "jsi18n/",
    ],
)
def test_djangos_own_addresses_are_404(address: str, at_acme: Filled, owner: Browser) -> None:
    for site in ("/admin/", "/operator/"):
        found = owner.open(site + address.format(pk=at_acme.job.pk))
        assert found.status_code == 404
        assert b"acme" not in found.content.replace(b"s=acme", b"")


@pytest.mark.parametrize(("site", "admin"), ADMINS, ids=lambda each: getattr(each, "names", getattr(each, "name", "")))
def test_a_lookup_that_no_filter_names_is_not_allowed(site: Any, admin: sites.ClosedAdmin) -> None:
    """Else a hidden column could be read letter by letter."""
    request = RequestFactory().get("/")
    named = {*admin.list_filter}
    for each in admin.opts.fields:
        for how in ("startswith", "contains", "gt", "lt", "regex", "range", "year"):
            assert not admin.lookup_allowed(f"{each.name}__{how}", "a", request)
        assert admin.lookup_allowed(each.name, "a", request) == (each.name in named)
    for path in ("tenant__name", "tenant__name__startswith", "user__password__startswith", "created_by_id", "pk__in"):
        assert not admin.lookup_allowed(path, "a", request)


@pytest.mark.parametrize(
    "address",
    [
        "/admin/jobs/?worker__startswith=n",
        "/admin/keys/?prefix__startswith=sr",
        "/admin/members/?user__password__startswith=md5",
        "/admin/datasets/?fingerprint__contains=a",
        "/operator/jobs/?spec_sha256__startswith=a",
        "/operator/keys/?secret_sha256__gt=a",
        "/operator/audit/?detail__contains=a",
    ],
)
def test_such_a_lookup_in_an_address_is_refused(
    address: str, at_acme: Filled, owner: Browser, operator: Browser
) -> None:
    browser = owner if address.startswith("/admin/") else operator
    assert browser.open(address).status_code == 400


def test_the_filters_that_a_list_names_work(at_acme: Filled, owner: Browser, operator: Browser) -> None:
    assert "acme-lenet" in owner.text("/admin/jobs/?state__exact=running")
    assert "acme-lenet" not in owner.text("/admin/jobs/?state__exact=failed")
    tenant = at_acme.deposit.id
    assert operator.open("/operator/jobs/", tenant__id__exact=str(tenant)).status_code == 200


def test_a_lookup_is_refused_without_a_request() -> None:
    assert not any(admin.lookup_allowed("state", "x") for _, admin in ADMINS)


@pytest.mark.parametrize(("site", "admin"), ADMINS, ids=lambda each: getattr(each, "names", getattr(each, "name", "")))
def test_djangos_permissions_are_all_off(site: sites.ClosedSite, admin: sites.ClosedAdmin, acme: Deposit) -> None:
    """The pages that change something are ours; Django's would find no permission."""
    request: Any = RequestFactory().get("/")
    request.user, request.principal = acme.owner.user, principal_of(acme.owner)
    assert not admin.has_add_permission(request)
    assert not admin.has_change_permission(request)
    assert not admin.has_delete_permission(request)
    assert admin.actions is None
    assert admin.view_on_site is False
    assert not admin.to_field_allowed(request, "id")


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_without_a_principal_there_is_no_permission(site: Any) -> None:
    request: Any = RequestFactory().get("/")
    request.user, request.principal = AnonymousUser(), None
    assert not site.has_permission(request)
    assert not any(admin.has_module_permission(request) for admin in site._registry.values())
    assert not any(admin.has_view_permission(request) for admin in site._registry.values())


def test_a_page_is_of_its_own_tenants_objects_only(at_acme: Filled, at_globex: Filled) -> None:
    request: Any = RequestFactory().get("/")
    request.user, request.principal = at_globex.deposit.owner.user, principal_of(at_globex.deposit.owner)
    admin: Any = members.site._registry[Job]
    assert admin.has_view_permission(request, at_globex.job)
    assert not admin.has_view_permission(request, at_acme.job)


def test_a_form_field_for_what_no_tenant_owns_is_refused(at_acme: Filled) -> None:
    """`Member.user`: a choice among all people of the platform."""
    request: Any = RequestFactory().get("/")
    request.principal = principal_of(at_acme.deposit.owner)
    admin: Any = members.site._registry[Member]
    with pytest.raises(ImproperlyConfigured):
        admin.formfield_for_foreignkey(Member._meta.get_field("user"), request)


def test_a_form_field_for_a_tenants_objects_offers_the_tenants_own(at_acme: Filled, at_globex: Filled) -> None:
    request: Any = RequestFactory().get("/")
    request.principal = principal_of(at_globex.deposit.owner)
    admin: Any = members.site._registry[Job]
    with scope.tenant(at_globex.deposit.id, write=False):
        field = admin.formfield_for_foreignkey(Job._meta.get_field("dataset_version"), request)
        assert list(field.queryset) == [at_globex.dataset]


def test_the_operators_site_refuses_a_class_that_names_a_sealed_column(at_acme: Filled) -> None:
    class Curious(OperatorAdmin):
        slug, list_title, columns = "x", "X", ("spec",)

    with pytest.raises(ImproperlyConfigured, match="spec"):
        Curious(Job, operators.site).get_queryset(RequestFactory().get("/"))


def test_lists_leave_sealed_columns_in_the_database(at_acme: Filled) -> None:
    request: Any = RequestFactory().get("/")
    request.principal = principal_of(at_acme.deposit.owner)
    with scope.tenant(at_acme.deposit.id, write=False):
        for model, admin in members.site._registry.items():
            binary = {each.attname for each in model._meta.concrete_fields if isinstance(each, models.BinaryField)}
            row: Any = admin.get_queryset(request).first()
            assert binary <= row.get_deferred_fields(), admin.slug


def test_no_class_of_ours_reads_the_request_that_unfold_leaves_on_the_shared_instance() -> None:
    """Two threads share the instance: `self.request` may be another member's."""
    found = [path.name for path in CONSOLE.rglob("*.py") if "self.request" in path.read_text()]
    assert found == []


def test_unfolds_trap_for_a_field_named_dataset_is_stepped_past(at_acme: Filled, owner: Browser) -> None:
    """unfold takes any POST with a field named `dataset` for its own action, redirects and saves nothing."""
    resolved = next(cls for cls in JobAdmin.__mro__ if "changeform_view" in cls.__dict__)
    assert not issubclass(resolved, DatasetModelAdminMixin) or resolved is sites.ClosedAdmin
    answer = owner.post("/admin/jobs/train/", {"dataset": "acme-digits@1", "name": "no"})
    assert answer.status_code == 422  # taken for what it is: a form with errors


def test_every_page_has_the_strict_policy(at_acme: Filled, owner: Browser) -> None:
    policy = owner.open("/admin/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts is not None
    assert "unsafe-inline" not in scripts[1]


def test_pages_hold_no_inline_script_no_handler_and_nothing_from_outside(at_acme: Filled, owner: Browser) -> None:
    for page in pages():
        if page.site == "/admin/" and "verb" not in page.parameters and page.name != "datasets_datasetversion_named":
            pk = at_acme.objects[page.model].pk if page.parameters else None
            html = owner.open(page.address(pk=pk)).content.decode()
            assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", html), page.route
            assert not re.search(r"<style(?![^>]*\bnonce=)[^>]*>", html), page.route
            assert not re.search(r"\son(click|change|submit|load|input)=", html), page.route
            assert not re.findall(r'(?:src|href|action|hx-get)="(?:https?:)?//', html), page.route


def test_pages_are_kept_by_no_cache(at_acme: Filled, owner: Browser) -> None:
    """No proxy keeps a tenant's page, and no browser after signing out."""
    for address in ("/admin/", "/admin/jobs/", f"/admin/datasets/{at_acme.dataset.pk}/"):
        assert "no-store" in owner.open(address)["Cache-Control"]
        assert "private" in owner.open(address)["Cache-Control"]


def test_every_table_of_the_members_site_has_scoped_managers() -> None:
    """Django's collectors, validators and choices use these two."""
    for model in members.site._registry:
        assert type(model._base_manager).__name__ == type(model._default_manager).__name__ == "OwnedManager"


@pytest.mark.parametrize(
    "query",
    [
        *("p=9999999999", "p=zz", "o=9.9.zz", "e=1", "all=", "q=%00", "q=%F0%9F%94%92", "_popup=1", "_facets=1"),
        *("state__exact=zz", "state__exact=%00", "state__in=a,%00", "state__isnull=zz", "tenant__id__exact=zz"),
        "_to_field=secret",
    ],
)
def test_an_odd_query_is_an_answer_and_no_failure(
    query: str, at_acme: Filled, owner: Browser, operator: Browser
) -> None:
    for site, browser in (("/admin/", owner), ("/operator/", operator)):
        for slug in ("jobs", "deployments"):
            answer = browser.open(f"{site}{slug}/?{query}")
            assert answer.status_code in (200, 302, 400), answer.content


def test_links_of_a_site_lead_to_that_site(at_acme: Filled, owner: Browser, operator: Browser) -> None:
    """Both answer to the name `admin`: a template that resolves it must not lead to the other one."""
    for site, browser in (("/admin/", owner), ("/operator/", operator)):
        for page in pages():
            if page.site == site and not page.parameters and page.name not in ("login", "logout"):
                html = browser.open(page.route).content.decode()
                links = re.findall(r'(?:href|action|hx-get)="(/[^"]*)"', html)
                assert not [link for link in links if not link.startswith((site, "/static/", "/api/"))], page.route
