"""What the browser stores for the page: it may be damaged, or refused altogether."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY, Server
from tests.browser.steps import STAGE, done, generate

REFUSE = """for (const name of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, name, { get() { throw new DOMException("refused", "SecurityError"); } });
}"""
NAMES = ("browser", "inspector", "live", "put-aside", "theme")


def again(page: Page) -> None:
    page.reload()
    page.wait_for_selector(READY, state="attached")


@pytest.mark.parametrize("damaged", ["5", '{"a": 1}'])
def test_damaged_values_are_as_none(page: Page, damaged: str) -> None:
    page.evaluate(
        "([names, text]) => names.forEach((name) => localStorage.setItem(`latent-studio-${name}`, text))",
        [NAMES, damaged],
    )
    again(page)
    expect(page.locator("#ls-queue-card")).to_be_visible()
    assert len(page.evaluate("localStorage.getItem('latent-studio-browser')")) == 32


def test_a_browser_that_stores_nothing_has_the_whole_page(page: Page, server: Server) -> None:
    page.add_init_script(REFUSE)
    again(page)
    generate(page, "a boat")
    done(page, server)
    theme = page.locator("html").get_attribute("data-theme")
    page.locator("#ls_theme").click()
    expect(page.locator("html")).not_to_have_attribute("data-theme", str(theme))
    page.locator("#txt2img_inspect").click()
    expect(page.locator("#ls_inspector_body")).to_be_visible()
    generate(page, "fail in a browser without a memory")
    row = page.locator(".ls-job.bad", has_text="without a memory")
    row.get_by_role("button", name="Put aside").click()
    expect(row).to_have_count(0)
    expect(page.locator(STAGE)).to_be_visible()
