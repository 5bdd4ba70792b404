"""Every tab in dark, light and on a phone: nothing overlaps the edge, nothing complains, and there is a picture to look at."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Server
from tests.browser.steps import NEGATIVE, PROMPT, done, generate, set_number, tab, unfold
from tests.browser.views import DEVICES, VIEWS, look


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
    page.route("**/studio/v1/events", lambda route: route.abort())
    page.reload()
    expect(page.locator(".ls-worker")).to_have_text("server not reachable")
    page.unroute("**/studio/v1/events")
    expect(page.locator(".ls-worker")).to_contain_text("ready")
