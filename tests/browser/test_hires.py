"""Hires. fix in a real browser: the switch, the size it promises, both passes on one strip, and the way back from a picture."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import READY, Server
from tests.browser.steps import PROMPT, choose, done, drop, generate, number, set_number, tab
from tests.browser.views import picture

SWITCH = "#txt2img_hr_enable input"
OPTIONS = "#txt2img_hr_options"
SIZE = "#txt2img_hr_finalres"


def test_the_switch_shows_options_and_the_size(page: Page) -> None:
    expect(page.locator(OPTIONS)).to_be_hidden()
    picture(page, "hires-off")
    page.locator(SWITCH).check()
    expect(page.locator(OPTIONS)).to_be_visible()
    expect(page.locator(SIZE)).to_have_text("from 128×128 to 256×256")
    set_number(page, "hr_scale", 1.55)
    expect(page.locator(SIZE)).to_have_text("from 128×128 to 192×192")
    set_number(page, "hr_resize_x", 320)
    expect(page.locator(SIZE)).to_have_text("from 128×128 to 320×320")
    set_number(page, "hr_resize_y", 200)
    expect(page.locator(SIZE)).to_have_text("from 128×128 to 320×200")
    set_number(page, "height", 64)
    set_number(page, "hr_resize_x", 0)
    expect(page.locator(SIZE)).to_have_text("from 128×64 to 400×200")
    picture(page, "hires-on")
    page.locator(SWITCH).uncheck()
    expect(page.locator(OPTIONS)).to_be_hidden()
    expect(page.locator(SIZE)).to_have_text("")


def test_both_passes_are_on_the_strip_and_the_picture_fills_the_form(page: Page, server: Server) -> None:
    server.engine.hold(before=5)
    page.locator(SWITCH).check()
    set_number(page, "steps", 4)
    set_number(page, "hires_steps", 3)
    set_number(page, "hr_scale", 1.5)
    set_number(page, "denoising_strength", 0.45)
    choose(page, "txt2img_hr_upscaler", "Lanczos")
    choose(page, "txt2img_hr_checkpoint", "ash")
    choose(page, "txt2img_hr_sampler", "Euler a")
    page.locator("#txt2img_hires_prompt textarea").fill("a lighthouse, sharp")
    generate(page, "a lighthouse")
    expect(page.locator(".ls-meta")).to_contain_text(re.compile(r"step 4 / 7"))
    server.engine.go_on()
    done(page, server)
    expect(page.locator(".ls-cell:not(.empty)")).to_have_count(7)
    expect(page.locator(".ls-meta")).to_contain_text("192×192")
    size = page.locator(".ls-picture").evaluate(
        "(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    )
    assert size == [192, 192]
    picture(page, "hires-done")
    for step, possible in ((3, True), (4, False), (6, False)):
        page.locator(".ls-cell").nth(step - 1).click()
        expect(page.locator(".ls-badge")).to_contain_text(f"step {step}")
        expect(page.get_by_role("button", name="branch from here")).to_be_visible(visible=possible)
    plan = server.engine.runs[-1].hires
    assert plan is not None
    assert (plan.upscaler, plan.sampler, plan.steps, plan.width, plan.denoising_strength) == (
        "Lanczos",
        "Euler a",
        3,
        192,
        0.45,
    )
    assert plan.positive.text == "a lighthouse, sharp"
    assert plan.model.name == "ash"
    page.locator(SWITCH).uncheck()
    page.locator(PROMPT).fill("something else")
    tab(page, "PNG Info")
    drop(page, ".ls-drop", server.pictures[-1])
    expect(page.locator("#tab_pnginfo, [data-panel=pnginfo]").last).to_contain_text(
        "Lanczos, strength 0.45, 3 steps, ash"
    )
    picture(page, "hires-pnginfo")
    page.locator("#pnginfo_send").click()
    expect(page.locator(SWITCH)).to_be_checked()
    expect(number(page, "hr_scale")).to_have_value("1.5")
    expect(page.locator("#txt2img_hr_upscaler input")).to_have_value("Lanczos")
    expect(page.locator("#txt2img_hr_checkpoint input")).to_have_value(re.compile("^ash"))
    expect(page.locator("#txt2img_hires_prompt textarea")).to_have_value("a lighthouse, sharp")
    generate(page)
    done(page, server)
    assert server.engine.runs[-1].hires == plan


def test_the_options_are_kept_while_it_is_off(page: Page) -> None:
    page.locator(SWITCH).check()
    set_number(page, "hr_scale", 3)
    with page.expect_response(lambda response: "/form" in response.url):
        page.locator(SWITCH).uncheck()
    page.wait_for_timeout(700)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(SWITCH)).not_to_be_checked()
    page.locator(SWITCH).check()
    expect(number(page, "hr_scale")).to_have_value("3")
    expect(page.locator(SIZE)).to_have_text("from 128×128 to 384×384")


def test_what_is_wrong_is_marked(page: Page) -> None:
    page.locator(SWITCH).check()
    set_number(page, "hr_resize_x", 2048)
    set_number(page, "hr_resize_y", 64)
    set_number(page, "height", 1024)
    generate(page, "a fox")
    expect(page.locator(".ls-toast").first).to_contain_text("before it is cut")
    expect(page.locator("#txt2img_hr_resize_x")).to_have_class(re.compile("ls-wrong"))
