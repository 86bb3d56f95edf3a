"""Every page of both sites, opened and posted to by the wrong people. New pages are walked as soon as they exist.

One set-up for each walk: an assertion names the address at which it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.apps import apps

from strongroom.tenants import scope
from strongroom.tenants.models import Owned, Role
from tests.callers import Deposit
from tests.console.browsing import Browser, Page, addresses, pages
from tests.console.rows import Filled

pytestmark = pytest.mark.slow  # a minute of pages: left out of make fast

OPEN = {"login", "logout"}  # for everybody
OWN = {"choose_tenant", "password_change", "password_change_done"}  # one's own account


def by_site(site: str) -> list[Page]:
    return [page for page in pages() if page.site == site and page.name not in OPEN]


def everything(site: str, of: Filled) -> Iterator[tuple[Page, str]]:
    """Each page with each of its addresses for the tenant's objects."""
    for page in by_site(site):
        for address in addresses(page, of.objects):
            yield page, address


def rows_of(deposit: Deposit) -> str:
    """All that the tenant has, sealed columns as they lie in the database."""
    with scope.operator("test: compare before and after", write=False):
        models = [model for model in apps.get_models() if issubclass(model, Owned)]
        return repr([list(model.objects.filter(tenant_id=deposit.id).order_by("pk").values_list()) for model in models])


def test_the_walk_finds_the_pages_of_both_sites() -> None:
    names = {(page.site, page.name) for page in pages()}
    assert {
        ("/admin/", "jobs_job_change"),
        ("/admin/", "jobs_job_train"),
        ("/operator/", "jobs_job_changelist"),
    } <= names
    assert len(by_site("/admin/")) >= 30
    assert len(by_site("/operator/")) >= 8


def test_the_lists_hold_what_the_walk_looks_for(at_acme: Filled, at_globex: Filled, owner: Browser) -> None:
    """Else the walk would find no leak where there is one."""
    stranger = Browser(at_globex.deposit.owner.user)
    for page in by_site("/admin/"):
        if page.name.endswith("_changelist") and page.model != "audit_entry":
            assert "acme" in owner.text(page.route), page.route
            assert "globex" in stranger.text(page.route), page.route


def test_a_page_is_there_for_its_own_member_and_not_for_another_tenants(
    at_acme: Filled, at_globex: Filled, owner: Browser
) -> None:
    stranger = Browser(at_globex.deposit.owner.user)
    for page, address in everything("/admin/", at_acme):
        mine, theirs = owner.open(address), stranger.open(address)
        assert "acme" not in theirs.content.decode(), address
        if "pk" in page.parameters:
            assert theirs.status_code == 404, address
            assert mine.status_code in ((404,) if "verb" in page.parameters else (200, 286)), address
        else:
            assert theirs.status_code == mine.status_code, address


def test_another_tenants_object_and_an_unknown_one_are_answered_alike(at_acme: Filled, at_globex: Filled) -> None:
    stranger = Browser(at_globex.deposit.owner.user)
    for page in by_site("/admin/"):
        if page.parameters == ("pk",):
            pk = at_acme.objects[page.model].pk
            unknown = str(pk)[:-1] + ("0" if str(pk)[-1] != "0" else "1")
            foreign, none = stranger.open(page.address(pk=pk)), stranger.open(page.address(pk=unknown))
            said = [answer.content.decode().partition("Request id")[0] for answer in (foreign, none)]
            assert said[0] == said[1], page.route


def test_a_stranger_changes_nothing(at_acme: Filled, at_globex: Filled) -> None:
    stranger = Browser(at_globex.deposit.owner.user)
    before = rows_of(at_acme.deposit)
    hints = {"dataset": "acme-digits@1", "version": "acme-lenet@1", "name": "stolen", "role": "viewer", "epochs": "1"}
    hints |= {"tenant": str(at_acme.deposit.id), "task": "classification", "model": "lenet", "email": "x@globex.test"}
    for page, address in everything("/admin/", at_acme):
        answer = stranger.post(address, hints)
        shown = answer.content.decode().replace("acme-digits@1", "").replace("acme-lenet@1", "")  # sent by itself
        if "pk" in page.parameters:
            assert answer.status_code == 404, address
        assert "acme" not in shown, address
    assert rows_of(at_acme.deposit) == before


def test_nobody_is_sent_to_the_login(at_acme: Filled) -> None:
    before = rows_of(at_acme.deposit)
    nobody = Browser()
    for site in ("/admin/", "/operator/"):
        for _, address in everything(site, at_acme):
            for answer in (nobody.open(address), nobody.post(address)):
                assert answer.status_code == 302, address
                assert answer["Location"].startswith(f"{site}login/?next="), address
    assert rows_of(at_acme.deposit) == before


def test_a_member_is_refused_at_the_operators_site(at_acme: Filled, owner: Browser) -> None:
    for _, address in everything("/operator/", at_acme):
        for answer in (owner.open(address), owner.post(address)):
            assert answer.status_code == 302, address
            assert answer["Location"].startswith("/operator/login/"), address


def test_an_operator_without_a_membership_is_refused_at_the_members_site(at_acme: Filled, operator: Browser) -> None:
    for _, address in everything("/admin/", at_acme):
        assert operator.open(address)["Location"].startswith("/admin/login/"), address


def test_the_operator_sees_metadata_of_all_and_content_of_none(
    at_acme: Filled, at_globex: Filled, operator: Browser
) -> None:
    for page, address in everything("/operator/", at_acme):
        seen = operator.text(address)
        assert not [text for text in at_acme.secret_texts + at_globex.secret_texts if text in seen], address
        if page.name.endswith("_changelist"):
            assert "acme" in seen, address
            assert "globex" in seen, address


def test_what_the_operator_must_not_see_is_there_for_the_member(at_acme: Filled, owner: Browser) -> None:
    """Else the test above would find nothing to find."""
    shown = owner.text(f"/admin/datasets/{at_acme.dataset.pk}/") + owner.text(f"/admin/jobs/{at_acme.job.pk}/")
    assert not [text for text in at_acme.secret_texts if text not in shown]


def test_the_operator_changes_nothing(at_acme: Filled, operator: Browser) -> None:
    before = rows_of(at_acme.deposit)
    for _, address in everything("/operator/", at_acme):
        for data in ({}, {"action": "delete_selected", "_selected_action": str(at_acme.job.pk)}):
            operator.post(address, data)
    assert rows_of(at_acme.deposit) == before


def test_a_viewer_gets_no_form_and_403(at_acme: Filled, member: Callable[[Role], Browser]) -> None:
    viewer = member(Role.VIEWER)
    before = rows_of(at_acme.deposit)
    for page, address in everything("/admin/", at_acme):
        if page.name in OWN:
            continue
        if "verb" in page.parameters:
            hidden = page.model == "access_apikey"  # a viewer sees no key at all
            assert viewer.post(address).status_code == (404 if hidden else 403), address
        else:
            shown = viewer.open(address)
            assert shown.status_code in (200, 286, 302, 403, 404), address
            assert forms_of(shown.content.decode()) <= {"/admin/logout/", ""}, address
    assert rows_of(at_acme.deposit) == before


def test_an_owner_gets_the_forms_that_a_viewer_does_not(at_acme: Filled, owner: Browser) -> None:
    shown = forms_of(owner.text(f"/admin/jobs/{at_acme.job.pk}/"))
    assert f"/admin/jobs/{at_acme.job.pk}/cancel/" in shown


def forms_of(html: str) -> set[str]:
    """Where the page's forms send to; unfold's list is a form without an address."""
    return {part.partition('action="')[2].partition('"')[0] for part in tags(html, "form")}


def tags(html: str, name: str) -> list[str]:
    return [part.partition(">")[0] for part in html.split(f"<{name} ")[1:]]


def test_a_button_without_its_token_changes_nothing(at_acme: Filled, owner: Browser) -> None:
    before = rows_of(at_acme.deposit)
    for page, address in everything("/admin/", at_acme):
        if "verb" in page.parameters:
            assert owner.post(address, token=False).status_code == 403, address
    assert rows_of(at_acme.deposit) == before
