"""The panel in a real browser on our real processes: sign in, upload, submit, watch it finish, deploy, predict.

With SHOTS_FOLDER set it leaves the screenshots that docs/img/ has.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import digits
from tests.browser.conftest import DESKTOP, PHONE, Chromium, Tenant, submit_pressed_twice
from tests.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Shots:
    """Screenshots of the documentation, in both widths; nothing where no folder is named."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser
        self.folder = os.environ.get("SHOTS_FOLDER")

    def take(self, name: str) -> None:
        """And no page is wider than a phone."""
        for size, kind in ((PHONE, "phone"), (DESKTOP, "desktop")):
            self.browser.page.set_viewport_size(size)  # type: ignore[arg-type]  # a TypedDict of the same keys
            self.browser.fits()
            if self.folder:
                self.browser.page.wait_for_timeout(300)
                self.browser.page.screenshot(path=Path(self.folder) / f"{name}-{kind}.png", full_page=kind == "phone")


def sign_in(page: Page, node: Node, tenant: Tenant) -> None:
    page.goto(f"{node.url}/admin/")
    page.fill("[name=username]", tenant.email)
    page.fill("[name=password]", tenant.password)
    page.click("#login-form button[type=submit]")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def state(page: Page, wanted: str) -> None:
    """The state on the page comes to be that, without the page being loaded again."""
    expect(page.locator(f"#live [data-state={wanted}]")).to_be_visible()
    assert page.evaluate("window.marker") == "alive"


def mark(page: Page) -> None:
    page.evaluate("window.marker = 'alive'")


def predicted(page: Page, picture: Path) -> str:
    """The label that the try-it box shows for an image."""
    with page.expect_response("**/predict") as answer:
        page.set_input_files("#file", picture)
    assert answer.value.status == 200
    expect(page.locator("#answer .sr-label")).to_be_visible()
    return page.locator("#answer .sr-label").inner_text()


def test_from_a_file_to_a_prediction(running: Node, tenant: Tenant, chromium: Chromium, tmp_path: Path) -> None:
    page, shots = chromium.page, Shots(chromium)
    data, unseen = digits.write(tmp_path)
    sign_in(page, running, tenant)

    # upload: to the raw route, past Django, with a bar; the version's page moves from checking to ready
    page.get_by_role("link", name="Upload data set").click()
    page.set_input_files("#file", data)
    expect(page.locator("[name=name]")).to_have_value("digits-2026")
    page.fill("[name=name]", "digits")
    page.get_by_role("button", name="Upload and seal").click()
    page.wait_for_url(re.compile(r"/admin/datasets/[0-9a-f-]{36}/$"))
    expect(page.locator("#live [data-state=ready]")).to_be_visible()
    expect(page.get_by_text("1,797").first).to_be_visible()
    expect(page.get_by_text("Classes of label")).to_be_visible()
    shots.take("dataset")

    # the form begins with what fits the data set; a wrong value is told at its field, then it is submitted
    page.get_by_role("link", name="Train on it").click()
    page.fill("[name=name]", "lenet-digits")
    shots.take("submit")
    page.fill("[name=lr]", "-1")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("[data-field=lr] .sr-error")).to_contain_text("must be greater than 0")
    chromium.said = [line for line in chromium.said if "422" not in line]  # Chromium names each answer of 400 or more
    page.fill("[name=lr]", "0.001")
    page.fill("[name=epochs]", "12")
    submit_pressed_twice(page)
    mark(page)

    # the job's page: state, bar, curves and log move by themselves and stop when it has ended
    state(page, "running")
    expect(page.locator("canvas[data-curve=loss]")).to_be_visible()
    expect(page.get_by_text(re.compile(r"^([7-9]|1[0-2]) of 12$"))).to_be_visible()
    shots.take("job")
    state(page, "succeeded")
    expect(page.get_by_role("button", name="Run again")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    points = page.evaluate("JSON.parse(document.getElementById('curves').dataset.curves).accuracy.validation.length")
    assert points == 12
    expect(page.locator("#log")).to_contain_text("epoch 12 of 12")
    assert (
        page.evaluate("(log => log.scrollHeight - log.scrollTop - log.clientHeight)(document.getElementById('log'))")
        < 2
    )
    asked = len(chromium.asked)
    page.wait_for_timeout(2500)
    assert len(chromium.asked) == asked  # status 286 ended the polling

    # the model it registered, deployed from its page
    page.get_by_role("link", name="lenet-digits@1").click()
    expect(page.locator(".sr-matrix td.sr-right").first).to_be_visible()
    shots.take("model")
    page.get_by_role("link", name="Deploy", exact=True).click()
    page.fill("[name=name]", "digits")
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url(re.compile(r"/admin/deployments/[0-9a-f-]{36}/$"))
    mark(page)
    state(page, "ready")

    # the try-it box: an image in, label and scores out
    right = sum(predicted(page, picture) == truth for picture, truth in unseen)
    assert right >= len(unseen) - 2  # it is a model, no oracle
    expect(page.locator("#answer .sr-bar")).to_have_count(10)
    shots.take("deployment")

    page.goto(f"{running.url}/admin/")
    expect(page.get_by_text("lenet-digits@1").first).to_be_visible()
    shots.take("overview")

    # everything stayed on this machine, and nobody complained
    assert chromium.outside(running.url) == []
    assert chromium.said == []


def test_a_file_that_is_refused_says_why_on_the_page(
    running: Node, tenant: Tenant, chromium: Chromium, tmp_path: Path
) -> None:
    page = chromium.page
    sign_in(page, running, tenant)
    page.goto(f"{running.url}/admin/datasets/upload/")
    page.get_by_role("button", name="Upload and seal").click()
    expect(page.locator("[data-failed]")).to_have_text("Choose a file.")
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1,2\n3,4\n")
    page.set_input_files("#file", broken)
    page.fill("[name=name]", "Not A Name")
    page.get_by_role("button", name="Upload and seal").click()
    expect(page.locator("[data-failed]")).to_contain_text("lower-case letters")
    page.fill("[name=name]", "broken")
    page.get_by_role("button", name="Upload and seal").click()
    page.wait_for_url(re.compile(r"/admin/datasets/[0-9a-f-]{36}/$"))
    expect(page.locator("#live [data-state=failed]")).to_be_visible()
    expect(page.get_by_text("The data cannot be used")).to_be_visible()
    assert chromium.outside(running.url) == []


def test_every_page_fits_both_widths_and_themes_without_a_complaint(
    running: Node, tenant: Tenant, chromium: Chromium
) -> None:
    page = chromium.page
    running.manage("createoperator", tenant.email)
    sign_in(page, running, tenant)
    links = page.locator("#nav-sidebar-inner nav a, #nav-sidebar-inner a").evaluate_all(
        "all => all.map(a => a.pathname)"
    )
    more = ["datasets/upload", "jobs/train", "jobs/tune", "jobs/bring", "models/compare", "deployments/deploy"]
    more += ["keys/create", "members/invite"]
    operator = ["", "tenants/", "jobs/", "deployments/", "keys/", "artefacts/", "audit/"]
    walked = {*links, *(f"/admin/{path}/" for path in more), *(f"/operator/{path}" for path in operator)}
    assert len(walked) >= 20
    for theme in ("light", "dark"):
        page.evaluate(f"localStorage.setItem('adminTheme', JSON.stringify('{theme}'))")
        for path in sorted(walked):
            page.goto(running.url + path)
            assert ("dark" in (page.get_attribute("html", "class") or "")) == (theme == "dark"), path
            for size in (PHONE, DESKTOP):
                page.set_viewport_size(size)  # type: ignore[arg-type]  # a TypedDict of the same keys
                chromium.fits()
    assert chromium.outside(running.url) == []
    assert chromium.said == []


def test_a_secret_is_copied_and_gone_after_a_reload(running: Node, tenant: Tenant, chromium: Chromium) -> None:
    page = chromium.page
    chromium.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=running.url)
    sign_in(page, running, tenant)
    page.goto(f"{running.url}/admin/keys/create/")
    page.fill("[name=name]", "ci")
    page.check("[name=scopes][value=predict]")
    page.get_by_role("button", name="Create").click()
    secret = page.locator("#secret").inner_text().strip()
    assert re.fullmatch(r"sr_[0-9a-z]{10}_[0-9a-z]{58}", secret) is not None, len(secret)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_role("link", name="I have it").click()
    assert secret not in page.content()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("link", name="ci", exact=True).click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("[data-state=revoked]")).to_be_visible()
    assert chromium.said == []
