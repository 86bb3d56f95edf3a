"""A headless Chromium that tells everything it complains of and everywhere it asks, on a node of our real processes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests import servers
from tests.nodes import Node

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = {"width": 1360, "height": 850}, {"width": 390, "height": 844}
PATIENCE_MS = 60_000


@dataclass
class Chromium:
    """A window of its own: cookies and storage begin empty."""

    context: BrowserContext
    page: Page
    said: list[str] = field(default_factory=list)  # errors and warnings of the console, exceptions of scripts
    asked: list[str] = field(default_factory=list)  # where requests went

    def listen(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.said.append(f"exception: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text} at {self.page.url}")

    def outside(self, origin: str) -> list[str]:
        """Requests that went elsewhere."""
        own = urlsplit(origin).netloc
        return [url for url in self.asked if urlsplit(url).scheme != "data" and urlsplit(url).netloc != own]

    def fits(self) -> None:
        """The page comes to be no wider than the window: charts follow a change of its size a moment later."""
        self.page.wait_for_function("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.fixture(scope="module")
def launched() -> Iterator[Browser]:
    path = servers.chromium()
    if path is None:
        pytest.fail("Chromium is missing: python -m tests.servers --install")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))


@pytest.fixture
def chromium(launched: Browser) -> Iterator[Chromium]:
    with launched.new_context(viewport=DESKTOP) as context:
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        browser = Chromium(context, context.new_page())
        browser.listen()
        yield browser


@dataclass(frozen=True)
class Tenant:
    """Somebody who may sign in."""

    name: str
    email: str
    password: str


@pytest.fixture(scope="module")
def running() -> Iterator[Node]:
    """All four processes, once for a file: their start takes longer than a test."""
    with Node() as node:
        yield node.start()


@pytest.fixture(scope="module")
def tenant(running: Node) -> Tenant:
    made: dict[str, Any] = json.loads(running.manage("createtenant", "acme", "--owner", "owner@acme.test").stdout)
    return Tenant(made["tenant"], made["owner"], made["password"])


def submit_pressed_twice(page: Page) -> None:
    """A form that makes a job, sent: one job, however fast the button is pressed."""
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            sent.append(request.url)

    page.on("request", note)
    page.get_by_role("button", name="Submit").dblclick()
    page.wait_for_url(re.compile(r"/admin/jobs/[0-9a-f-]{36}/$"))
    page.remove_listener("request", note)
    assert len(sent) == 1
