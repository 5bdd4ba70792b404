"""Numbers that may be empty: empty is sent as nothing, never as 0, and what was typed as what it says."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

from studio.ui.static import assets_url
from tests.browser.conftest import READY, Open, Server
from tests.browser.steps import GENERATE, PROMPT, choose, done, generate, number, set_number, unfold
from tests.ui.test_fields import TYPED

ACCORDION = "txt2img_sampler_parameters"
GENERATE_WHILE_DRAWN = """() => {
    const own = Element.prototype.setAttribute;
    Element.prototype.setAttribute = function (name, value) {
        if (name === "placeholder" && value === "automatic") {
            Element.prototype.setAttribute = own;
            Promise.resolve().then(() => document.getElementById("txt2img_generate").click());
        }
        return own.call(this, name, value);
    };
}"""
"""Press Generate once, as soon as the script has drawn Eta and before it does anything else."""


def eta(page: Page) -> Locator:
    return page.locator("#txt2img_eta input")


def sent(server: Server) -> float | None:
    """Eta of the newest job."""
    return server.studio.queue.jobs(limit=1)[0].request.sampler_options.eta


def test_an_empty_field_sends_nothing_even_while_it_is_drawn(page: Page, server: Server) -> None:
    """Gradio draws a part of an accordion when that is opened; its number field is 0 at that moment."""
    choose(page, "txt2img_sampling", "Euler a")
    page.locator(PROMPT).fill("a fox, at once")
    page.evaluate(GENERATE_WHILE_DRAWN)
    unfold(page, ACCORDION)
    expect(eta(page)).to_have_value("")
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("a fox, at once")
    assert sent(server) is None
    generate(page, "a fox, later")
    done(page, server)
    assert sent(server) is None
    assert "Eta" not in page.locator("#txt2img_stage .ls-info").inner_text()


def test_what_is_typed_is_sent_kept_and_cleared(page: Page, server: Server) -> None:
    choose(page, "txt2img_sampling", "Euler a")
    unfold(page, ACCORDION)
    expect(eta(page)).to_have_attribute("placeholder", "automatic")
    eta(page).fill(" 0,5 ")
    generate(page, "a fox")
    done(page, server)
    assert sent(server) == 0.5
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("Eta: 0.5")
    page.wait_for_timeout(700)  # the form is kept after half a second
    page.reload()
    page.wait_for_selector(READY, state="attached")
    unfold(page, ACCORDION)
    expect(eta(page)).to_have_value("0.5")
    eta(page).fill("")
    page.wait_for_timeout(700)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    unfold(page, ACCORDION)
    expect(eta(page)).to_have_value("")
    generate(page)
    done(page, server)
    assert sent(server) is None


def test_a_picture_fills_it_and_empties_it(page: Page) -> None:
    unfold(page, ACCORDION)
    text = "a mill\nSteps: 9, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x64"
    for more, shown in ((", Eta: 0.3", "0.3"), ("", ""), (", Eta: 0", "0")):
        page.locator(PROMPT).fill(f"{text}{more}")
        page.locator("#paste").click()
        expect(page.locator(PROMPT)).to_have_value("a mill")
        expect(eta(page)).to_have_value(shown)


def test_what_is_no_eta_is_refused_with_what_is_allowed(page: Page, server: Server) -> None:
    jobs = len(server.studio.queue.jobs(limit=1000))
    unfold(page, ACCORDION)
    for typed, words in (("abc", "Eta = 'abc' is not possible: should be a number from 0 to 1"),
                         ("1,5", "Eta = 1.5 is not possible: should be from 0 to 1")):  # fmt: skip
        eta(page).fill(typed)
        eta(page).press("Control+Enter")
        expect(page.locator(".ls-toast.bad", has_text=words)).to_be_visible()
        expect(page.locator("#txt2img_eta")).to_have_class(re.compile("ls-wrong"))
        expect(eta(page)).to_have_value(typed)
    assert len(server.studio.queue.jobs(limit=1000)) == jobs
    eta(page).fill("1")
    expect(page.locator("#txt2img_eta")).not_to_have_class(re.compile("ls-wrong"))
    page.locator(GENERATE).click()
    done(page, server)
    assert sent(server) == 1


def test_live_gets_the_number_or_nothing(open_page: Open) -> None:
    page = open_page(expected=("422 (Unprocessable", "400 (Bad Request)"))
    bodies: list[Any] = []

    def note(request: Request) -> None:
        if request.url.endswith("/studio/v1/sketch"):
            bodies.append(json.loads(request.post_data or "{}")["sampler_options"]["eta"])

    page.on("request", note)
    unfold(page, ACCORDION)
    expect(eta(page)).to_have_value("")
    page.locator(PROMPT).fill("a sun")
    page.locator("#txt2img_live_switch").click()
    for typed, value in ((None, None), ("0,25", 0.25), ("", None), ("abc", "abc")):
        bodies.clear()
        if typed is not None:
            eta(page).fill(typed)
        while not bodies:
            page.wait_for_timeout(50)
        assert bodies[-1] == value
    expect(page.locator(".ls-livewords")).to_contain_text("eta = 'abc' is not possible")


def test_it_is_used_like_a_number_field(page: Page) -> None:
    unfold(page, ACCORDION)
    eta(page).focus()
    expect(eta(page)).to_have_attribute("inputmode", "decimal")
    for key, shown in (("ArrowUp", "0.05"), ("ArrowUp", "0.1"), ("ArrowUp", "0.15"), ("ArrowDown", "0.1")):
        eta(page).press(key)
        expect(eta(page)).to_have_value(shown)
    for typed, key, shown in (("0,98", "ArrowUp", "1"), ("0.02", "ArrowDown", "0"), ("abc", "ArrowUp", "abc")):
        eta(page).fill(typed)
        eta(page).press(key)
        expect(eta(page)).to_have_value(shown)


def test_what_lies_beyond_the_end_of_a_slider_is_sent_or_refused_as_it_was_typed(page: Page, server: Server) -> None:
    jobs = len(server.studio.queue.jobs(limit=1000))
    set_number(page, "cfg_scale", 50)
    expect(number(page, "cfg_scale")).to_have_value("50")
    generate(page, "a fox")
    done(page, server)
    assert server.studio.queue.jobs(limit=1)[0].request.cfg_scale == 50
    for typed in ("", "0", "1000"):
        number(page, "steps").fill(typed)
        number(page, "steps").press("Tab")
        expect(number(page, "steps")).to_have_value(typed)
        page.locator(GENERATE).click()
        expect(page.locator("#txt2img_steps")).to_have_class(re.compile("ls-wrong"))
        expect(number(page, "steps")).to_be_focused()
    set_number(page, "steps", 7)
    generate(page)
    done(page, server)
    assert server.studio.queue.jobs(limit=1)[0].request.steps == 7
    assert len(server.studio.queue.jobs(limit=1000)) == jobs + 2


def test_the_script_reads_what_is_typed_as_the_server_does(page: Page) -> None:
    read = page.evaluate(
        "async ([url, texts]) => texts.map((await import(url)).typedNumber)",
        [f"{assets_url()}/numbers.js", [text for text, _ in TYPED]],
    )
    assert read == [number for _, number in TYPED]
