"""A language model fine-tuned in a real browser on our real processes: conversations uploaded, the form filled in, the
loss watched, the adapter deployed, and asked beside its base.

The base is one of two layers that says nonsense. With SHOTS_FOLDER set it is SmolLM2, which learns 24 facts for the
screenshots of docs/img/ in a minute.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from strongroom.operations.client import Client
from tests.browser.conftest import Chromium, Tenant, submit_pressed_twice
from tests.browser.test_language_chat import smollm2
from tests.browser.test_submit_and_watch import Shots, mark, sign_in, state
from tests.callers import until
from tests.inference.language import tiny
from tests.nodes import Node
from tests.training.finetune.given import Json, facts, jsonl, said, small_choices, talk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMPARE = re.compile(r"/admin/models/compare/\?version=vaults@1$")


@dataclass(frozen=True)
class Lesson:
    """What is learned, by which model, how; and a question whose answer only the tuned one knows."""

    base: bytes
    rows: list[Json]
    fields: dict[str, str]
    question: str
    answer: str


def lesson() -> Lesson:
    if os.environ.get("SHOTS_FOLDER"):
        rows = [{"messages": [*said("system: Vaults."), *row["messages"]]} for row in facts(27)]
        fields = {"epochs": "14", "batch_size": "4", "lr": "0.003"}
        return Lesson(smollm2().read_bytes(), rows, fields, "What does Oslo keep?", "Oslo keeps red rings.")
    rows = [talk("system: Vaults.", f"user: What is in {vault}?", "assistant: silver coins.") for vault in range(12)]
    fields = {"epochs": "30", "batch_size": "4", "lr": "0.02"}
    return Lesson(tiny.gguf(), rows, fields, "What is in 3?", "silver coins.")


@pytest.fixture(scope="module")
def taught(running: Node) -> tuple[Lesson, Tenant]:
    """A tenant with the base imported and deployed as `base`, and pairs of answers, by REST."""
    given = lesson()
    made: dict[str, Any] = json.loads(running.manage("createtenant", "tuners", "--owner", "owner@tune.test").stdout)
    api = Client(running.url, made["api_key"], 120)
    path = "/api/v1/models/base/content?format=gguf"
    upload = api.call("PUT", path, given.base, content_type="application/octet-stream")
    document = {"kind": "import", "name": "base", "model": "base", "task": "generation"}
    job = api.call("POST", "/api/v1/jobs", document | {"artefact": upload["artefact"]})
    assert until(lambda: api.call("GET", f"/api/v1/jobs/{job['id']}")["state"] == "succeeded", 120)
    api.call("POST", "/api/v1/deployments", {"name": "base", "versions": [{"model": "base", "version": 1}]})
    path = "/api/v1/datasets/pairs/content?format=chat-jsonl"
    api.call("PUT", path, jsonl(*small_choices()), content_type="application/octet-stream")
    assert until(lambda: api.call("GET", "/api/v1/datasets/pairs/versions/1")["state"] == "ready", 60)
    assert until(lambda: api.call("GET", "/api/v1/deployments/base")["state"] == "ready", 120)
    return given, Tenant(made["tenant"], made["owner"], made["password"])


def submit(page: Page) -> None:
    submit_pressed_twice(page)
    mark(page)


def test_from_conversations_to_two_answers_side_by_side(
    running: Node, taught: tuple[Lesson, Tenant], chromium: Chromium, tmp_path: Path
) -> None:
    given, tenant = taught
    page, shots = chromium.page, Shots(chromium)
    sign_in(page, running, tenant)

    # the file: what it is follows from its name, and what belongs to tables is not asked
    page.get_by_role("link", name="Upload data set").click()
    file = tmp_path / "vaults.jsonl"
    file.write_bytes(jsonl(*given.rows))
    page.set_input_files("#file", file)
    expect(page.locator("[name=format]")).to_have_value("chat-jsonl")
    expect(page.locator("[data-field=target]")).to_be_hidden()
    page.get_by_role("button", name="Upload and seal").click()
    page.wait_for_url(re.compile(r"/admin/datasets/[0-9a-f-]{36}/$"))
    expect(page.locator("#live [data-state=ready]")).to_be_visible()

    # the form: what was chosen, a wrong value told at its field
    page.get_by_role("link", name="Fine-tune on it").click()
    expect(page.locator("[name=base]")).to_have_value("base@1")
    expect(page.locator("[name=dataset]")).to_have_value("vaults@1")
    expect(page.locator("[name=name]")).to_have_value("vaults")
    expect(page.locator("[data-field=beta]")).to_be_hidden()
    for name, value in given.fields.items():
        page.fill(f"[name={name}]", value)
    page.fill("[name=rank]", "1000")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("[data-field=rank] .sr-error")).to_contain_text("must be at most 256")
    chromium.said = [line for line in chromium.said if "422" not in line]  # Chromium names each answer of 400 or more
    page.fill("[name=rank]", "8")
    submit(page)

    # the job: base and data linked, loss and perplexity drawn while it runs
    state(page, "running")
    for name in ("base@1", "vaults@1"):
        expect(page.locator("#live").get_by_role("link", name=name)).to_be_visible()
    for metric in ("loss", "perplexity"):
        expect(page.locator(f"canvas[data-curve={metric}]")).to_be_visible()
    expect(page.locator("#live [data-state=succeeded]")).to_be_visible(timeout=300_000)
    state(page, "succeeded")
    points = page.evaluate("JSON.parse(document.getElementById('curves').dataset.curves)")
    assert len(points["loss"]["train"]) == int(given.fields["epochs"])
    assert points["loss"]["train"][-1][1] < points["loss"]["train"][0][1] / 3
    expect(page.get_by_text("What was checked")).to_be_visible()
    page.locator(".sr-note").get_by_role("link", name="vaults@1").click()

    # the adapter: of which base it is; beside it there is nothing to ask before it is deployed
    expect(page.get_by_text("Adapter of")).to_be_visible()
    page.get_by_role("link", name="Beside its base").click()
    page.wait_for_url(COMPARE)
    expect(page.get_by_text("vaults@1 is not deployed")).to_be_visible()
    page.get_by_role("link", name="Deploy it").click()
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url(re.compile(r"/admin/deployments/[0-9a-f-]{36}/$"))
    mark(page)
    state(page, "ready")

    # side by side: one question, two answers
    page.get_by_role("link", name="Beside its base").click()
    page.wait_for_url(COMPARE)
    base, tuned = page.locator(".sr-side").all()
    page.fill("#id_chat-system", "Vaults.")
    page.fill("#id_chat-max_tokens", "40")
    page.get_by_label("Message").fill(given.question)
    with page.expect_request(lambda asked: asked.post_data_json["model"] == "vaults") as asked:
        page.get_by_label("Message").press("Enter")
    expect(page.locator(".sr-told")).to_have_count(2)
    assert asked.value.post_data_json["messages"] == said("system: Vaults.", f"user: {given.question}")
    expect(tuned.locator(".sr-turn:not(.sr-you) .sr-said")).to_have_text(given.answer)
    expect(base.locator(".sr-turn:not(.sr-you) .sr-said")).not_to_have_text(given.answer)
    for side in (base, tuned):
        expect(side.locator(".sr-you .sr-said")).to_have_text(given.question)
    shots.take("fine-tune")

    # each goes on with its own conversation, and both stop and forget together
    page.fill("#id_chat-max_tokens", "600")
    page.fill("#id_chat-temperature", "2")
    page.get_by_label("Message").fill("Tell me a very long story.")
    with page.expect_request(lambda asked: asked.post_data_json["model"] == "base") as asked:
        page.get_by_label("Message").press("Enter")
    spoken = asked.value.post_data_json["messages"]
    assert [message["role"] for message in spoken] == ["system", "user", "assistant", "user"]
    assert spoken[2]["content"] != given.answer
    page.keyboard.press("Escape")
    expect(page.locator(".sr-told")).to_have_count(4)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".sr-turn")).to_have_count(0)

    assert chromium.outside(running.url) == []
    assert chromium.said == []


def test_pairs_of_answers_are_learned_by_dpo_and_their_margin_is_drawn(
    running: Node, taught: tuple[Lesson, Tenant], chromium: Chromium
) -> None:
    page = chromium.page
    sign_in(page, running, taught[1])
    page.get_by_role("link", name="Fine-tune a model").click()
    page.select_option("[name=dataset]", "pairs@1")
    page.fill("[name=name]", "choices")
    page.select_option("[name=method]", "dpo")
    page.fill("[name=beta]", "0.2")
    page.fill("[name=epochs]", "2")
    submit(page)
    state(page, "succeeded")
    for metric in ("loss", "accuracy", "margin"):
        expect(page.locator(f"canvas[data-curve={metric}]")).to_be_visible()
    page.get_by_text("Spec", exact=True).click()
    expect(page.get_by_text('"beta": 0.2')).to_be_visible()
    page.locator(".sr-note").get_by_role("link", name="choices@1").click()
    expect(page.get_by_text("dpo", exact=True)).to_be_visible()
    assert chromium.outside(running.url) == []
    assert chromium.said == []


def test_the_page_of_an_adapter_without_an_answering_base_asks_the_other_alone(
    running: Node, taught: tuple[Lesson, Tenant], chromium: Chromium
) -> None:
    """A side that fails is told in its column; the text comes back only where nobody answered."""
    page = chromium.page
    sign_in(page, running, taught[1])
    page.goto(f"{running.url}/admin/models/compare/?version=vaults@1")
    page.route(
        "**/v1/chat/completions",
        lambda route: route.abort() if '"base"' in (route.request.post_data or "") else route.continue_(),
    )
    page.fill("#id_chat-max_tokens", "4")
    page.get_by_label("Message").fill("Hello!")
    page.get_by_label("Message").press("Enter")
    base, tuned = page.locator(".sr-side").all()
    expect(base.locator(".sr-note.sr-bad")).to_contain_text("cannot be reached")
    expect(tuned.locator(".sr-told")).to_be_visible()
    expect(page.get_by_label("Message")).to_have_value("")
