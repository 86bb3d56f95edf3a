"""What the pages' buttons and forms do, through the same services as REST; and what a page shows while things move."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from strongroom.access.models import ApiKey, Generation
from strongroom.access.scopes import ALL
from strongroom.access.services import create, find, principal_of
from strongroom.audit.models import Entry
from strongroom.datasets import services as datasets
from strongroom.deployments.models import Deployment
from strongroom.jobs.models import Event, Job, LogLine
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.models import Member, Role
from tests.callers import SYSTEM, Deposit
from tests.console.browsing import Browser
from tests.console.rows import Filled, model_version, uploaded

pytestmark = pytest.mark.slow  # a minute of pages: left out of make fast

# --- signing in, choosing a tenant


def test_one_signs_in_by_e_mail_and_lands_on_the_overview(acme: Deposit) -> None:
    acme.owner.user.set_password("a long password")
    acme.owner.user.save()
    browser = Browser()
    answer = browser.post("/admin/login/", {"username": "Owner@ACME.test", "password": "a long password"})
    assert answer["Location"] == "/admin/"
    assert "Submit training job" in browser.text("/admin/")


def test_an_operator_signs_in_at_the_operators_site_and_lands_there(operator: Browser) -> None:
    browser = Browser()
    answer = browser.post("/operator/login/", {"username": "op@example.test", "password": "a long password"})
    assert answer["Location"] == "/operator/"
    assert "Metadata of all tenants" in browser.text("/operator/")


def test_a_wrong_password_is_said_and_signs_nobody_in(acme: Deposit) -> None:
    browser = Browser()
    answer = browser.post("/admin/login/", {"username": "owner@acme.test", "password": "guess"})
    assert answer.status_code == 200
    assert browser.open("/admin/").status_code == 302


def test_signing_in_leads_to_no_other_host(acme: Deposit) -> None:
    acme.owner.user.set_password("a long password")
    acme.owner.user.save()
    given = {"username": "owner@acme.test", "password": "a long password"}
    answer = Browser().post("/admin/login/?next=https://evil.example/", given)
    assert answer["Location"] == "/admin/"


def test_signing_out_ends_the_session(owner: Browser) -> None:
    owner.post("/admin/logout/")
    assert owner.open("/admin/").status_code == 302


def test_who_is_signed_in_and_may_not_see_a_site_is_told_so(owner: Browser, operator: Browser) -> None:
    assert "may not open this page" in owner.text("/operator/login/?next=/operator/")
    assert "may not open this page" in operator.text("/admin/login/?next=/admin/")


def test_a_member_of_two_tenants_switches_between_them(at_acme: Filled, at_globex: Filled) -> None:
    browser = Browser(at_acme.deposit.member(Role.VIEWER, "both@example.test"))
    at_globex.deposit.member(Role.DEVELOPER, "both@example.test")
    assert "acme-lenet" in browser.text("/admin/jobs/")
    assert f'value="{at_globex.deposit.id}"' in browser.text("/admin/")
    browser.post("/admin/tenant/", {"tenant": str(at_globex.deposit.id)})
    shown = browser.text("/admin/jobs/")
    assert "globex-lenet" in shown
    assert "acme-lenet" not in shown
    assert "Submit training job" in shown  # a developer here, a viewer there


def test_nobody_switches_to_a_tenant_that_is_not_theirs(at_acme: Filled, at_globex: Filled, owner: Browser) -> None:
    for wanted in (str(at_globex.deposit.id), "zz", ""):
        owner.post("/admin/tenant/", {"tenant": wanted})
        assert "acme-lenet" in owner.text("/admin/jobs/")


def test_a_form_drawn_for_another_tenant_changes_nothing(at_acme: Filled, at_globex: Filled) -> None:
    """Two tabs: the form of the first is sent after a switch in the second."""
    user = at_acme.deposit.member(Role.ADMIN, "both@example.test")
    at_globex.deposit.member(Role.ADMIN, "both@example.test")
    browser = Browser(user)
    browser.post("/admin/tenant/", {"tenant": str(at_globex.deposit.id)})
    form = {"name": "stray", "scopes": ["predict"], "_tenant": str(at_acme.deposit.id)}
    assert "nothing was changed" in browser.follow(browser.post("/admin/keys/create/", form))
    for deposit in (at_acme.deposit, at_globex.deposit):
        with scope.tenant(deposit.id, write=False):
            assert not ApiKey.objects.filter(name="stray").exists()


def test_a_membership_that_ended_ends_the_sight_at_once(at_acme: Filled, member: Callable[[Role], Browser]) -> None:
    browser = member(Role.VIEWER)
    assert browser.open("/admin/").status_code == 200
    with scope.tenant(at_acme.deposit.id):
        Member.objects.filter(role=Role.VIEWER).delete()
    assert browser.open("/admin/").status_code == 302


# --- overview


def test_the_overview_shows_work_models_deployments_and_storage(at_acme: Filled, owner: Browser) -> None:
    html = owner.text("/admin/")
    for text in ("acme-lenet@1", "acme-served", "acme-digits", "96.3 % accuracy", "of 107 GB"):
        assert text in html
    assert 'hx-get="/admin/running/"' in html


def test_the_overviews_jobs_stop_moving_when_none_is_under_way(at_acme: Filled, owner: Browser) -> None:
    assert owner.open("/admin/running/").status_code == 200
    with scope.tenant(at_acme.deposit.id):
        Job.objects.update(state="succeeded", finished_at="2026-01-01T00:00:00Z")
    assert owner.open("/admin/running/").status_code == 286


# --- jobs


def job_page(at_acme: Filled) -> str:
    return f"/admin/jobs/{at_acme.job.pk}/"


def test_a_jobs_page_shows_state_progress_curves_log_and_spec(at_acme: Filled, owner: Browser) -> None:
    html = unescape(owner.text(job_page(at_acme)))
    for text in ("running", "11 of 25", "acme said so: epoch 11 of 25", '"momentum": 0.9', at_acme.job.spec_sha256):
        assert text in html
    curves = json.loads(re.search(r'data-curves="({.*?})"', html)[1])  # type: ignore[index]  # it is there
    assert set(curves) == {"loss", "accuracy"}
    assert curves["loss"]["train"][0] == [1, 2.3]
    assert len(curves["loss"]["validation"]) == 11
    assert 'value="0.4400"' in html


def test_the_moving_part_brings_its_buttons_only_when_the_state_changed(at_acme: Filled, owner: Browser) -> None:
    live = job_page(at_acme) + "live/"
    same = owner.open(live, seen="running-False")
    assert same.status_code == 200
    assert b"hx-swap-oob" not in same.content  # a button under the pointer is not exchanged
    with scope.tenant(at_acme.deposit.id):
        Job.objects.filter(id=at_acme.job.id).update(state="succeeded")
    ended = owner.open(live, seen="running-False")
    assert ended.status_code == 286  # htmx stops asking
    assert b"hx-swap-oob" in ended.content
    assert b"Run again" in ended.content


def test_a_job_that_ended_does_not_ask_again(at_acme: Filled, owner: Browser) -> None:
    assert "hx-get" in owner.text(job_page(at_acme))
    with scope.tenant(at_acme.deposit.id):
        Job.objects.filter(id=at_acme.job.id).update(state="succeeded")
    assert "hx-get" not in owner.text(job_page(at_acme))


def test_cancel_asks_the_worker_and_the_page_says_so(at_acme: Filled, owner: Browser) -> None:
    page = owner.follow(owner.post(job_page(at_acme) + "cancel/"))
    assert "cancelling" in page
    with scope.tenant(at_acme.deposit.id, write=False):
        assert Job.objects.get(id=at_acme.job.id).cancel_requested_at is not None


def test_run_again_makes_a_new_job_of_the_same_spec(at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id):
        Job.objects.filter(id=at_acme.job.id).update(state="failed")
    answer = owner.post(job_page(at_acme) + "retry/")
    assert "Again of" in owner.follow(answer)
    with scope.tenant(at_acme.deposit.id, write=False):
        again = Job.objects.get(retry_of=at_acme.job.id)
        assert (again.spec_sha256, again.state) == (at_acme.job.spec_sha256, "queued")


def test_deleting_a_running_job_is_refused_with_the_reason(at_acme: Filled, owner: Browser) -> None:
    assert "the job is running; cancel it first" in owner.follow(owner.post(job_page(at_acme) + "delete/"))
    with scope.tenant(at_acme.deposit.id):
        Job.objects.filter(id=at_acme.job.id).update(state="failed")
    assert "is deleted" in owner.follow(owner.post(job_page(at_acme) + "delete/"))
    with scope.tenant(at_acme.deposit.id, write=False):
        assert not Job.objects.filter(id=at_acme.job.id).exists()
        assert not Event.objects.filter(job_id=at_acme.job.id).exists()


def test_a_failed_job_shows_its_error_and_the_remedy(at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id):
        job = Job.objects.get(id=at_acme.job.id)
        job.state, job.error_code = "failed", "diverged"
        job.error = {"code": "diverged", "message": "the loss became NaN", "hint": "lower train.optimizer.lr"}
        job.save()
    html = owner.text(job_page(at_acme))
    assert "the loss became NaN" in html
    assert "lower train.optimizer.lr" in html


def test_text_of_a_log_is_text_in_the_page(at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id):
        LogLine.objects.create(job=at_acme.job, attempt=1, level="info", text="<script>alert(1)</script>")
    html = owner.text(job_page(at_acme))
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_an_import_without_its_file_says_what_to_do(owner: Browser) -> None:
    answer = owner.post("/admin/jobs/bring/", {"model": "cats", "task": "classification"})
    assert answer.status_code == 422
    assert b"choose the ONNX file" in answer.content


def test_an_uploaded_onnx_file_becomes_an_import_job(acme: Deposit, owner: Browser) -> None:
    with scope.tenant(acme.id):
        upload = registry.begin_upload("cats")
        upload.draft.fill(b"onnx")
        upload.draft.publish()
        artefact = registry.finish_upload(SYSTEM, upload, "00" * 32)["artefact"]
    form = {"model": "cats", "task": "classification", "classes": "cat\n dog \n\n", "artefact": artefact}
    assert "cats" in owner.follow(owner.post("/admin/jobs/bring/", form))
    with scope.tenant(acme.id, write=False):
        job: Any = Job.objects.get(kind="import")
        assert job.spec["classes"] == ["cat", "dog"]


def test_another_tenants_uploaded_file_is_no_file(at_acme: Filled, globex: Deposit, owner: Browser) -> None:
    with scope.tenant(globex.id):
        upload = registry.begin_upload("cats")
        upload.draft.fill(b"onnx")
        upload.draft.publish()
        artefact = registry.finish_upload(SYSTEM, upload, "00" * 32)["artefact"]
    answer = owner.post("/admin/jobs/bring/", {"model": "cats", "task": "other", "artefact": artefact})
    assert answer.status_code == 422
    assert b"names no uploaded model" in answer.content


# --- data sets


def test_a_versions_page_shows_statistics_classes_and_warnings(at_acme: Filled, owner: Browser) -> None:
    html = owner.text(f"/admin/datasets/{at_acme.dataset.pk}/")
    for text in ("image 3×32×32", "78.1", "acme 3", "2 rows repeat", 'style="width:100.0%"', "Train on it"):
        assert text in html


def test_a_failed_version_shows_what_is_wrong_and_the_remedy(acme: Deposit, owner: Browser) -> None:
    with scope.tenant(acme.id):
        version = uploaded(SYSTEM, "broken")
        datasets.mark_failed(version, "zip_entry_outside", "entry '../x' leaves the archive", "use relative names")
    html = unescape(owner.text(f"/admin/datasets/{version.pk}/"))
    assert "entry '../x' leaves the archive" in html
    assert "use relative names" in html
    assert "Train on it" not in html


def test_a_version_that_is_checked_moves_until_it_is_ready(acme: Deposit, owner: Browser) -> None:
    with scope.tenant(acme.id):
        version = uploaded(SYSTEM, "fresh")
    page = f"/admin/datasets/{version.pk}/"
    assert "hx-get" in owner.text(page)
    assert owner.open(page + "live/", seen="checking").status_code == 200
    with scope.tenant(acme.id):
        datasets.mark_ready(version, {"rows": 1, "modality": "image", "columns": [], "warnings": []})
    ended = owner.open(page + "live/", seen="checking")
    assert ended.status_code == 286
    assert b"Train on it" in ended.content


def test_deleting_a_version_that_a_job_reads_is_refused(at_acme: Filled, owner: Browser) -> None:
    page = f"/admin/datasets/{at_acme.dataset.pk}/"
    assert "a job reads acme-digits@1" in owner.follow(owner.post(page + "delete/"))
    with scope.tenant(at_acme.deposit.id):
        Job.objects.update(state="failed")
    assert "its bytes are destroyed" in owner.follow(owner.post(page + "delete/"))
    assert owner.open(page).status_code == 404


def test_the_upload_page_tells_the_script_where_to_send(acme: Deposit, owner: Browser) -> None:
    html = owner.text("/admin/datasets/upload/")
    assert 'data-route="/api/v1/datasets/NAME/content"' in html
    assert 'data-tenant="acme"' in html
    assert 'action="' not in html.partition('id="upload"')[2].partition("</form>")[0]


def test_a_file_sent_to_django_is_refused(acme: Deposit, owner: Browser) -> None:
    """Tenants' bytes go to the raw route only."""
    answer = owner.post("/admin/datasets/upload/", {"file": SimpleUploadedFile("x.csv", b"a,b\n1,2\n")})
    assert answer.status_code == 400


def test_after_an_upload_one_lands_on_the_versions_page(at_acme: Filled, owner: Browser) -> None:
    answer = owner.open("/admin/datasets/named/acme-digits/1/")
    assert answer["Location"] == f"/admin/datasets/{at_acme.dataset.pk}/"
    assert owner.open("/admin/datasets/named/nothing/1/")["Location"] == "/admin/datasets/"


# --- models


def test_a_model_versions_page_shows_metrics_confusion_signature_and_lineage(at_acme: Filled, owner: Browser) -> None:
    html = owner.text(f"/admin/models/{at_acme.version.pk}/")
    for text in ("0.963", "62,006", "sr-shade-10", "UINT8 -1×3×32×32", "acme-digits@1", "acme-served"):
        assert text in html


def test_to_production_is_one_version_at_most(at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id):
        second = model_version(at_acme.deposit, "acme-lenet", at_acme.dataset)
    for version in (at_acme.version, second):
        owner.post(f"/admin/models/{version.pk}/promote/")
    with scope.tenant(at_acme.deposit.id, write=False):
        stages = dict(ModelVersion.objects.values_list("number", "stage"))
    assert stages == {1: "archived", 2: "production"}


def test_a_served_version_is_not_deleted(at_acme: Filled, owner: Browser) -> None:
    assert "stop it first" in owner.follow(owner.post(f"/admin/models/{at_acme.version.pk}/delete/"))


def test_a_rejected_version_shows_its_reasons_and_no_way_to_serve_it(at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id):
        version = model_version(at_acme.deposit, "acme-other", at_acme.dataset)
        version.state, version.reasons = "rejected", ["parity: 0.3 away"]
        version.save()
    html = owner.text(f"/admin/models/{version.pk}/")
    assert "parity: 0.3 away" in html
    assert "To production" not in html
    assert "deploy/?version" not in html


# --- deployments


def test_a_deployment_is_made_changed_and_stopped(at_acme: Filled, owner: Browser) -> None:
    form = {"name": "second", "version": "acme-lenet@1", "concurrency": "8", "top_k": "3", "scores": "on"}
    assert "second" in owner.follow(owner.post("/admin/deployments/deploy/", form))
    with scope.tenant(at_acme.deposit.id):
        row = Deployment.objects.get(name="second")
        second = model_version(at_acme.deposit, "acme-lenet", at_acme.dataset)
    assert (row.limits["concurrency"], row.output_policy) == (8, {"top_k": 3, "decimals": None, "scores": True})
    page = f"/admin/deployments/{row.pk}/"
    changed = owner.follow(owner.post(page + "switch/", form | {"version": str(second), "top_k": ""}))
    assert "acme-lenet@2" in changed
    owner.post(page + "stop/")
    with scope.tenant(at_acme.deposit.id, write=False):
        row.refresh_from_db()
    assert (row.state, row.output_policy["top_k"]) == ("draining", None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "acme-served"}, "acme-served"),
        ({"name": "No Name"}, "lower-case letters"),
        ({"version": "acme-lenet@9"}, "Select a valid choice"),
        ({"concurrency": "0"}, "is out of range (1 to 10000)"),
        ({"decimals": "99"}, "is out of range (0 to 15)"),
        ({"deadline_ms": "soon"}, "whole number"),
    ],
)
def test_a_wrong_deployment_is_refused_with_the_reason(
    changed: dict[str, str], said: str, at_acme: Filled, owner: Browser
) -> None:
    answer = owner.post("/admin/deployments/deploy/", {"name": "second", "version": "acme-lenet@1"} | changed)
    assert answer.status_code == 422
    assert said in unescape(answer.content.decode())
    with scope.tenant(at_acme.deposit.id, write=False):
        assert Deployment.objects.count() == 1


def test_a_wrong_change_shows_the_page_again_with_the_error(at_acme: Filled, owner: Browser) -> None:
    page = f"/admin/deployments/{at_acme.deployment.pk}/"
    answer = owner.post(page + "switch/", {"version": "acme-lenet@1", "concurrency": "0"})
    assert answer.status_code == 422
    assert b'<details class="sr-card" open>' in answer.content


def test_a_deployment_moves_until_it_is_ready(at_acme: Filled, owner: Browser) -> None:
    page = f"/admin/deployments/{at_acme.deployment.pk}/"
    assert "hx-get" in owner.text(page)
    with scope.tenant(at_acme.deposit.id):
        Deployment.objects.update(state="ready")
    assert owner.open(page + "live/").status_code == 286
    assert "hx-get" not in owner.text(page)


def test_the_try_it_box_is_for_who_may_predict(at_acme: Filled, owner: Browser, member: Any) -> None:
    page = f"/admin/deployments/{at_acme.deployment.pk}/"
    shown = owner.text(page)
    assert 'data-route="/api/v1/deployments/acme-served/predict"' in shown
    assert 'data-input="image"' in shown
    assert 'id="try"' not in member(Role.VIEWER).text(page)


# --- keys


def test_a_secret_is_shown_once_and_kept_nowhere(acme: Deposit, owner: Browser) -> None:
    answer = owner.post("/admin/keys/create/", {"name": "ci", "scopes": ["predict", "jobs:write"]})
    assert answer.status_code == 200  # the answer to the POST itself: no redirect could carry it
    assert "no-store" in answer["Cache-Control"]
    found = re.search(r'id="secret">(sr_\w+)<', answer.content.decode())
    assert found is not None
    secret = found[1]
    assert find(secret).scopes == {"predict", "jobs:write", "jobs:read"}
    with scope.tenant(acme.id, write=False):
        key = ApiKey.objects.get(name="ci")
    for address in ("/admin/keys/", f"/admin/keys/{key.pk}/", "/admin/", "/admin/audit/"):
        assert secret not in owner.text(address)
    assert secret not in repr(dict(owner.client.session))


@pytest.mark.parametrize("lacking", [None, "audit:read", "predict"])
def test_a_key_is_shown_as_holding_all_where_it_lacks_no_scope(
    lacking: str | None, acme: Deposit, owner: Browser
) -> None:
    held = ALL - {lacking}
    with scope.tenant(acme.id):
        create(principal_of(acme.owner), name="ci", scopes=held)
    html = owner.text("/admin/keys/?q=ci")
    assert (", ".join(sorted(held)) in html) is (lacking is not None)
    assert (re.search(r">\s*all\s*</td>", html) is not None) is (lacking is None)


def test_revoking_ends_a_key_in_the_same_step(at_acme: Filled, owner: Browser) -> None:
    generation = Generation.objects.get(name="principals").value
    assert "is revoked" in owner.follow(owner.post(f"/admin/keys/{at_acme.key.pk}/revoke/"))
    with scope.tenant(at_acme.deposit.id, write=False):
        assert ApiKey.objects.get(id=at_acme.key.id).revoked_at is not None
    assert Generation.objects.get(name="principals").value > generation


def test_rotating_shows_the_new_secret_and_ends_the_old_key(at_acme: Filled, owner: Browser) -> None:
    answer = owner.post(f"/admin/keys/{at_acme.key.pk}/rotate/")
    assert "no-store" in answer["Cache-Control"]
    found = re.search(r'id="secret">(sr_\w+)<', answer.content.decode())
    assert found is not None
    assert find(found[1]).scopes == {"predict"}
    again = owner.follow(owner.post(f"/admin/keys/{at_acme.key.pk}/rotate/"))
    assert "revoked" in again  # a second time: refused, with the reason


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "", "scopes": ["predict"]}, "required"),
        ({"name": "x", "scopes": ["everything"]}, "not one of the available choices"),
        ({"name": "x", "scopes": ["predict"], "expires_at": "2020-01-01T00:00"}, "must be in the future"),
        ({"name": "x", "scopes": ["predict"], "expires_at": "soon"}, "valid date"),
        ({"name": "x", "scopes": ["predict"], "allowed_networks": "10.0.0.0/8\nhome"}, "is no network: 'home'"),
    ],
)
def test_a_wrong_key_is_refused_with_the_reason(form: dict[str, Any], said: str, acme: Deposit, owner: Browser) -> None:
    answer = owner.post("/admin/keys/create/", form)
    assert answer.status_code == 422
    assert said in unescape(answer.content.decode())
    with scope.tenant(acme.id, write=False):
        assert ApiKey.objects.count() == 1


def test_keys_are_for_admins(at_acme: Filled, member: Callable[[Role], Browser]) -> None:
    developer, admin = member(Role.DEVELOPER), member(Role.ADMIN)
    for address in ("/admin/keys/", "/admin/keys/create/"):
        assert developer.open(address).status_code == 403
        assert admin.open(address).status_code == 200
    assert "API keys" not in developer.text("/admin/")


# --- audit


def test_what_members_do_is_in_the_audit_list(
    at_acme: Filled, owner: Browser, member: Callable[[Role], Browser]
) -> None:
    owner.post(job_page(at_acme) + "cancel/")
    html = owner.text("/admin/audit/")
    assert "job.cancel" in html
    with scope.tenant(at_acme.deposit.id, write=False):
        entry = Entry.objects.get(action="job.cancel")
    assert (entry.actor_kind, entry.actor_id, entry.from_address) == ("member", at_acme.deposit.owner.id, "127.0.0.1")
    assert member(Role.DEVELOPER).open("/admin/audit/").status_code == 403


def test_a_changed_password_is_in_the_audit_log_and_the_session_goes_on(acme: Deposit, owner: Browser) -> None:
    acme.owner.user.set_password("a long password")
    acme.owner.user.save()
    owner.client.force_login(acme.owner.user)
    for old, status, entries in (("a guess", 200, 0), ("a long password", 302, 1)):
        new = {"new_password1": "longer than before", "new_password2": "longer than before"}
        assert owner.post("/admin/password_change/", {"old_password": old, **new}).status_code == status
        with scope.tenant(acme.id, write=False):
            found = Entry.objects.filter(action="member.password")
            assert [(row.actor_kind, row.actor_id, row.object_id, row.detail) for row in found] == entries * [
                ("member", acme.owner.id, acme.owner.id, {})
            ]
    assert "member.password" in owner.text("/admin/audit/")


def test_a_refused_button_leaves_no_trace(at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id, write=False):
        before = Entry.objects.count()
    owner.post(job_page(at_acme) + "delete/")
    with scope.tenant(at_acme.deposit.id, write=False):
        assert Entry.objects.count() == before


def test_a_page_of_a_tenant_that_is_suspended_is_closed(acme: Deposit, owner: Browser) -> None:
    acme.owner.tenant.state = "suspended"
    acme.owner.tenant.save()
    assert owner.open("/admin/").status_code == 302
