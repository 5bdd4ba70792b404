"""The same round trip through the real worker and the model that ships with the program: pixels, not stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from studio.app import Studio, build
from studio.errors import StudioError
from studio.library.catalog import DEFAULT_CHECKPOINT
from studio.paths import Paths
from studio.settings import Settings
from studio.ui.mount import mount_page
from tests.api.stand_in import serving
from tests.browser.conftest import READY, forget
from tests.browser.steps import NEGATIVE, STAGE, generate, set_number, tab

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
