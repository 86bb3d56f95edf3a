"""Language models in the panel: brought by the import form, shown with their card, deployed with pages of context,
asked in a chat box by who may predict. What a browser's scripts do is in tests/browser/test_language_chat.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.http import HttpResponse

from strongroom.console.forms import deployments as forms
from strongroom.deployments import services as deployments
from strongroom.deployments.models import Deployment
from strongroom.jobs.models import Job
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.models import Role
from strongroom.vault import services as vault
from tests.callers import SYSTEM, Deposit
from tests.console.browsing import Browser
from tests.console.rows import Filled
from tests.console.test_language_cards import CARD, ENCODER

pytestmark = pytest.mark.slow  # half a minute of pages: left out of make fast

BRING, DEPLOY = "/admin/jobs/bring/", "/admin/deployments/deploy/"
VECTORS = {
    "inputs": [{"name": "ids", "datatype": "INT64", "shape": [-1, -1]}],
    "outputs": [{"name": "vector", "datatype": "FP32", "shape": [-1, 384]}],
    "classes": None,
    "task": "embedding",
}


def language(deposit: Deposit, name: str = "smol", *, job: Job | None = None, **card: Any) -> ModelVersion:
    """As an import job registers it; `card` changes what it says of itself."""
    said = CARD | card
    signature = {"kind": "language", "context_length": 8192, "vocabulary": 49_152, "weights_sha256": None}
    signature |= {"chat": said["chat_template"], "tools": said["tools"]}
    with scope.tenant(deposit.id):
        return registry.register(
            name=name,
            task="generation",
            artefact=vault.seal_bytes(deposit.id, "model", b"weights"),
            result={"signature": signature, "card": said, "parameters": 134_515_008},
            lineage={},
            job_id=None if job is None else job.id,
            format="gguf",
        )


def encoder(deposit: Deposit, name: str, card: dict[str, Any] | None) -> ModelVersion:
    with scope.tenant(deposit.id):
        return registry.register(
            name=name,
            task="embedding",
            artefact=vault.seal_bytes(deposit.id, "model", b"weights"),
            result={"signature": VECTORS, "card": card},
            lineage={},
        )


def served(deposit: Deposit, version: ModelVersion, **document: Any) -> Deployment:
    with scope.tenant(deposit.id):
        given = {"name": version.model.name, "versions": [{"model": version.model.name, "version": version.number}]}
        return deployments.deploy(SYSTEM, given | document)


def page_of(row: Deployment) -> str:
    return f"/admin/deployments/{row.pk}/"


def uploaded(deposit: Deposit, name: str = "smol", format: str = "gguf") -> str:
    with scope.tenant(deposit.id):
        upload = registry.begin_upload(name, format=format)
        upload.draft.fill(b"GGUF")
        upload.draft.publish()
        artefact: str = registry.finish_upload(SYSTEM, upload, "00" * 32)["artefact"]
        return artefact


def field(html: str, name: str) -> str:
    """The field of a form as the page has it."""
    return html.split(f'data-field="{name}"')[1].split('data-field="')[0]


def options(html: str, name: str) -> dict[str, str]:
    """value → what is said of it"""
    found = re.findall(r'<option value="([^"]*)"[^>]*>([^<]*)<', field(html, name))
    return {value: unescape(said) for value, said in found}


def error(answer: HttpResponse, name: str) -> str:
    assert answer.status_code == 422
    found = re.search(r'<p class="sr-error">(.*?)</p>', field(answer.content.decode(), name))
    return unescape(found[1]) if found else ""


# --- bringing one


def test_the_page_takes_every_format_and_task(owner: Browser) -> None:
    html = owner.text(BRING)
    assert 'accept=".onnx,.gguf,.zip"' in html
    assert set(options(html, "format")) == {"", *registry.FORMATS}
    assert set(options(html, "task")) == {"classification", "regression", "generation", "embedding", "other"}
    assert options(html, "weights") == {
        "keep": "keep: as they came", "q4_0": "q4_0: small and fast", "bf16": "bf16: faithful",
    }  # fmt: skip


def test_bringing_a_model_is_offered_on_the_overview_and_the_list_of_jobs(owner: Browser) -> None:
    for address in ("/admin/", "/admin/jobs/"):
        assert "Bring a model" in owner.text(address)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"task": "generation", "weights": "q4_0"}, ("generation", "q4_0", None)),
        ({"task": "generation"}, ("generation", "keep", None)),
        ({"task": "generation", "weights": "bf16", "classes": "cat\ndog"}, ("generation", "bf16", None)),
        ({"task": "classification", "weights": "q4_0", "classes": "a\nb"}, ("classification", "keep", ["a", "b"])),
        ({"task": "embedding", "weights": "q4_0", "classes": "cat\ndog"}, ("embedding", "keep", None)),
    ],
)  # fmt: skip
def test_the_form_sends_what_belongs_to_the_task(
    given: dict[str, str], stored: tuple[Any, ...], acme: Deposit, owner: Browser
) -> None:
    form = {"model": "smol", "format": "gguf", "artefact": uploaded(acme)} | given
    owner.follow(owner.post(BRING, form))
    with scope.tenant(acme.id, write=False):
        spec: Any = Job.objects.get(kind="import").spec
    assert (spec["task"], spec["weights"], spec["classes"]) == stored


def test_a_name_of_another_task_is_refused_at_the_name(at_acme: Filled, owner: Browser) -> None:
    form = {"model": "acme-lenet", "task": "generation", "artefact": uploaded(at_acme.deposit, "acme-lenet")}
    assert "is a model of task classification" in error(owner.post(BRING, form), "model")


def test_weights_that_there_are_not_are_refused_at_their_field(acme: Deposit, owner: Browser) -> None:
    form = {"model": "smol", "task": "generation", "weights": "q3_k", "artefact": uploaded(acme)}
    assert "Select a valid choice" in error(owner.post(BRING, form), "weights")


def test_a_viewer_brings_nothing(acme: Deposit, member: Callable[[Role], Browser]) -> None:
    viewer = member(Role.VIEWER)
    assert viewer.open(BRING).status_code == 403
    assert "Bring a model" not in viewer.text("/admin/jobs/")


def test_the_jobs_page_links_the_version_and_says_what_was_checked(acme: Deposit, owner: Browser) -> None:
    owner.follow(owner.post(BRING, {"model": "smol", "task": "generation", "artefact": uploaded(acme)}))
    with scope.tenant(acme.id):
        job = Job.objects.get(kind="import")
        Job.objects.update(state="succeeded")
    assert "What was checked" not in owner.text(f"/admin/jobs/{job.pk}/")
    version = language(acme, job=job)
    html = owner.text(f"/admin/jobs/{job.pk}/live/")
    assert f"/admin/models/{version.pk}/" in html
    assert "What was checked" in html
    assert "the chat template renders a first message" in html


def test_a_refused_import_says_the_reason_and_the_remedy(acme: Deposit, owner: Browser) -> None:
    owner.follow(owner.post(BRING, {"model": "smol", "task": "generation", "artefact": uploaded(acme)}))
    with scope.tenant(acme.id):
        job = Job.objects.get(kind="import")
        job.state, job.error_code = "failed", "gguf_magic"
        job.error = {"code": "gguf_magic", "message": "the file is no GGUF", "hint": "convert it by llama.cpp"}
        job.save()
    html = owner.text(f"/admin/jobs/{job.pk}/")
    for text in ("the file is no GGUF", "convert it by llama.cpp", "gguf_magic"):
        assert text in html
    assert "What was checked" not in html


# --- a version


def test_a_language_models_page_shows_its_card_and_folds_its_report(acme: Deposit, owner: Browser) -> None:
    html = owner.text(f"/admin/models/{language(acme).pk}/")
    for text in ("SmolLM2", "llama", "Q4_0", "8,192 tokens", "smollm", "apache-2.0", "134,515,008", "generation"):
        assert f"<b>{text}</b>" in html
    assert '<details class="sr-card"><summary><h2>What its import checked' in html
    assert "the chat template renders a first message" in html
    assert "Signature" not in html


def test_a_model_of_arrays_has_no_card(at_acme: Filled, owner: Browser) -> None:
    html = owner.text(f"/admin/models/{at_acme.version.pk}/")
    assert "<h2>Card</h2>" not in html
    assert "What its import checked" not in html
    assert "Signature" in html


def test_text_of_a_card_is_text_in_the_pages(acme: Deposit, owner: Browser) -> None:
    script = "<script>alert(1)</script>"
    version = language(acme, name="smol", license=script, report=[script])
    for address in (f"/admin/models/{version.pk}/", page_of(served(acme, version))):
        assert script not in owner.text(address)
    assert "&lt;script&gt;alert(1)" in owner.text(f"/admin/models/{version.pk}/")


# --- deploying one


def test_the_list_of_versions_says_what_each_is(at_acme: Filled, owner: Browser) -> None:
    language(at_acme.deposit)
    html = owner.text(DEPLOY)
    said = options(html, "version")
    assert said["smol@1"].startswith("smol@1 · language model, ")
    assert said["acme-lenet@1"].startswith("acme-lenet@1 · classification, ")
    kinds = re.findall(r'<option value="([^"]+)"[^>]* data-kind="(\w+)"', field(html, "version"))
    assert dict(kinds) == {"smol@1": "language", "acme-lenet@1": "arrays"}


def test_a_language_model_is_deployed_with_its_context_and_shared_pages(acme: Deposit, owner: Browser) -> None:
    language(acme)
    form = {"name": "chat", "version": "smol@1", "context_tokens": "4096", "share": "on", "top_k": "3"}
    html = owner.follow(owner.post(DEPLOY, form))
    with scope.tenant(acme.id, write=False):
        row = Deployment.objects.get(name="chat")
    assert (row.context_tokens, row.share, row.output_policy["top_k"]) == (4096, True, None)
    assert "4,096" in html
    assert "only a model that was adopted is shared" in html


def test_an_empty_deadline_is_the_usual_one_of_the_kind(at_acme: Filled, owner: Browser) -> None:
    language(at_acme.deposit)
    for name, version, shown in (("chat", "smol@1", "600,000 ms"), ("digits", "acme-lenet@1", "30,000 ms")):
        assert shown in owner.follow(owner.post(DEPLOY, {"name": name, "version": version}))


def test_a_model_of_arrays_takes_no_context(at_acme: Filled, owner: Browser) -> None:
    form = {"name": "second", "version": "acme-lenet@1", "context_tokens": "4096", "share": "on", "top_k": "3"}
    owner.follow(owner.post(DEPLOY, form))
    with scope.tenant(at_acme.deposit.id, write=False):
        row = Deployment.objects.get(name="second")
    assert (row.context_tokens, row.share, row.output_policy["top_k"]) == (None, False, 3)


@pytest.mark.parametrize(
    ("tokens", "said"), [("3", "is out of range (512 to 16777216)"), ("many", "whole number"), ("-1", "out of range")]
)
def test_a_wrong_context_is_refused_at_its_field(tokens: str, said: str, acme: Deposit, owner: Browser) -> None:
    language(acme)
    answer = owner.post(DEPLOY, {"name": "chat", "version": "smol@1", "context_tokens": tokens})
    assert said in error(answer, "context_tokens")


def test_the_change_begins_with_what_counts_and_changes_it(acme: Deposit, owner: Browser) -> None:
    row = served(acme, language(acme), context_tokens=2048, share=True, limits={"deadline_ms": 7000})
    html = owner.text(page_of(row))
    assert 'value="2048"' in field(html, "context_tokens")
    assert "checked" in field(html, "share")
    assert 'value="7000"' in field(html, "deadline_ms")
    assert "Empty: 64." in field(html, "concurrency")
    owner.follow(
        owner.post(page_of(row) + "switch/", {"version": "smol@1", "context_tokens": "", "deadline_ms": "9000"})
    )
    with scope.tenant(acme.id, write=False):
        row.refresh_from_db()
    assert (row.context_tokens, row.share, row.limits["deadline_ms"]) == (None, False, 9000)


# --- asking one


def test_a_language_model_is_asked_in_a_chat_box(acme: Deposit, owner: Browser) -> None:
    html = unescape(owner.text(page_of(served(acme, language(acme)))))
    assert 'id="chat" data-tenant="acme" data-chats="yes"' in html
    assert 'data-turns data-model="smol"' in html
    for name in ("system", "temperature", "top_p", "max_tokens", "seed", "stop", "schema"):
        assert f'id="id_chat-{name}"' in html
    assert 'role="log" aria-live="polite"' in html
    assert "/v1/chat/completions" in html
    assert "client.chat.completions.create(" in html
    assert 'id="try"' not in html
    assert "as many as the model looks back on" in html


def test_a_model_without_a_chat_template_goes_on_from_a_text(acme: Deposit, owner: Browser) -> None:
    html = owner.text(page_of(served(acme, language(acme, chat_template=False))))
    assert 'data-chats="no"' in html
    assert "/v1/completions" in html
    assert "/v1/chat/completions" not in html.partition("<h2>Change")[0]
    assert 'id="id_chat-system"' not in html
    assert 'id="id_chat-schema"' not in html


def test_the_chat_box_is_for_who_may_predict(acme: Deposit, owner: Browser, member: Callable[[Role], Browser]) -> None:
    page = page_of(served(acme, language(acme)))
    seen = member(Role.VIEWER).text(page)
    for mark in ('id="chat"', "console/chat.js"):
        assert mark in owner.text(page)
        assert mark not in seen
    assert "Call it" in seen
    assert 'id="chat"' in member(Role.DEVELOPER).text(page)


def test_a_stopped_deployment_is_not_asked(acme: Deposit, owner: Browser) -> None:
    row = served(acme, language(acme))
    owner.post(page_of(row) + "stop/")
    assert 'id="chat"' not in owner.text(page_of(row))


def test_a_text_encoder_compares_two_texts(acme: Deposit, owner: Browser) -> None:
    html = unescape(owner.text(page_of(served(acme, encoder(acme, "minilm", ENCODER)))))
    assert 'id="compare" data-model="minilm" data-tenant="acme"' in html
    assert "client.embeddings.create(" in html
    assert 'id="chat"' not in html
    assert 'id="try"' not in html


def test_an_embedding_of_arrays_keeps_the_box_of_arrays(at_acme: Filled, owner: Browser) -> None:
    html = owner.text(page_of(served(at_acme.deposit, encoder(at_acme.deposit, "vectors", None))))
    assert 'id="try"' in html
    assert 'id="compare"' not in html


def test_the_boxes_have_no_script_and_no_style_inside_the_page(acme: Deposit, owner: Browser) -> None:
    """The policy would refuse them; only unfold's own style="…" is let through."""
    for version in (language(acme), encoder(acme, "minilm", ENCODER)):
        answer = owner.open(page_of(served(acme, version)))
        box = answer.content.decode().partition('class="sr-page"')[2].partition("<h2>Call it")[0]
        assert not re.search(r"<script|<style|\son\w+=|\sstyle=|javascript:", box)
        policy = answer["Content-Security-Policy"]
        assert "connect-src 'self'" in policy
        assert "unsafe-eval" not in policy


def test_another_tenants_language_model_is_not_there(acme: Deposit, globex: Deposit, owner: Browser) -> None:
    theirs = language(globex, "theirs")
    assert owner.open(f"/admin/models/{theirs.pk}/").status_code == 404
    assert owner.open(page_of(served(globex, theirs))).status_code == 404
    assert "theirs@1" not in owner.text(DEPLOY)


def test_the_overview_names_a_language_model_among_the_newest(at_acme: Filled, owner: Browser) -> None:
    language(at_acme.deposit)
    assert "smol@1" in owner.text("/admin/")


def test_an_emptied_field_is_the_usual_one_again(at_acme: Filled, owner: Browser) -> None:
    page = page_of(at_acme.deployment) + "switch/"
    form = {"version": "acme-lenet@1", "concurrency": "3", "deadline_ms": "5000", "max_batch": "7", "scores": "on"}
    owner.follow(owner.post(page, form))
    with scope.tenant(at_acme.deposit.id, write=False):
        row = Deployment.objects.get(pk=at_acme.deployment.pk)
    assert (row.limits, row.max_batch) == ({"concurrency": 3, "deadline_ms": 5000}, 7)
    owner.follow(owner.post(page, {"version": "acme-lenet@1", "scores": "on"}))
    with scope.tenant(at_acme.deposit.id, write=False):
        row.refresh_from_db()
    assert (row.limits, row.max_batch) == ({}, 64)


def test_a_deployment_that_becomes_a_language_model_keeps_nothing_of_the_other(at_acme: Filled, owner: Browser) -> None:
    language(at_acme.deposit)
    page = page_of(at_acme.deployment)
    owner.follow(owner.post(page + "switch/", {"version": "acme-lenet@1", "top_k": "3", "scores": "on"}))
    html = owner.follow(owner.post(page + "switch/", {"version": "smol@1", "context_tokens": "4096"}))
    assert "600,000 ms" in html
    owner.follow(owner.post(page + "switch/", {"version": "acme-lenet@1", "scores": "on"}))
    with scope.tenant(at_acme.deposit.id, write=False):
        row = Deployment.objects.get(pk=at_acme.deployment.pk)
    assert (row.context_tokens, row.output_policy) == (None, {"top_k": None, "decimals": None, "scores": True})


def test_a_version_that_is_not_among_the_newest_is_never_exchanged_for_another(
    at_acme: Filled, owner: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "CHOICES", 1)
    language(at_acme.deposit)  # newer than the one that is served
    html = field(owner.text(page_of(at_acme.deployment)), "version")
    assert re.search(r'<option value="acme-lenet@1"[^>]*selected', html)
    wanted = field(owner.text(DEPLOY + "?version=acme-lenet@1"), "version")
    assert re.search(r'<option value="acme-lenet@1"[^>]*selected', wanted)
    unknown = options(owner.text(DEPLOY + "?version=nothing@7"), "version")
    assert next(iter(unknown)) == ""


def test_a_page_of_a_stopped_deployment_changes_no_other_of_its_name(acme: Deposit, owner: Browser) -> None:
    version = language(acme)
    old = served(acme, version)
    owner.post(page_of(old) + "stop/")
    new = served(acme, version)
    for verb, form in (("stop/", {}), ("switch/", {"version": "smol@1", "concurrency": "1"})):
        owner.post(page_of(old) + verb, form)
        with scope.tenant(acme.id, write=False):
            new.refresh_from_db()
        assert (new.state, new.limits) == ("loading", {})


def test_a_page_says_that_its_own_model_is_not_shared(acme: Deposit, owner: Browser) -> None:
    assert "no: asked for, but only a model that was adopted is shared" in owner.text(
        page_of(served(acme, language(acme), share=True))
    )
