"""The X/Y/Z plot in a real browser: the accordion, how many pictures it says, lists, a plot that is painted, and a refresh."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import READY, Server
from tests.browser.steps import choose, done, drop, generate, set_number, tab, unfold
from tests.browser.views import picture

PLOT = "script_txt2img_xyz_plot"
HEAD = f"#{PLOT} > button"
SIZE = ".ls-plot-size"


def values(page: Page, axis: str) -> Locator:
    return page.locator(f"#{PLOT}_{axis}_values textarea, #{PLOT}_{axis}_values input").first


def kind(page: Page, axis: str) -> Locator:
    return page.locator(f"#{PLOT}_{axis}_type input")


def axis(page: Page, name: str, type_: str, text: str | None = None) -> None:
    choose(page, f"{PLOT}_{name}_type", type_)
    if text is not None:
        values(page, name).fill(text)


def said(page: Page) -> str:
    return str(page.locator(HEAD).evaluate("(head) => head.dataset.said ?? ''"))


def test_the_accordion_says_how_many_pictures_it_will_be(page: Page) -> None:
    unfold(page, PLOT)
    expect(page.locator(SIZE)).to_have_text("")
    assert said(page) == ""
    axis(page, "x", "CFG Scale", "5-9 (+2)")
    expect(page.locator(SIZE)).to_have_text("3 pictures")
    axis(page, "y", "Sampler", "Euler, Heun")
    expect(page.locator(SIZE)).to_have_text("3 × 2 = 6 pictures")
    assert said(page) == "3 × 2 = 6 pictures"
    picture(page, "plot-form")
    values(page, "y").fill("Euler, Hoin")
    expect(page.locator(SIZE)).to_contain_text("There is no sampler named 'Hoin'")
    expect(page.locator(SIZE)).to_have_class(re.compile("bad"))
    assert said(page) == "not possible"
    values(page, "y").fill("Heun")
    expect(page.locator(SIZE)).to_have_text("3 × 1 = 3 pictures")
    values(page, "x").fill("5, high")
    expect(page.locator(SIZE)).to_contain_text("'high' is no number")
    values(page, "x").fill("5, 6")
    page.locator("#txt2img_batch_count input").fill("2")
    expect(page.locator(SIZE)).to_contain_text("set batch count and batch size to 1")
    page.locator("#txt2img_batch_count input").fill("1")
    expect(page.locator(SIZE)).to_have_text("2 × 1 = 2 pictures")
    axis(page, "x", "Nothing")
    axis(page, "y", "Nothing")
    expect(page.locator(SIZE)).to_have_text("")
    assert said(page) == ""


def test_lists_are_written_and_axes_change_places(page: Page, server: Server) -> None:
    unfold(page, PLOT)
    fill = page.locator("#xyz_grid_fill_x_tool_button")
    expect(fill).to_have_css("visibility", "hidden")
    axis(page, "x", "Checkpoint name")
    fill.click()
    names = [model.name for model in server.studio.library.checkpoints() if not model.problem]
    expect(values(page, "x")).to_have_value(", ".join(names))
    axis(page, "z", "Steps", "1, 2")
    expect(page.locator(SIZE)).to_have_text(f"{len(names)} × 2 = {2 * len(names)} pictures")
    page.locator("#xy_grid_swap_axes_button").click()
    expect(kind(page, "y")).to_have_value("Checkpoint name")
    expect(values(page, "y")).to_have_value(", ".join(names))
    expect(kind(page, "x")).to_have_value("Nothing")
    page.locator("#xz_grid_swap_axes_button").click()
    expect(kind(page, "x")).to_have_value("Steps")
    expect(fill).to_have_css("visibility", "hidden")
    expect(page.locator("#xyz_grid_fill_y_tool_button")).to_have_css("visibility", "visible")


def test_a_plot_shows_its_pictures_and_its_sheet(page: Page, server: Server) -> None:
    unfold(page, PLOT)
    set_number(page, "steps", 2)
    axis(page, "x", "CFG Scale", "5, 7, 9")
    axis(page, "y", "Prompt S/R", "fox, owl")
    generate(page, "a fox")
    done(page, server)
    job = server.studio.queue.jobs(limit=1)[0]
    assert job.request.plot is not None
    assert len(job.images) == 6
    expect(page.locator(".ls-tiles .ls-tile")).to_have_count(6)
    sheet = page.locator(".ls-sheet img")
    expect(sheet).to_be_visible()
    width, height = sheet.evaluate("(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    assert width > 3 * 128 and height > 2 * 128
    picture(page, "plot-done")
    page.locator(".ls-tile").nth(5).click()
    expect(page.locator(".ls-results .ls-info")).to_contain_text("CFG scale: 9")
    expect(page.locator(".ls-meta")).to_contain_text("image 6 of 6")
    page.get_by_role("button", name="to txt2img").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("a owl")
    expect(page.locator("#txt2img_cfg_scale input[type=number]")).to_have_value("9")
    expect(page.locator(SIZE)).to_have_text("")
    expect(kind(page, "x")).to_have_value("Nothing")
    tab(page, "PNG Info")
    drop(page, ".ls-drop", Path(job.grid or "no sheet"))
    expect(page.locator(".ls-table").first).to_contain_text("X CFG Scale 5, 7, 9; Y Prompt S/R fox, owl")
    page.locator("#pnginfo_send").click()
    expect(kind(page, "x")).to_have_value("CFG Scale")
    expect(page.locator(SIZE)).to_have_text("3 × 2 = 6 pictures")


def test_one_that_waits_is_a_plot_and_one_that_runs_has_its_number_of_pictures(page: Page, server: Server) -> None:
    server.engine.hold(before=3)
    unfold(page, PLOT)
    axis(page, "x", "Steps", "8, 9")
    generate(page, "a fox")
    generate(page, "an owl")
    jobs = page.locator(".ls-job")
    expect(jobs.filter(has_text="an owl")).to_contain_text("plot · 128×128")
    expect(jobs.filter(has_text="a fox")).to_contain_text("2 pictures · 128×128")
    expect(page.locator(".ls-tiles .ls-tile")).to_have_count(2)
    page.locator("#txt2img_interrupt").click()
    expect(page.locator(".ls-job").filter(has_text="a fox")).to_have_count(0)


def test_the_form_is_there_after_a_refresh(page: Page) -> None:
    unfold(page, PLOT)
    axis(page, "x", "Seed", "1, 2, 3")
    page.locator(f"#{PLOT}_no_fixed_seeds input").check()
    page.locator(f"#{PLOT}_margin_size input[type=number]").fill("6")
    page.locator(f"#{PLOT}_margin_size input[type=number]").press("Tab")
    expect(page.locator(SIZE)).to_have_text("3 pictures")
    page.wait_for_timeout(700)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(HEAD)).to_have_attribute("data-said", "3 pictures")
    unfold(page, PLOT)
    expect(kind(page, "x")).to_have_value("Seed")
    expect(values(page, "x")).to_have_value("1, 2, 3")
    expect(page.locator(f"#{PLOT}_no_fixed_seeds input")).to_be_checked()
    expect(page.locator(f"#{PLOT}_margin_size input[type=number]")).to_have_value("6")
    expect(page.locator(SIZE)).to_have_text("3 pictures")


def test_values_that_cannot_be_are_marked(page: Page) -> None:
    unfold(page, PLOT)
    axis(page, "x", "Steps", "two")
    generate(page, "a fox")
    expect(page.locator(".ls-toast").first).to_contain_text("'two' is no number")
    expect(page.locator(f"#{PLOT}_x_values")).to_have_class(re.compile("ls-wrong"))
