"""The same round trip through the real worker and the model that ships with the program: pixels, not stand-ins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import BrowserContext, expect

from studio.app import Studio
from studio.building import build
from studio.errors import StudioError
from studio.library.catalog import DEFAULT_CHECKPOINT
from studio.paths import Paths
from studio.settings import Settings
from studio.ui.mount import mount_page
from tests.api.stand_in import serving
from tests.browser.conftest import READY, forget
from tests.browser.steps import NEGATIVE, PROMPT, STAGE, generate, set_number, tab
from tests.browser.test_img2img import MASK, stroke

SECONDS = 120_000


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Studio]]:
    studio = build(Settings(device="cpu"), Paths(tmp_path_factory.mktemp("real")))
    try:
        problem = studio.library.checkpoint(DEFAULT_CHECKPOINT).problem
    except StudioError as error:
        problem = error.message
    if problem:
        studio.close()
        pytest.skip(f"the model that ships with the program is not here: {problem}")
    with serving(studio, lambda app: mount_page(app, studio)) as url:
        yield url, studio


@pytest.mark.slow
def test_send_to_txt2img_paints_the_same_bytes(real: tuple[str, Studio], profile: BrowserContext) -> None:
    url, studio = real
    page = profile.new_page()
    forget(page, url)
    page.goto(url)
    page.wait_for_selector(READY, state="attached")

    def paint(prompt: str | None = None) -> Path:
        generate(page, prompt)
        newest = studio.queue.jobs(limit=1)[0].id
        expect(page.locator(STAGE)).to_have_attribute("data-job", str(newest), timeout=SECONDS)
        expect(page.locator(STAGE)).to_have_attribute("data-status", "done", timeout=SECONDS)
        return sorted((studio.paths.outputs / "txt2img-images").rglob("*.png"))[-1]

    page.locator(NEGATIVE).fill("grey")
    for name, value in {"steps": 4, "seed": 11, "batch_count": 2, "cfg_scale": 5}.items():
        set_number(page, name, value)
    second = paint("a (red:1.2) apple on a beach")
    previews = page.locator(".ls-cell:not(.empty) img")
    expect(previews).to_have_count(4)
    assert previews.first.evaluate("(image) => image.naturalWidth") > 0
    tab(page, "PNG Info")
    page.locator("#pnginfo_image").set_input_files(second)
    page.locator("#pnginfo_send").click()
    expect(page.locator("#txt2img_seed input")).to_have_value("12")
    again = paint()
    page.close()
    assert again != second
    assert again.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_live_follows_the_typing_and_the_sliders(real: tuple[str, Studio], profile: BrowserContext) -> None:
    url, studio = real
    page = profile.new_page()
    forget(page, url)
    page.goto(url)
    page.wait_for_selector(READY, state="attached")
    before = len(studio.queue.jobs(limit=1000))
    shown: list[str] = []

    def pixels() -> list[int]:
        """Those of the next live picture."""
        image = page.locator(".ls-livecover:not(.rough) > img[src^='blob:']")
        expect(image).not_to_have_attribute("src", shown[-1] if shown else "", timeout=SECONDS)
        page.wait_for_timeout(300)  # a slow letter may have painted what is before the last one
        expect(page.locator("#ls_live .ls-dot")).to_have_class("ls-dot good", timeout=SECONDS)
        shown.append(image.get_attribute("src") or "")
        read = """async (image) => {
            await image.decode();
            const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
            canvas.drawImage(image, 0, 0);
            return [...canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data];
        }"""
        return list(image.evaluate(read))

    page.locator(PROMPT).fill("a red apple")
    page.locator("#txt2img_live_switch").click()
    pictures = [pixels()]
    assert len(pictures[0]) == 4 * 128 * 128
    page.locator(PROMPT).press_sequentially(" on a beach")
    pictures.append(pixels())
    page.locator("#txt2img_cfg_scale input[type=range]").press("ArrowLeft")
    pictures.append(pixels())
    page.locator("#txt2img_random_seed").click()
    pictures.append(pixels())
    page.close()
    for one, other in itertools.pairwise(pictures):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one) > 0.5
    assert len(studio.queue.jobs(limit=1000)) == before


@pytest.mark.slow
def test_only_what_is_marked_of_a_picture_is_painted_anew(real: tuple[str, Studio], profile: BrowserContext) -> None:
    url, studio = real
    page = profile.new_page()
    forget(page, url)
    page.goto(url)
    page.wait_for_selector(READY, state="attached")

    def paint(prompt: str, seed: int) -> NDArray[np.int16]:
        set_number(page, "seed", seed)
        generate(page, prompt)
        newest = studio.queue.jobs(limit=1)[0].id
        expect(page.locator(STAGE)).to_have_attribute("data-job", str(newest), timeout=SECONDS)
        expect(page.locator(STAGE)).to_have_attribute("data-status", "done", timeout=SECONDS)
        path = studio.queue.jobs(limit=1)[0].images[0].path
        assert path is not None
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).astype(np.int16)

    set_number(page, "steps", 6)
    first = paint("a red apple on a beach", 11)
    page.locator(".ls-stage").press("b")
    expect(page.locator(MASK)).to_be_visible()
    stroke(page, (0.3, 0.6), (0.7, 0.6))
    second = paint("a green apple on a beach", 12)
    page.close()
    changed = np.abs(first - second).max(2)
    height = len(changed)
    assert changed[: height // 3].max() == 0, "far from the mask every pixel is the picture's"
    assert changed[int(0.57 * height) : int(0.63 * height), 48:80].mean() > 10
