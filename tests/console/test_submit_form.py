"""The form that submits a training: the same document, service and errors as REST, each error at its field."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpResponse

from strongroom.access.services import principal_of
from strongroom.console.forms.jobs import TrainingForm
from strongroom.console.forms.spec import laid_over
from strongroom.console.pages.deployments import example_of
from strongroom.datasets import services as datasets
from strongroom.errors import Denied
from strongroom.jobs.models import Job
from strongroom.jobs.services import check_rights
from strongroom.tenants import scope
from tests.callers import SYSTEM, Api, Deposit
from tests.console.browsing import Browser
from tests.console.rows import CLASSES, Filled, ready_dataset, uploaded

pytestmark = pytest.mark.slow  # a minute of pages: left out of make fast

GOOD = {
    "name": "second",
    "dataset": "acme-digits@1",
    "task": "classification",
    "model": "lenet",
    "loss": "auto",
    "optimizer": "sgd",
    "lr": "0.001",
    "momentum": "0.9",
    "epochs": "25",
    "batch_size": "4",
    "split": "stratified",
    "train_part": "0.7",
    "validation_part": "0.15",
    "test_part": "0.15",
    "seed": "0",
}
ADDRESS = "/admin/jobs/train/"


def errors(answer: HttpResponse) -> dict[str, list[str]]:
    """field → what is said at it"""
    assert answer.status_code == 422
    found: dict[str, list[str]] = {}
    for block in answer.content.decode().split('data-field="')[1:]:
        said = re.findall(r'<p class="sr-error">(.*?)</p>', block)
        if said:
            found[block.partition('"')[0]] = [unescape(each) for each in said]
    return found


@pytest.fixture
def send(at_acme: Filled, owner: Browser) -> Callable[..., HttpResponse]:
    return lambda **changed: owner.post(ADDRESS, {k: v for k, v in (GOOD | changed).items() if v is not None})


def submitted(at_acme: Filled) -> list[Job]:
    with scope.tenant(at_acme.deposit.id, write=False):
        rows = list(Job.objects.filter(kind="train").exclude(id=at_acme.job.id).order_by("id"))
        assert all(job.spec for job in rows)  # opened while in scope
        return rows


def test_a_good_form_is_a_job_with_its_page(send: Any, at_acme: Filled, owner: Browser) -> None:
    page = owner.follow(send())
    (job,) = submitted(at_acme)
    assert "second" in page
    assert (job.kind, job.state, job.created_by_kind, job.created_by_id) == (
        "train", "queued", "member", at_acme.deposit.owner.id,
    )  # fmt: skip


def test_the_form_says_what_rest_says(send: Any, at_acme: Filled) -> None:
    """Field by field the same spec, every default included."""
    send()
    (from_form,) = submitted(at_acme)
    document = {
        "kind": "train",
        "name": "second",
        "task": "classification",
        "dataset": {"name": "acme-digits"},
        "model": {"kind": "catalogue", "name": "lenet"},
        "train": {"optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9}, "batch_size": 4, "epochs": 25},
    }
    api: Api = at_acme.deposit.api
    dry = api.post("/api/v1/jobs?dry_run=1", document)
    assert dry.status_code == 200, dry.content
    assert dry.json()["spec_sha256"] == from_form.spec_sha256


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"lr": "-0.1"}, "lr", "must be greater than 0"),
        ({"lr": "fast"}, "lr", "Enter a number"),
        ({"lr": "nan"}, "lr", "Enter a number"),
        ({"epochs": "0"}, "epochs", "must be at least 1"),
        ({"epochs": "2.5"}, "epochs", "whole number"),
        ({"batch_size": "-4"}, "batch_size", "must be at least 1"),
        ({"momentum": "1.5"}, "momentum", "less than 1"),
        ({"optimizer": "adamw"}, "momentum", "belongs to sgd"),
        ({"name": "Not A Name"}, "name", ""),
        ({"name": None}, "name", "required"),
        ({"dataset": None}, "dataset", "required"),
        ({"dataset": "acme-digits@2"}, "dataset", "Select a valid choice"),
        ({"model": "resnet"}, "model", "Select a valid choice"),
        ({"target": "price"}, "target", "is not the data set's target"),
        ({"train_part": "0.9"}, "train_part", "must add up to 1"),
        ({"test_part": "1.5"}, "test_part", "less than 1"),
        ({"task": "regression", "loss": "cross_entropy"}, "loss", "does not fit the task"),
        ({"seed": "-1"}, "seed", "must be at least 0"),
        ({"register_as": "No"}, "register_as", ""),
        ({"deploy_to": "No"}, "deploy_to", ""),
    ],
)
def test_an_error_is_at_its_field(
    changed: dict[str, str | None], field: str, said: str, send: Any, at_acme: Filled
) -> None:
    found = errors(send(**changed))
    assert field in found, found
    assert any(said in text for text in found[field]), found
    assert submitted(at_acme) == []


def test_another_tenants_data_set_is_no_choice(send: Any, at_acme: Filled, at_globex: Filled) -> None:
    assert "Select a valid choice" in errors(send(dataset="globex-digits@1"))["dataset"][0]
    assert "dataset" not in errors(send(dataset="acme-digits@1", lr="0"))
    over = json.dumps({"dataset": {"name": "globex-digits", "version": 1}})
    assert "there is no data set" in errors(send(advanced=over))["dataset"][0]
    assert submitted(at_acme) == []


def test_all_errors_are_shown_at_once(send: Any) -> None:
    found = errors(send(lr="-1", epochs="0", batch_size="x", momentum="2", name="Bad Name"))
    assert {"lr", "epochs", "batch_size", "momentum", "name"} <= set(found)
    assert all(len(said) == 1 for said in found.values()), found


def test_what_was_typed_is_still_there(send: Any) -> None:
    html = send(lr="-0.1", name="kept-name").content.decode()
    assert 'value="kept-name"' in html
    assert 'value="-0.1"' in html


def test_a_model_of_another_task_keeps_its_name(send: Any, at_acme: Filled) -> None:
    """acme-lenet is a classification."""
    with scope.tenant(at_acme.deposit.id):
        ready_dataset(SYSTEM, "numbers", CLASSES, data=b"other bytes")
    found = errors(send(dataset="numbers@1", task="regression", loss="mse", register_as="acme-lenet"))
    assert "is a model of task classification" in found["register_as"][0]


@pytest.mark.parametrize("name", ["checking", "failed"])
def test_a_data_set_that_is_not_ready_is_not_offered(name: str, at_acme: Filled, owner: Browser) -> None:
    with scope.tenant(at_acme.deposit.id):
        version = uploaded(SYSTEM, "unready", b"other bytes")
        if name == "failed":
            datasets.mark_failed(version, "zip_entry_outside", "entry leaves the archive", None)
    assert "unready@1" not in owner.text(ADDRESS)


# --- the advanced box


def test_advanced_json_is_laid_over_the_fields(send: Any, at_acme: Filled) -> None:
    over = {
        "train": {"early_stop": {"metric": "validation/loss", "patience": 3}, "epochs": 7},
        "resources": {"threads": 2},
    }
    assert send(advanced=json.dumps(over)).status_code == 302
    spec: Any = submitted(at_acme)[0].spec
    assert spec["train"]["early_stop"]["patience"] == 3
    assert spec["train"]["epochs"] == 7
    assert spec["train"]["batch_size"] == 4  # the field's, untouched
    assert spec["resources"]["threads"] == 2


def test_a_model_spelled_out_replaces_the_one_by_name(send: Any, at_acme: Filled) -> None:
    layers = [{"op": "flatten"}, {"op": "linear", "out": 10}]
    assert send(advanced=json.dumps({"model": {"kind": "layers", "layers": layers}})).status_code == 302
    spec: Any = submitted(at_acme)[0].spec
    assert spec["model"] == {"kind": "layers", "layers": layers}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "must be a JSON object"),
        ('{"train": {"epochs": NaN}}', "is no JSON"),
        ('{"trian": {}}', "/trian: is not a known field"),
        ('{"train": {"optimiser": {}}}', "did you mean 'optimizer'"),
        ('{"resources": {"threads": 0}}', "/resources/threads:"),
        ('{"privacy": {"dp": {}}}', "/privacy"),
    ],
)
def test_an_error_that_no_field_stands_for_is_at_the_advanced_box(text: str, said: str, send: Any) -> None:
    found = errors(send(advanced=text))
    assert any(said in each for each in found["advanced"]), found


def test_an_error_of_the_advanced_box_about_a_field_is_at_that_field(send: Any) -> None:
    assert "lr" in errors(send(advanced='{"train": {"optimizer": {"lr": -5}}}'))


def test_laying_over_keeps_what_is_not_named() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert laid_over(below, {"a": {"b": 9}, "d": [2], "e": None}) == {"a": {"b": 9, "c": 2}, "d": [2], "e": None}
    assert below == {"a": {"b": 1, "c": 2}, "d": [1]}


# --- beginnings


def test_the_form_begins_with_what_fits_the_chosen_data_set(at_acme: Filled, owner: Browser) -> None:
    html = owner.text(f"{ADDRESS}?dataset=acme-digits@1")
    assert '<option value="acme-digits@1" selected>' in html
    assert '<option value="lenet" selected>' in html


def test_an_unknown_data_set_in_the_address_is_passed_over(at_acme: Filled, owner: Browser) -> None:
    assert "acme-digits@1" in owner.text(f"{ADDRESS}?dataset=globex-digits@1")


def test_without_a_data_set_the_form_says_what_to_do(acme: Any, owner: Browser) -> None:
    assert "No data set is ready" in owner.text(ADDRESS)


def test_every_pointer_leads_to_a_field_and_every_field_is_drawn() -> None:
    fields = set(TrainingForm.base_fields)
    assert set(TrainingForm.pointers.values()) <= fields
    assert {name for _, names in TrainingForm.groups for name in names} | {"advanced"} == fields


def test_who_may_not_deploy_cannot_have_a_job_do_it(acme: Deposit) -> None:
    """Of today's roles each that submits may deploy; this holds for any that comes."""
    narrow = dataclasses.replace(principal_of(acme.owner), scopes=frozenset({"jobs:write"}))
    check_rights(narrow, {"kind": "train", "register": {"model": "x"}})
    with pytest.raises(Denied):
        check_rights(narrow, {"kind": "train", "register": {"deploy": "served"}})


def test_an_advanced_box_nested_without_end_is_refused(send: Callable[..., HttpResponse]) -> None:
    answer = send(advanced='{"train": ' + "[" * 200_000 + "]" * 200_000 + "}")
    assert errors(answer)["advanced"] == ["is nested too deep"]


@pytest.mark.parametrize("shape", [[-1, -1, 30_000_000], [-1, 30_000_000], [-1, 0, 30_000_000], [-1, 2, 3]])
def test_the_example_of_a_body_is_small_whatever_the_model_takes(shape: list[int]) -> None:
    version: Any = SimpleNamespace(signature={"inputs": [{"name": "x", "datatype": "UINT8", "shape": shape}]})
    assert len(example_of(version)) < 100
