"""What the page says about a field, and how: marks, help, messages."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from studio.ui.static import assets_url
from tests.browser.conftest import Open, Server
from tests.browser.steps import FRAMES, GENERATE, PROMPT, done, generate, messages, number, tab, unfold
from tests.browser.views import fits

DOM = f"{assets_url()}/dom.js"
COPY = """async ([url, works]) => {
    Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
    document.execCommand = () => works;
    document.querySelector("#ls_theme").focus();
    await (await import(url)).copy("some text");
    return document.activeElement.id;
}"""


def say(page: Page, *told: object) -> None:
    page.evaluate("async ([url, told]) => { (await import(url)).toast(...told); }", [DOM, told])


def test_what_is_wrong_is_unfolded_shown_and_named(page: Page) -> None:
    fold, eta = page.locator("#txt2img_sampler_parameters > button"), page.locator("#txt2img_eta input")
    unfold(page, "txt2img_sampler_parameters")
    eta.fill("abc")
    fold.click()
    expect(eta).to_be_hidden()
    page.evaluate("scrollTo(0, 0)")
    page.locator(GENERATE).click()
    expect(eta).to_be_focused()
    expect(eta).to_be_in_viewport()
    expect(eta).to_have_attribute("aria-invalid", "true")
    expect(eta).to_have_accessible_description(
        re.compile("Eta = 'abc' is not possible: should be a number from 0 to 1")
    )
    expect(page.locator("#txt2img_eta")).to_have_class(re.compile("ls-wrong"))
    eta.press("Backspace")
    expect(eta).not_to_have_attribute("aria-invalid", "true")
    expect(eta).not_to_have_accessible_description(re.compile("not possible"))
    expect(page.locator("#txt2img_eta")).not_to_have_class(re.compile("ls-wrong"))
    expect(page.locator(".ls-toast.bad")).to_be_visible()  # until it is closed


def test_help_reaches_the_keyboard(page: Page) -> None:
    bubble, steps = page.locator(".ls-help"), number(page, "steps")
    words = page.locator("#txt2img_steps .info-text").text_content() or ""
    steps.click()
    expect(steps).to_have_accessible_description(words.strip())
    expect(bubble).to_be_hidden()
    page.set_viewport_size({"width": 390, "height": 400})
    page.evaluate("scrollTo(0, 0)")
    slider = page.locator("#txt2img_steps input[type=range]")
    slider.evaluate("(node) => node.focus({ preventScroll: true })")
    expect(steps).not_to_be_in_viewport()
    page.keyboard.press("Shift+Tab")
    expect(steps).to_be_focused()
    expect(bubble).to_have_text(words.strip())
    expect(bubble).to_be_in_viewport(ratio=1)
    fits(page)
    page.locator(PROMPT).click()
    expect(bubble).to_be_hidden()


def test_messages_wait_for_who_reads_them(open_page: Open, server: Server) -> None:
    page = open_page()
    shelf, toasts = page.locator(".ls-toasts"), page.locator(".ls-toast")
    expect(shelf).to_have_attribute("aria-live", "polite")
    generate(page, "a boat")
    done(page, server)
    text = "a mill\nSteps: 9, Sampler: none such, Schedule type: nor this, VAE: nowhere, Model: gone, CFG scale: 9999"
    page.locator(PROMPT).fill(text)
    page.locator("#paste").click()
    notes = page.locator(".ls-toast.info li")
    expect(notes.first).to_be_visible()
    assert notes.count() > 2
    expect(toasts.filter(has=page.locator("li"))).to_have_count(1)
    page.locator(".ls-stage").click()
    large = page.locator("dialog.ls-lightbox")
    say(page, "said over the dialog", "warn")
    over = large.locator(".ls-toast", has_text="said over the dialog")
    expect(over).to_be_visible()
    over.get_by_role("button", name="Close").click()
    expect(over).to_have_count(0)
    expect(large).to_be_visible()
    for _ in range(toasts.count()):
        toasts.first.get_by_role("button", name="Close").evaluate("(node) => node.click()")
    page.mouse.move(5, 5)
    page.clock.install()
    say(page, "wrong", "bad")
    say(page, "a note", "info")
    say(page, "done", "info", {"words": "undo"})
    page.keyboard.press("Escape")
    expect(page.locator("body > .ls-toasts")).to_have_count(1)
    page.clock.run_for(10_000)
    assert messages(page) == ["wrong", "done"]
    page.get_by_role("button", name="undo").focus()
    page.clock.run_for(60_000)
    assert messages(page) == ["wrong", "done"]
    page.locator(PROMPT).focus()
    page.clock.run_for(60_000)
    assert messages(page) == ["wrong"]
    for line in "abcdef":
        say(page, line)
    assert messages(page) == ["wrong", "d", "e", "f"]
    assert page.evaluate(COPY, [DOM, False]) == "ls_theme"
    expect(toasts.last).to_have_text("Could not copy; select the text and copy it yourself.")
    assert page.evaluate(COPY, [DOM, True]) == "ls_theme"
    expect(toasts.last).to_have_text("Copied.")
    expect(page.locator(".ls-toast.bad")).to_have_count(0)


def test_a_setting_is_stored_when_it_was_changed(open_page: Open, server: Server) -> None:
    old, page = open_page(), open_page()
    for each in (old, page):
        tab(each, "Settings")
        expect(each.locator("#setting_page_default_steps input")).to_be_visible()
        each.evaluate(FRAMES, 4)
    field, seen = "#setting_page_default_steps input", old.locator("#setting_page_default_steps input")
    stored = server.studio.settings.default_steps
    asked: list[str] = []
    old.on("request", lambda request: asked.append(request.url) if "/gradio_api/run" in request.url else None)
    seen.focus()
    seen.press("Tab")
    page.locator(field).fill("31")
    page.locator(field).press("Tab")
    expect(page.locator(".ls-toast", has_text="Saved.")).to_be_visible()
    assert server.studio.settings.default_steps == 31
    seen.focus()
    seen.press("Enter")
    seen.press("Tab")
    old.locator("#setting_page_theme input").focus()
    assert asked == []
    expect(old.locator(".ls-toast")).to_have_count(0)
    assert server.studio.settings.default_steps == 31
    seen.fill("0")
    seen.press("Tab")
    expect(old.locator(".ls-toast.bad")).to_be_visible()
    expect(seen).to_have_attribute("aria-invalid", "true")
    expect(seen).not_to_be_focused()
    seen.fill(str(stored))
    seen.press("Tab")
    expect(old.locator(".ls-toast", has_text="Saved.")).to_be_visible()
    assert server.studio.settings.default_steps == stored
