"""Pictures tell how they were made: PNG Info, dropping on the prompt, sending back and forth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from studio.infotext import encode_png
from tests.browser.conftest import READY, Open, Server, forget
from tests.browser.steps import (
    NEGATIVE,
    PROMPT,
    choose,
    done,
    drop,
    generate,
    messages,
    number,
    set_number,
    tab,
    unfold,
)


@pytest.fixture(scope="module")
def picture(profile: BrowserContext, server: Server) -> Path:
    """The second picture of a batch, made with as little left at its default as a form allows."""
    server.settle()
    page = profile.new_page()
    forget(page, server.url)
    page.goto(server.url)
    page.wait_for_selector(READY, state="attached")
    page.locator(NEGATIVE).fill("blurry, (ugly:1.3)")
    choose(page, "txt2img_sampling", "Euler a")
    for name, value in {"steps": 7, "seed": 31, "batch_size": 2, "cfg_scale": 4.5, "width": 96, "height": 160}.items():
        set_number(page, name, value)
    page.locator("#setting_CLIP_stop_at_last_layers input").fill("2")
    unfold(page, "txt2img_sampler_parameters")
    page.locator("#txt2img_eta input").fill("0.5")
    page.locator("#txt2img_eta input").press("Tab")
    choose(page, "setting_randn_source", "NV")
    generate(page, "a (red fox:1.2),\non a beach <lora:ink:0.8>")
    done(page, server)
    page.close()
    return server.pictures[-1]


def test_png_info_round_trip_gives_the_same_bytes(picture: Path, open_page: Open, server: Server) -> None:
    page = open_page()
    tab(page, "PNG Info")
    page.locator("#pnginfo_image").set_input_files(picture)
    with Image.open(picture) as opened:
        assert page.locator("#pnginfo_text").inner_text() == opened.text["parameters"]
    expect(page.locator(".ls-table").first).to_contain_text("Euler a")
    page.locator("#pnginfo_send").click()
    expect(number(page, "seed")).to_have_value("32")
    expect(page.locator(PROMPT)).to_have_value("a (red fox:1.2),\non a beach <lora:ink:0.8>")
    expect(number(page, "batch_size")).to_have_value("1")
    generate(page)
    done(page, server)
    assert server.pictures[-1] != picture
    assert server.pictures[-1].read_bytes() == picture.read_bytes()


def test_dropping_a_picture_on_the_prompt(picture: Path, page: Page, server: Server) -> None:
    drop(page, PROMPT, picture)
    expect(page.locator(PROMPT)).to_have_value("a (red fox:1.2),\non a beach <lora:ink:0.8>")
    expect(page.locator(NEGATIVE)).to_have_value("blurry, (ugly:1.3)")
    expect(number(page, "height")).to_have_value("160")
    generate(page)
    done(page, server)
    assert server.pictures[-1].read_bytes() == picture.read_bytes()
    page.get_by_role("button", name="to PNG Info").click()
    expect(page.locator("#pnginfo_text")).to_contain_text("Seed: 32")
    tab(page, "txt2img")
    page.locator(PROMPT).fill("something else")
    page.get_by_role("button", name="to txt2img").click()
    expect(page.locator(PROMPT)).to_have_value("a (red fox:1.2),\non a beach <lora:ink:0.8>")


def test_files_that_are_no_pictures_or_say_nothing(open_page: Open, tmp_path: Path) -> None:
    page = open_page(expected=("status of 422",))
    plain, broken, note = tmp_path / "plain.png", tmp_path / "broken.png", tmp_path / "note.txt"
    Image.new("RGB", (8, 8)).save(plain)
    broken.write_bytes(plain.read_bytes()[:20])
    note.write_text("a mill\nSteps: 9, Sampler: Heun, CFG scale: 3, Seed: 5, Size: 64x64")
    page.locator(PROMPT).fill("kept")
    drop(page, PROMPT, plain)
    expect(page.locator(".ls-toast.warn")).to_be_visible()
    drop(page, PROMPT, broken)
    expect(page.locator(".ls-toast.bad")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("kept")
    drop(page, PROMPT, note, "text/plain")
    expect(page.locator(PROMPT)).to_have_value("a mill")
    expect(number(page, "steps")).to_have_value("9")
    # Beside every zone the page stays, and the stage, where people aim, is as good as the prompt.
    page.locator(PROMPT).fill("something else")
    own = page.evaluate("new URL('studio/v1/images/1.png', location.href).href")
    assert drop(page, ".ls-stage", note, "text/plain", own)  # the stage's own picture, let go too early
    page.wait_for_timeout(300)
    assert page.locator(PROMPT).input_value() == "something else"
    assert drop(page, ".ls-stage", note, "text/plain")
    expect(page.locator(PROMPT)).to_have_value("a mill")
    page.locator(PROMPT).fill("kept")
    tab(page, "Library")
    assert drop(page, "[data-panel=library]", note, "text/plain")
    tab(page, "PNG Info")
    assert drop(page, ".ls-pnginfo-result", plain)
    result = page.locator(".ls-pnginfo-result")
    expect(result).to_contain_text("no generation text")
    expect(result).to_have_attribute("aria-live", "polite")
    page.locator("#pnginfo_image").set_input_files(broken)
    expect(result.get_by_role("alert")).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("kept")


def test_read_and_clear(page: Page) -> None:
    page.locator(PROMPT).fill(
        "a mill\nNegative prompt: fog\nSteps: 9, Sampler: Heun, CFG scale: 3, Seed: 5, Size: 64x64, Model: elm"
    )
    page.locator("#paste").click()
    expect(page.locator(PROMPT)).to_have_value("a mill")
    expect(page.locator(NEGATIVE)).to_have_value("fog")
    expect(page.locator(".ls-toast", has_text="'elm'")).to_be_visible()
    page.locator(PROMPT).fill(
        "a barn Negative prompt: rain Steps: 8, Sampler: Heun, CFG scale: 3, Seed: 6, Size: 64x64"
    )
    page.locator("#paste").click()
    expect(page.locator(PROMPT)).to_have_value("a barn")
    expect(number(page, "seed")).to_have_value("6")
    page.locator(PROMPT).fill("a mill")
    page.locator(NEGATIVE).fill("fog")
    page.locator("#txt2img_clear_prompt").click()
    expect(page.locator(PROMPT)).to_have_value("")
    page.get_by_role("button", name="undo").click()
    expect(page.locator(PROMPT)).to_have_value("a mill")
    expect(page.locator(NEGATIVE)).to_have_value("fog")
    page.locator("#paste").click()
    assert any("holds no generation parameters" in said for said in messages(page))


def test_library_pictures_go_back_into_the_form(picture: Path, page: Page) -> None:
    tab(page, "Library")
    tile = page.locator(".ls-gallery").get_by_role("button", name="a (red fox:1.2),").first
    tile.click()
    detail = page.locator(".ls-detail")
    expect(detail).to_contain_text("Seed: 32")
    expect(detail).to_contain_text(str(picture.parent))
    detail.get_by_role("button", name="Close").click()
    expect(tile).to_be_focused()
    page.set_viewport_size({"width": 390, "height": 844})
    last = page.locator(".ls-gallery .ls-tile").last
    last.focus()
    page.keyboard.press("Enter")
    expect(detail).to_be_focused()
    send = detail.get_by_role("button", name="Send to txt2img")
    expect(send).to_be_in_viewport()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    tile.click()
    expect(send).to_be_in_viewport()
    send.click()
    expect(page.locator(PROMPT)).to_be_visible()
    expect(number(page, "seed")).to_have_value("32")


def test_the_reproduce_check_says_same_or_why_not(
    picture: Path, open_page: Open, server: Server, tmp_path: Path
) -> None:
    page = open_page()
    tab(page, "PNG Info")
    page.locator("#pnginfo_image").set_input_files(picture)
    page.locator("#pnginfo_reproduce").click()
    check = page.locator("#pnginfo_check")
    expect(check).to_contain_text("every pixel is equal", timeout=20_000)
    expect(check.locator("img")).to_have_count(2)
    newest = server.studio.queue.jobs(limit=1)[0]
    assert newest.source == "reproduce"
    page.reload()
    expect(page.locator("[data-panel=stage]")).to_have_attribute("data-status", "done")
    expect(page.locator("[data-panel=stage]")).not_to_have_attribute("data-job", str(newest.id))
    tab(page, "PNG Info")
    saved = len(server.pictures)
    with Image.open(picture) as opened:
        pixels, text = np.asarray(opened).copy(), opened.text["parameters"]
    pixels[:20] = 255 - pixels[:20]
    forged = tmp_path / "forged.png"
    forged.write_bytes(encode_png(Image.fromarray(pixels), text.replace("Version: ", "Hires upscale: 2, Version: ")))
    page.locator("#pnginfo_image").set_input_files(forged)
    expect(check).to_be_hidden()
    page.locator("#pnginfo_reproduce").click()
    expect(check).to_contain_text("Not the same", timeout=20_000)
    expect(check).to_contain_text("Hires upscale: 2 in the picture")
    expect(check.locator("img")).to_have_count(4)
    assert len(server.pictures) == saved


def test_tiles_are_small_and_what_is_dragged_is_the_picture(page: Page, server: Server) -> None:
    """A tile's own version of a large picture knows nothing of how it was made."""
    set_number(page, "width", 512)
    set_number(page, "batch_size", 2)
    set_number(page, "seed", 777)
    generate(page, "a lighthouse")
    done(page, server)
    tile = page.locator("#txt2img_stage .ls-tiles img").first
    decoded = "(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert tile.evaluate(decoded) == [384, 96]
    assert page.locator(".ls-picture").evaluate(decoded) == [512, 128]
    page.locator(PROMPT).fill("something else")
    page.drag_and_drop("#txt2img_stage .ls-tiles img", PROMPT)
    expect(page.locator(PROMPT)).to_have_value("a lighthouse")
    expect(number(page, "seed")).to_have_value("777")
