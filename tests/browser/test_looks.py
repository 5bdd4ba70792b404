"""Every tab in dark, light and on a phone: nothing overlaps the edge, nothing complains, and there is a picture to look at."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Server
from tests.browser.steps import NEGATIVE, PROMPT, done, generate, intercept, set_number, tab, unfold
from tests.browser.views import DEVICES, VIEWS, fits, look


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_every_tab(open_page: Open, server: Server, device: str) -> None:
    theme, width, height = VIEWS[DEVICES[device][0]]
    page = open_page(theme=theme, width=width, height=height)
    page.locator(NEGATIVE).fill("blurry")
    set_number(page, "batch_size", 4)
    server.engine.hold(before=6)
    generate(page, "a (red fox:1.2) on a beach at sunset, flat colours <lora:duotone:0.8>")
    generate(page, "a castle at night")
    generate(page, "fail to paint this")
    expect(page.locator(".ls-cell.now")).to_contain_text("5")
    look(page, device, "1-painting")
    server.engine.go_on()
    done(page, server, "failed")
    page.locator(".ls-toast.bad").get_by_role("button", name="Close").click()  # it stays, over the end of a small page
    page.locator(".ls-recent .ls-tile").nth(1).click()
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("fox")
    look(page, device, "2-done")
    tab(page, "PNG Info")
    look(page, device, "3-pnginfo-empty")
    page.locator("#pnginfo_image").set_input_files(server.pictures[-1])
    expect(page.locator("#pnginfo_text")).to_be_visible()
    look(page, device, "4-pnginfo")
    tab(page, "Library")
    page.locator(".ls-gallery .ls-tile").first.click()
    look(page, device, "5-library")
    page.locator("#library_models").click()
    look(page, device, "6-checkpoints")
    tab(page, "Settings")
    expect(page.locator("#setting_page_theme")).to_be_visible()
    look(page, device, "7-settings")
    tab(page, "txt2img")
    unfold(page, "txt2img_sampler_parameters")
    page.locator(PROMPT).fill("<lora:unheard-of:1>")
    page.locator("#txt2img_generate").click()
    expect(page.locator(".ls-toast.bad", has_text="unheard-of")).to_be_visible()
    look(page, device, "8-error")


def test_the_theme_toggles_and_stays(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator("#ls_theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    assert page.evaluate(background) == light


def test_settings_are_stored_on_change_and_shown_again(page: Page, server: Server) -> None:
    tab(page, "Settings")
    field = page.locator("#setting_page_default_steps input")
    field.fill("33")
    field.press("Tab")
    expect(page.locator(".ls-toast.good")).to_have_text("Saved.")
    assert server.studio.settings.default_steps == 33
    field.fill("0")
    field.press("Tab")
    expect(page.locator(".ls-toast.bad")).to_contain_text("default_steps = 0")
    assert server.studio.settings.default_steps == 33
    page.reload()
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    tab(page, "Settings")
    expect(field).to_have_value("33")
    server.studio.update_settings({"default_steps": 20})
    expect(page.locator("[data-panel=facts]")).to_contain_text(str(server.studio.paths.root))


def test_a_server_that_went_away_is_said(open_page: Open) -> None:
    page = open_page(expected=("ERR_FAILED", "ERR_INTERNET_DISCONNECTED"))
    intercept(page, "**/studio/v1/events", lambda route: route.abort())
    page.reload()
    expect(page.locator(".ls-worker")).to_have_text("server not reachable")
    page.unroute("**/studio/v1/events")
    expect(page.locator(".ls-worker")).to_contain_text("ready")


def test_fingers_little_motion_and_few_colours(open_page: Open) -> None:
    page = open_page(touch=True, width=390, height=844)
    style = "(node, [part, name]) => getComputedStyle(node, part)[name]"
    sliders = page.locator("#txt2img_steps input[type=range]")
    with Image.open(io.BytesIO(sliders.screenshot())) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    assert pixels.shape[0] >= 24
    coloured = (pixels.max(2) - pixels.min(2) > 60).sum(0)  # how many of each column are neither grey nor ground
    assert coloured.max() >= 16, "a track alone is 4 px high: no thumb is drawn"
    small = page.evaluate(
        """() => [...document.querySelectorAll("input:not([type=range], [type=checkbox], [type=file]), textarea, select")]
            .filter((node) => node.offsetParent && parseFloat(getComputedStyle(node).fontSize) < 16).map((node) => node.outerHTML)"""
    )
    assert small == [], "iOS enlarges the page when one of these is touched"
    prompt, back = (page.locator(f"#txt2img_prompt {part}") for part in ("textarea", ".ls-back"))
    assert back.evaluate(style, [None, "fontSize"]) == prompt.evaluate(style, [None, "fontSize"])
    fits(page)
    said = """(node) => { node.previousSibling.className = "ls-dot bad"; node.textContent = "failed: a long reason ".repeat(9);
        return node.scrollWidth <= node.clientWidth; }"""
    assert page.locator(".ls-worker").evaluate(said), "why the worker failed is nowhere else"
    tab(page, "Train")
    page.wait_for_selector("form[data-ready=yes]")
    assert page.locator("#train_name").evaluate(style, [None, "fontSize"]) == "16px"
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    icon = page.locator("#ls_theme .ls-i")
    grounds = [node.evaluate(style, [None, "backgroundColor"]) for node in (icon, page.locator("#ls_theme"))]
    assert grounds[0] != grounds[1], "an icon is the colour that its mask lets through"
    tab(page, "Library")
    for name, outline in {"pictures": "solid", "models": "none"}.items():  # one is chosen as the tab opens
        expect(page.locator(f"#library_{name}")).to_have_css("outline-style", outline)
    page.locator("#ls_queue_count").evaluate("(node) => node.classList.add('ls-flash')")
    moving = "document.getAnimations().map((each) => each.animationName ?? each.transitionProperty)"
    assert page.evaluate(moving) == []
    page.evaluate("() => (Element.prototype.scrollIntoView = (how) => (window.how = how.behavior))")
    page.locator("#ls_queue_count").click()
    assert page.evaluate("window.how") == "auto"
