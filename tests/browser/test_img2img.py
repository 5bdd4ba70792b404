"""Begin with a picture: the well, its mask, and the form that both are names in."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from studio.schema.request import GenerationRequest
from tests.browser.conftest import READY, Open, Server
from tests.browser.painter import scene
from tests.browser.steps import PROMPT, choose, done, drop, generate, intercept, number, queued, set_number, tab, unfold
from tests.browser.views import VIEWS, fits, picture

WELL = "[data-panel=source]"
HEAD = f"{WELL} .ls-source-head"
MASK = f"{WELL} canvas"
SAID = ".ls-source-said"
OPTIONS = "#img2img_denoising_strength"
MASK_OPTIONS = "#img2img_mask_blur"
HIRES = "#txt2img_hr_enable input"


@pytest.fixture
def sun(tmp_path: Path) -> Path:
    """A picture, 160 × 120 pixels."""
    file = tmp_path / "sun.png"
    Image.fromarray(scene(160, 120, 7).astype(np.uint8)).save(file)
    return file


def begin_with(page: Page, file: Path) -> None:
    """Open the well and choose a file."""
    page.locator(HEAD).click()
    page.locator("#img2img_file").set_input_files(file)
    expect(page.locator(MASK)).to_be_visible()


def stroke(page: Page, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
    """Paint a straight line; places are parts of the picture's width and height."""
    box = page.locator(MASK).bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down(button=button)  # type: ignore[arg-type]
    page.mouse.move(*places[1], steps=8)
    page.mouse.up(button=button)  # type: ignore[arg-type]


def last_request(server: Server) -> GenerationRequest:
    return server.studio.queue.jobs(limit=1)[0].request


def mask_pixels(server: Server) -> NDArray[np.uint8]:
    """The mask of the newest job."""
    mask = last_request(server).mask
    assert mask is not None
    with Image.open(server.studio.library.init_image(mask.image).path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def canvas_share(page: Page) -> float:
    """How much of the mask that is shown is painted."""
    share = page.locator(MASK).evaluate(
        """(canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let painted = 0;
            for (let at = 3; at < data.length; at += 4) painted += data[at] > 127;
            return painted / (data.length / 4);
        }"""
    )
    return float(share)


def test_a_file_becomes_the_picture_to_begin_with(page: Page, server: Server, sun: Path) -> None:
    expect(page.locator(OPTIONS)).to_be_hidden()
    picture(page, "img2img-closed")
    page.locator(HEAD).click()
    expect(page.locator(".ls-source-drop")).to_be_visible()
    expect(page.locator(OPTIONS)).to_be_hidden()
    picture(page, "img2img-empty")
    page.locator("#img2img_file").set_input_files(sun)
    expect(page.locator(OPTIONS)).to_be_visible()
    expect(page.locator(MASK_OPTIONS)).to_be_hidden()
    expect(page.locator(HEAD)).to_contain_text("160×120")
    expect(page.locator(WELL)).to_contain_text("painted at 128×128, stretched")
    choose(page, "resize_mode", "Crop and resize")
    expect(page.locator(WELL)).to_contain_text("cut to shape")
    page.locator(f"{OPTIONS} input[type=number]").fill("0.4")
    page.locator(f"{OPTIONS} input[type=number]").press("Tab")
    unfold(page, "txt2img_sampler_parameters")
    page.locator("#setting_img2img_fix_steps input").check()
    page.locator("#img2img_take_shape").click()
    expect(number(page, "width")).to_have_value("144")
    expect(number(page, "height")).to_have_value("112")
    page.locator("#img2img_take_size").click()
    expect(number(page, "width")).to_have_value("160")
    expect(number(page, "height")).to_have_value("120")
    generate(page, "a sun")
    done(page, server)
    request = last_request(server)
    assert request.source is not None and request.mask is None
    assert (request.width, request.height) == (160, 120)
    assert (request.source.denoising_strength, request.source.resize_mode) == (0.4, "Crop and resize")
    assert request.source.exact_steps
    with Image.open(server.studio.library.init_image(request.source.image).path) as kept, Image.open(sun) as asked:
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(asked))


def test_dropped_or_pasted(page: Page, server: Server, sun: Path) -> None:
    page.locator(HEAD).click()
    drop(page, WELL, sun)
    expect(page.locator(MASK)).to_be_visible()
    page.locator("#img2img_remove").click()
    expect(page.locator(".ls-source-drop")).to_be_visible()
    page.locator(".ls-toast", has_text="begins with noise").get_by_role("button", name="undo").click()
    expect(page.locator(MASK)).to_be_visible()
    page.locator("#img2img_remove").click()
    expect(page.locator(".ls-source-drop")).to_be_visible()
    page.evaluate(
        """([data]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true }));
        }""",
        [base64.b64encode(sun.read_bytes()).decode()],
    )
    expect(page.locator(MASK)).to_be_visible()
    generate(page, "a sun")
    done(page, server)
    assert last_request(server).source is not None


def test_a_stroke_is_a_mask_in_the_right_place(page: Page, server: Server, sun: Path) -> None:
    begin_with(page, sun)
    stroke(page, (0.2, 0.25), (0.5, 0.25))
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    picture(page, "img2img-masked")
    choose(page, "img2img_inpainting_fill", "latent noise")
    choose(page, "img2img_inpaint_full_res", "Only masked")
    page.locator("#img2img_mask_mode input").check()
    generate(page, "a sun")
    done(page, server)
    pixels = mask_pixels(server)
    assert pixels.shape == (120, 160)
    assert set(np.unique(pixels)) >= {0, 255}
    rows, columns = np.nonzero(pixels > 127)
    width = 0.08 * 160
    assert rows.min() == pytest.approx(30 - width / 2, abs=2) and rows.max() == pytest.approx(30 + width / 2, abs=2)
    assert columns.min() == pytest.approx(32 - width / 2, abs=2) and columns.max() == pytest.approx(
        80 + width / 2, abs=2
    )
    mask = last_request(server).mask
    assert mask is not None
    assert (mask.content, mask.area, mask.inverted) == ("latent noise", "Only masked", True)


def test_generate_waits_for_the_mask(page: Page, server: Server, sun: Path) -> None:
    begin_with(page, sun)
    page.locator(PROMPT).fill("a sun")
    intercept(page, "**/init-images?mask=true", lambda route: (page.wait_for_timeout(400), route.continue_()))
    stroke(page, (0.5, 0.5), (0.6, 0.5))
    with queued(page):
        page.keyboard.press("Control+Enter")
    done(page, server)
    assert mask_pixels(server).max() == 255


def test_undo_redo_erase_invert_and_clear(page: Page, server: Server, sun: Path) -> None:
    begin_with(page, sun)
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    one = canvas_share(page)
    stroke(page, (0.2, 0.8), (0.8, 0.8))
    two = canvas_share(page)
    assert two == pytest.approx(2 * one, rel=0.1)
    page.keyboard.press("Control+z")
    assert canvas_share(page) == one
    page.keyboard.press("Control+Shift+z")
    assert canvas_share(page) == two
    stroke(page, (0.1, 0.8), (0.9, 0.8), "right")
    assert canvas_share(page) == pytest.approx(one, rel=0.02)
    page.keyboard.press("e")
    stroke(page, (0.1, 0.5), (0.9, 0.5))
    assert canvas_share(page) < one / 50
    page.keyboard.press("e")
    page.get_by_role("button", name="clear", exact=True).last.click()
    assert canvas_share(page) == 0
    expect(page.locator(MASK_OPTIONS)).to_be_hidden()
    page.locator(WELL).get_by_role("button", name="Swap what is painted").click()
    assert canvas_share(page) == 1
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    generate(page, "a sun")
    done(page, server)
    assert mask_pixels(server).min() == 255
    px = page.locator(".ls-brush output").inner_text()
    page.locator(".ls-source-frame").focus()
    for _ in range(3):
        page.keyboard.press("]")
    assert int(page.locator(".ls-brush output").inner_text().split()[0]) > int(px.split()[0])


def test_a_mask_from_a_file(page: Page, server: Server, sun: Path, tmp_path: Path) -> None:
    begin_with(page, sun)
    half = np.zeros((60, 80), np.uint8)
    half[:, :40] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    page.locator("#img2img_mask_file").set_input_files(tmp_path / "half.png")
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    assert canvas_share(page) == pytest.approx(0.5, abs=0.01)
    generate(page, "a sun")
    done(page, server)
    pixels = mask_pixels(server)
    assert pixels.shape == (120, 160), "the mask has the picture's size"
    assert pixels[:, :78].min() == 255 and pixels[:, 82:].max() == 0


def test_a_refresh_brings_both_back(page: Page, server: Server, sun: Path) -> None:
    begin_with(page, sun)
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    with page.expect_request(lambda request: "/form/" in request.url and '"mask":{"image":"' in (request.post_data or "")
                             and '"mask":{"image":""' not in (request.post_data or "")):  # fmt: skip
        expect(page.locator(MASK_OPTIONS)).to_be_visible()
    before = canvas_share(page)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(MASK)).to_be_visible()
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    expect(page.locator(".ls-source-well")).to_have_attribute("aria-busy", "false")
    assert canvas_share(page) == pytest.approx(before, rel=0.01)
    generate(page, "a sun")
    done(page, server)
    assert mask_pixels(server).max() == 255


def test_it_excludes_the_second_pass(page: Page, server: Server, sun: Path) -> None:
    page.locator(HIRES).check()
    begin_with(page, sun)
    expect(page.locator(HIRES)).to_be_disabled()
    expect(page.locator(HIRES)).not_to_be_checked()
    expect(page.locator("#txt2img_hr")).to_contain_text("not with a picture to begin with")
    generate(page, "a sun")
    done(page, server)
    assert last_request(server).hires is None
    page.locator("#img2img_remove").click()
    expect(page.locator(HIRES)).to_be_enabled()
    expect(page.locator(OPTIONS)).to_be_hidden()
    page.locator(HIRES).check()
    generate(page, "a sun")
    done(page, server)
    assert last_request(server).hires is not None and last_request(server).source is None


def test_hires_options_that_are_off_do_not_keep_a_picture_from_coming_back(page: Page, sun: Path) -> None:
    page.locator(HIRES).check()
    set_number(page, "hr_scale", 3)
    begin_with(page, sun)
    page.wait_for_timeout(900)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(MASK)).to_be_visible()
    page.locator("#img2img_remove").click()
    page.locator(HIRES).check()
    expect(number(page, "hr_scale")).to_have_value("3")


def test_a_finished_picture_is_begun_with(page: Page, server: Server) -> None:
    generate(page, "a harbour")
    done(page, server)
    page.get_by_role("button", name="to img2img").click()
    expect(page.locator(MASK)).to_be_visible()
    expect(page.locator(HEAD)).to_contain_text("128×128")
    page.locator("#img2img_remove").click()
    expect(page.locator(".ls-source-drop")).to_be_visible()
    page.locator(".ls-stage").focus()
    page.keyboard.press("b")
    expect(page.locator(MASK)).to_be_visible()
    generate(page, "a harbour at night")
    done(page, server)
    source = last_request(server).source
    assert source is not None
    kept = server.studio.library.init_image(source.image).path
    first = server.studio.queue.jobs(limit=2)[1].images[0]
    with Image.open(kept) as image, Image.open(io.BytesIO(server.studio.queue.image_bytes(first.id))) as painted:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(painted))


def test_a_picture_is_dragged_from_the_stage(page: Page, server: Server) -> None:
    generate(page, "a harbour")
    done(page, server)
    page.locator(HEAD).click()
    page.drag_and_drop(".ls-picture", ".ls-source-drop")
    expect(page.locator(MASK)).to_be_visible()
    expect(page.locator(HEAD)).to_contain_text("128×128")


def test_one_of_the_library_too(page: Page, server: Server) -> None:
    generate(page, "a harbour")
    done(page, server)
    tab(page, "Library")
    page.locator(".ls-gallery .ls-tile").first.click()
    page.locator(".ls-detail").get_by_role("button", name="to img2img").click()
    expect(page.locator(MASK)).to_be_visible()


def test_what_is_no_picture_is_said(open_page: Open, tmp_path: Path, sun: Path) -> None:
    page = open_page(expected=("422",))
    page.locator(HEAD).click()
    (tmp_path / "notes.txt").write_text("no picture")
    page.locator("#img2img_file").set_input_files(tmp_path / "notes.txt")
    expect(page.locator(SAID)).to_contain_text("no picture that can be read")
    picture(page, "img2img-wrong")
    page.locator("#img2img_file").set_input_files(sun)
    expect(page.locator(MASK)).to_be_visible()
    expect(page.locator(SAID)).to_be_hidden()
    drop(page, WELL, tmp_path / "notes.txt", "text/plain")
    expect(page.locator(SAID)).to_contain_text("no picture that can be read")
    expect(page.locator(MASK)).to_be_visible()


def forget(server: Server, name: str) -> None:
    """Delete a kept picture, wherever it lies."""
    for folder in (server.studio.paths.init_images, server.studio.paths.waiting_images):
        (folder / f"{name}.png").unlink(missing_ok=True)


def test_one_that_is_not_kept_any_more_is_said(open_page: Open, server: Server, sun: Path) -> None:
    page = open_page(expected=("404",))
    begin_with(page, sun)
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    generate(page, "a sun")
    done(page, server)
    page.wait_for_timeout(700)
    request = last_request(server)
    assert request.source and request.mask
    forget(server, request.mask.image)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(SAID)).to_have_text("The mask is not kept any more. Choose it again, or remove it.")
    expect(page.locator(MASK)).to_be_visible()
    forget(server, request.source.image)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(SAID)).to_contain_text("The picture to begin with is not kept any more")
    picture(page, "img2img-gone")
    generate(page, "a sun")
    expect(page.locator(".ls-toast.bad")).to_contain_text("to begin with is not kept any more")
    expect(page.locator("#img2img_image")).to_have_class(re.compile("ls-wrong"))
    page.locator(WELL).get_by_role("button", name="remove").first.click()
    expect(page.locator(SAID)).to_be_hidden()
    generate(page, "a sun")
    done(page, server)


def test_a_painted_picture_brings_its_picture_and_its_mask_into_the_form(page: Page, server: Server, sun: Path) -> None:
    begin_with(page, sun)
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    page.locator(f"{MASK_OPTIONS} input[type=number]").fill("9")
    page.locator(f"{MASK_OPTIONS} input[type=number]").press("Tab")
    generate(page, "a sun")
    done(page, server)
    first, share = last_request(server), canvas_share(page)
    page.locator("#img2img_remove").click()
    expect(page.locator(".ls-source-drop")).to_be_visible()
    page.locator(HIRES).check()
    tab(page, "PNG Info")
    file = server.studio.queue.jobs(limit=1)[0].images[0].path
    assert file is not None
    drop(page, ".ls-drop", Path(file))
    table = page.locator("[data-panel=pnginfo] .ls-table").first
    expect(table).to_contain_text("strength 0.75, Just resize")
    expect(table).to_contain_text("blur 9, original, Whole picture")
    picture(page, "img2img-pnginfo")
    page.locator("#pnginfo_begin").click()
    expect(page.locator(HEAD)).to_contain_text("128×128")
    tab(page, "PNG Info")
    page.locator("#pnginfo_send").click()
    expect(page.locator(HEAD)).to_contain_text("160×120 · with a mask")
    expect(page.locator(MASK)).to_be_visible()
    expect(page.locator(".ls-source-well")).to_have_attribute("aria-busy", "false")
    assert canvas_share(page) == share
    expect(page.locator(f"{MASK_OPTIONS} input[type=number]")).to_have_value("9")
    expect(page.locator(HIRES)).to_be_disabled()
    generate(page)
    done(page, server)
    assert (last_request(server).source, last_request(server).mask) == (first.source, first.mask)


def test_live_begins_with_the_picture_too(page: Page, server: Server, sun: Path) -> None:
    begin_with(page, sun)
    page.locator("#txt2img_live_switch").click()
    expect(page.locator(".ls-livecaption")).to_contain_text("live")
    plain = server.engine.runs[-1]
    assert plain.source is not None and plain.mask is None
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    page.wait_for_timeout(1500)
    assert server.engine.runs[-1].mask is not None


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_it_fits(open_page: Open, server: Server, sun: Path, view: str) -> None:
    theme, width, height = VIEWS[view]
    page = open_page(theme=theme, width=width, height=height)
    begin_with(page, sun)
    page.locator(MASK).scroll_into_view_if_needed()
    stroke(page, (0.3, 0.4), (0.7, 0.6))
    expect(page.locator(MASK_OPTIONS)).to_be_visible()
    fits(page)
    picture(page, f"img2img-{view}", full_page=True)
