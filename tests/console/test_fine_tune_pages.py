"""Fine-tuning in the panel: what the form offers and sends, its errors at their fields, the job's page, an adapter's
page, and the page on which it is asked beside its base."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.http import HttpResponse

from strongroom.console import cards
from strongroom.console.forms.tuning import TuningForm
from strongroom.datasets import services as datasets
from strongroom.datasets.models import DatasetVersion
from strongroom.deployments.models import Deployment
from strongroom.jobs.models import Event, Job
from strongroom.registry import services as registry
from strongroom.registry.models import ModelVersion
from strongroom.tenants import scope
from strongroom.tenants.models import Role
from strongroom.vault import services as vault
from tests.callers import SYSTEM, Deposit
from tests.console.browsing import Browser
from tests.console.rows import Filled, uploaded
from tests.console.test_language_cards import CARD
from tests.console.test_language_pages import error, field, language, options, page_of, served
from tests.console.test_submit_form import errors

pytestmark = pytest.mark.slow  # a minute of pages: left out of make fast

ADDRESS, COMPARE = "/admin/jobs/tune/", "/admin/models/compare/"
GOOD = {
    "base": "smol@1",
    "dataset": "talks@1",
    "name": "tone",
    "method": "",
    "epochs": "3",
    "batch_size": "8",
    "rank": "8",
    "alpha": "16",
    "validation_part": "0.1",
    "seed": "0",
}


def conversations(deposit: Deposit, name: str = "talks", *columns: str, rows: int = 24) -> DatasetVersion:
    """A ready data set; of pairs of answers where the columns say so."""
    with scope.tenant(deposit.id):
        version = uploaded(SYSTEM, name, name.encode(), "chat-jsonl")
        blank = {"missing": 0, "unique": rows, "min": 3, "max": 90, "mean": 20.5, "classes": None, "shape": None}
        found = [blank | {"name": column, "type": "text"} for column in columns or ("messages",)]
        datasets.mark_ready(version, {"rows": rows, "modality": "text", "columns": found, "warnings": []})
        return version


def pairs(deposit: Deposit, name: str = "pairs") -> DatasetVersion:
    return conversations(deposit, name, "input", "preferred_output", "non_preferred_output")


def adapter(deposit: Deposit, base: ModelVersion, name: str = "tone", *, job: Job | None = None) -> ModelVersion:
    """As a fine-tuning registers it."""
    said = CARD | {"method": "supervised", "rank": 8, "alpha": 16.0, "epochs": 3, "adapter": "lora"}
    said |= {"before": {"validation/loss": 3.25, "validation/perplexity": 25.79}, "report": ["proved on 12 tokens"]}
    with scope.tenant(deposit.id):
        return registry.register(
            name=name,
            task="generation",
            artefact=vault.seal_bytes(deposit.id, "model", b"adapter"),
            result={
                "signature": {"kind": "language", "chat": True, "tools": False, "adapter": True},
                "card": said,
                "metrics": {"train/loss": 0.4, "validation/loss": 0.5, "validation/perplexity": 1.65},
                "parameters": 4_884_480,
            },
            lineage={"parent": str(base)},
            job_id=None if job is None else job.id,
            format="lora",
            base=base,
        )


def ready(row: Deployment) -> Deployment:
    with scope.tenant(row.tenant_id):
        Deployment.objects.filter(id=row.id).update(state="ready")
    return row


@pytest.fixture
def base(acme: Deposit) -> ModelVersion:
    return language(acme)


@pytest.fixture
def send(acme: Deposit, base: ModelVersion, owner: Browser) -> Callable[..., HttpResponse]:
    conversations(acme)
    return lambda **changed: owner.post(ADDRESS, {k: v for k, v in (GOOD | changed).items() if v is not None})


def submitted(deposit: Deposit) -> Any:
    with scope.tenant(deposit.id, write=False):
        job = Job.objects.get(kind="finetune")
        assert job.spec  # opened while in scope
        return job


# --- the form


def test_fine_tuning_is_offered_on_the_overview_and_the_list_of_jobs(owner: Browser) -> None:
    for address in ("/admin/", "/admin/jobs/"):
        assert "Fine-tune a model" in owner.text(address)


def test_the_form_offers_models_that_chat_and_conversations_and_nothing_else(
    at_acme: Filled, base: ModelVersion, owner: Browser
) -> None:
    acme = at_acme.deposit
    language(acme, "mute", chat_template=False)
    adapter(acme, base)
    conversations(acme)
    pairs(acme)
    html = owner.text(ADDRESS)
    assert options(html, "base") == {"smol@1": "smol@1 · 134,515,008 parameters, Q4_0"}
    assert options(html, "dataset") == {
        "talks@1": "talks@1 · 24 conversations",
        "pairs@1": "pairs@1 · 24 pairs of answers",
    }
    assert set(options(owner.text("/admin/jobs/train/"), "dataset")) == {"acme-digits@1"}


def test_without_a_base_and_without_data_the_form_says_what_to_do(owner: Browser) -> None:
    html = owner.text(ADDRESS)
    assert "No language model that chats is ready" in html
    assert "No data set of conversations is ready" in html


def test_another_tenants_base_and_data_are_no_choice(send: Any, acme: Deposit, globex: Deposit, owner: Browser) -> None:
    language(globex, "theirs")
    conversations(globex, "secrets")
    html = owner.text(f"{ADDRESS}?base=theirs@1&dataset=secrets@1")
    assert "theirs" not in html
    assert "secrets" not in html
    assert "Select a valid choice" in error(send(base="theirs@1"), "base")
    assert "Select a valid choice" in error(send(dataset="secrets@1"), "dataset")
    over = json.dumps({"base": "theirs@1", "dataset": {"name": "secrets"}})
    assert "there is no data set" in error(send(advanced=over), "dataset")
    assert "there is no model" in error(send(advanced=json.dumps({"base": "theirs@1"})), "base")


def test_another_tenants_public_model_is_not_offered_to_be_tuned(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    """Its weights stay the owner's artefact."""
    with scope.tenant(acme.id):
        ModelVersion.objects.filter(id=base.id).update(artefact=None)
    assert options(owner.text(ADDRESS), "base") == {}
    assert "/admin/jobs/tune/?base" not in owner.text(f"/admin/models/{base.pk}/")


def test_a_good_form_is_a_job_whose_page_shows_base_data_and_spec(
    send: Any, acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    html = unescape(owner.follow(send()))
    job = submitted(acme)
    assert job.base_version_id == base.id
    for text in ("tone", f"/admin/models/{job.base_version_id}/", "smol@1", "talks@1", '"rank": 8', job.spec_sha256):
        assert text in html


def test_the_form_says_what_rest_says(send: Any, acme: Deposit) -> None:
    """Field by field the same spec, every default included."""
    send()
    document = {"kind": "finetune", "name": "tone", "base": "smol", "dataset": {"name": "talks"}}
    dry = acme.api.post("/api/v1/jobs?dry_run=1", document)
    assert dry.status_code == 200, dry.content
    assert dry.json()["spec_sha256"] == submitted(acme).spec_sha256


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({"dataset": "pairs@1"}, {"name": "dpo", "beta": 0.1}),
        ({"dataset": "pairs@1", "beta": "0.3"}, {"name": "dpo", "beta": 0.3}),
        ({"dataset": "pairs@1", "method": "dpo"}, {"name": "dpo", "beta": 0.1}),
        ({"beta": "0.3"}, {"name": "supervised"}),
    ],
)
def test_the_method_is_what_fits_the_data_set_unless_it_is_chosen(
    given: dict[str, str], method: dict[str, Any], send: Any, acme: Deposit
) -> None:
    pairs(acme)
    assert send(**given).status_code == 302
    assert submitted(acme).spec["method"] == method


@pytest.mark.parametrize(
    ("changed", "name", "said"),
    [
        ({"method": "dpo"}, "method", "'dpo' cannot learn from messages"),
        ({"method": "ppo"}, "method", "Select a valid choice"),
        ({"method": "dpo", "beta": "0"}, "beta", "must be greater than 0"),
        ({"epochs": "0"}, "epochs", "must be at least 1"),
        ({"epochs": "many"}, "epochs", "whole number"),
        ({"batch_size": "-1"}, "batch_size", "must be at least 1"),
        ({"lr": "-0.1"}, "lr", "must be greater than 0"),
        ({"lr": "nan"}, "lr", "Enter a number"),
        ({"rank": "1000"}, "rank", "must be at most 256"),
        ({"alpha": "0"}, "alpha", "must be greater than 0"),
        ({"max_tokens": "4"}, "max_tokens", "must be at least 8"),
        ({"max_tokens": "9000"}, "max_tokens", "the base looks back on 8192"),
        ({"validation_part": "1"}, "validation_part", "must be"),
        ({"validation_part": "-0.1"}, "validation_part", "must be"),
        ({"seed": "-1"}, "seed", "must be at least 0"),
        ({"name": "Not A Name"}, "name", ""),
        ({"name": None}, "name", "required"),
        ({"base": None}, "base", "required"),
        ({"register_as": "No"}, "register_as", ""),
        ({"deploy_to": "No"}, "deploy_to", ""),
        ({"advanced": "{"}, "advanced", "is no JSON"),
        ({"advanced": '{"lora": {"targets": ["lm_head"]}}'}, "advanced", "/lora/targets"),
    ],
)
def test_an_error_is_at_its_field(
    changed: dict[str, str | None], name: str, said: str, send: Any, acme: Deposit
) -> None:
    found = errors(send(**changed))
    assert any(said in text for text in found[name]), found
    with scope.tenant(acme.id, write=False):
        assert not Job.objects.filter(kind="finetune").exists()


def test_a_name_of_a_model_of_another_task_is_refused_at_its_field(at_acme: Filled, send: Any) -> None:
    assert "is a model of task classification" in error(send(register_as="acme-lenet"), "register_as")


def test_advanced_json_is_laid_over_the_fields(send: Any, acme: Deposit) -> None:
    assert send(advanced='{"lora": {"targets": ["q_proj"]}, "train": {"accumulate": 2}}').status_code == 302
    spec = submitted(acme).spec
    assert (spec["lora"]["targets"], spec["lora"]["rank"], spec["train"]["accumulate"]) == (["q_proj"], 8, 2)


def test_the_form_begins_with_what_was_chosen_on_the_page_before(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    conversations(acme)
    language(acme, "newer")
    conversations(acme, "later")
    html = owner.text(f"{ADDRESS}?base=smol@1&dataset=talks@1")
    for chosen in ("smol@1", "talks@1"):
        assert f'<option value="{chosen}" selected' in html
    assert 'value="talks"' in field(html, "name")
    assert f'href="{ADDRESS}?base=smol@1"' in owner.text(f"/admin/models/{base.pk}/")


def test_who_only_looks_tunes_nothing(acme: Deposit, base: ModelVersion, member: Callable[[Role], Browser]) -> None:
    version = conversations(acme)
    viewer, developer = member(Role.VIEWER), member(Role.DEVELOPER)
    assert viewer.open(ADDRESS).status_code == viewer.post(ADDRESS, GOOD).status_code == 403
    for address in ("/admin/jobs/", f"/admin/models/{base.pk}/", f"/admin/datasets/{version.pk}/"):
        assert "une a model" in developer.text(address) or "/admin/jobs/tune/?" in developer.text(address)
        assert "/admin/jobs/tune/" not in viewer.text(address)
    assert developer.post(ADDRESS, GOOD).status_code == 302


def test_every_pointer_leads_to_a_field_and_every_field_is_drawn() -> None:
    fields = set(TuningForm.base_fields)
    assert set(TuningForm.pointers.values()) <= fields
    assert {name for _, names in TuningForm.groups for name in names} | {"advanced"} == fields


# --- data


def test_conversations_are_offered_in_the_upload_and_lead_to_the_tuning(acme: Deposit, owner: Browser) -> None:
    html = owner.text("/admin/datasets/upload/")
    assert "chat-jsonl" in options(html, "format")
    assert ".jsonl" in html
    html = owner.text(f"/admin/datasets/{conversations(acme).pk}/")
    assert f'href="{ADDRESS}?dataset=talks@1"' in html
    assert "Fine-tune on it" in html
    assert "<span>Target</span>" not in html


# --- the job


def test_the_curves_are_loss_and_perplexity_and_of_preferences_margin(send: Any, acme: Deposit, owner: Browser) -> None:
    send()
    job = submitted(acme)
    points = {"train/loss": 2.0, "validation/loss": 2.2, "validation/perplexity": 9.0, "validation/margin": 0.5}
    with scope.tenant(acme.id):
        Job.objects.filter(id=job.id).update(state="running")
        for epoch in (1, 2):
            for name, value in points.items():
                data = {"name": name, "epoch": epoch, "step": 3 * epoch, "value": value / epoch}
                Event.objects.create(job=job, kind="metric", data=data)
    html = unescape(owner.text(f"/admin/jobs/{job.pk}/live/"))
    curves = json.loads(re.search(r'data-curves="({.*?})"', html)[1])  # type: ignore[index]  # it is there
    assert {metric: sorted(lines) for metric, lines in curves.items()} == {
        "loss": ["train", "validation"], "perplexity": ["validation"], "margin": ["validation"],
    }  # fmt: skip
    assert curves["perplexity"]["validation"] == [[1, 9.0], [2, 4.5]]


def test_the_jobs_page_links_the_adapter_that_it_made(
    send: Any, acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    send()
    job = submitted(acme)
    made = adapter(acme, base, job=job)
    html = owner.text(f"/admin/jobs/{job.pk}/")
    assert f"/admin/models/{made.pk}/" in html
    assert "proved on 12 tokens" in html


# --- the adapter


def test_an_adapters_page_says_of_which_base_it_is_how_it_learned_and_how_the_base_did(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    html = owner.text(f"/admin/models/{adapter(acme, base).pk}/")
    assert f'<span>Adapter of</span><b><a href="/admin/models/{base.pk}/">smol@1</a>' in html
    for text in ("supervised", "16", "1.65", "25.79", "lora"):
        assert text in html
    assert "of the base, before" in html
    assert "What was learned and proved" in html
    assert "Adapter of" not in owner.text(f"/admin/models/{base.pk}/")


def test_what_a_base_did_before_is_taken_for_a_claim() -> None:
    assert cards.before({"before": {"validation/loss": 3.5, "x": "y", "validation/odd": {}}}) == [("loss", 3.5)]
    for card in (None, {}, {"before": 3}, {"before": ["validation/loss"]}):
        assert cards.before(card) == []


# --- side by side


def test_base_and_tuned_are_asked_side_by_side(acme: Deposit, base: ModelVersion, owner: Browser) -> None:
    tuned = adapter(acme, base)
    for version in (base, tuned):
        ready(served(acme, version))
    assert f'href="{COMPARE}?version=tone@1"' in owner.text(f"/admin/models/{tuned.pk}/")
    html = owner.text(f"{COMPARE}?version=tone@1")
    assert re.findall(r'data-turns data-model="([^"]+)"', html) == ["smol", "tone"]
    assert "console/chat.js" in html
    assert "not deployed" not in html
    assert 'value="0"' in field(html, "temperature")


def test_what_is_not_deployed_is_said_with_where_to_deploy_it(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    tuned = adapter(acme, base)
    html = owner.text(f"{COMPARE}?version=tone@1")
    for name in ("smol@1", "tone@1"):
        assert f"{name} is not deployed" in html
        assert f'href="/admin/deployments/deploy/?version={name}"' in html
    ready(served(acme, tuned))
    html = owner.text(f"{COMPARE}?version=tone@1")
    assert "tone@1 is not deployed" not in html
    assert re.findall(r'data-turns data-model="([^"]+)"', html) == ["tone"]
    served(acme, base)
    assert 'data-state="loading"' in owner.text(f"{COMPARE}?version=tone@1")


def test_of_several_deployments_the_newest_that_is_ready_is_asked(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    adapter(acme, base)
    with scope.tenant(acme.id):
        for name in ("first", "second", "third"):
            served(acme, base, name=name)
        Deployment.objects.filter(name__in=["first", "second"]).update(state="ready")
    assert 'data-model="second"' in owner.text(f"{COMPARE}?version=tone@1")


def test_without_an_adapter_in_the_address_the_page_lists_them(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    assert "No model was fine-tuned yet" in owner.text(COMPARE)
    adapter(acme, base)
    for address in (COMPARE, f"{COMPARE}?version=smol@1", f"{COMPARE}?version=zz", f"{COMPARE}?version="):
        html = owner.text(address)
        assert 'href="?version=tone@1"' in html
        assert "data-turns" not in html


def test_another_tenants_adapter_is_not_compared(acme: Deposit, globex: Deposit, owner: Browser) -> None:
    adapter(globex, language(globex, "theirs"), "secret")
    html = owner.text(f"{COMPARE}?version=secret@1")
    assert "theirs" not in html
    assert "No model was fine-tuned yet" in html


def test_side_by_side_is_for_who_may_predict(
    acme: Deposit, base: ModelVersion, member: Callable[[Role], Browser]
) -> None:
    tuned = adapter(acme, base)
    viewer = member(Role.VIEWER)
    assert viewer.open(f"{COMPARE}?version=tone@1").status_code == 403
    assert COMPARE not in viewer.text(f"/admin/models/{tuned.pk}/")
    assert member(Role.DEVELOPER).open(f"{COMPARE}?version=tone@1").status_code == 200


def test_a_deployment_of_an_adapter_links_the_page_with_its_base(
    acme: Deposit, base: ModelVersion, owner: Browser
) -> None:
    tuned = adapter(acme, base)
    assert f"{COMPARE}?version=tone@1" in owner.text(page_of(served(acme, tuned)))
    assert COMPARE not in owner.text(page_of(served(acme, base)))
