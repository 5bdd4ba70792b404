"""From a ZIP of drawn pictures to a picture painted with what was learned from them: every process is the real one, only the model is tiny."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import BrowserContext, expect

from studio.app import Studio
from studio.building import build
from studio.library import Library
from studio.paths import Paths
from studio.settings import Settings
from studio.ui.mount import mount_page
from tests.api.stand_in import serving
from tests.browser import views
from tests.browser.conftest import READY, forget
from tests.browser.steps import PROMPT, STAGE, generate, set_number, tab
from tests.tiny_models import tiny_folder

SECONDS = 120_000
WORDS = ("boat", "cat", "dog", "fish", "house", "moon", "ring", "tree")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[str, Studio]]:
    """A server with a worker and a trainer of its own, and one tiny checkpoint."""
    paths = Paths(tmp_path / "real")
    shutil.copytree(tiny_folder("sprout"), paths.checkpoints / "tiny")
    studio = build(Settings(device="cpu", sd_model_checkpoint="tiny"), paths)
    with serving(studio, lambda app: mount_page(app, studio)) as url:
        yield url, studio


def drawn(place: Path) -> Path:
    """A ZIP of eight duotone pictures with captions, and a file that is no picture."""
    (place / "set").mkdir()
    for number, word in enumerate(WORDS):
        picture = Image.new("RGB", (64, 64), (40, 40, 120))
        ImageDraw.Draw(picture).ellipse((4 + 3 * number, 10, 50, 50), fill=(220, 60, 60))
        picture.save(place / "set" / f"{word}.png")
        (place / "set" / f"{word}.txt").write_text(f"a {word}")
    (place / "set" / "broken.png").write_bytes(b"\x89PNG oh")
    return Path(shutil.make_archive(str(place / "duo"), "zip", place / "set"))


@pytest.mark.slow
def test_from_an_upload_to_a_picture_painted_with_the_result(
    real: tuple[str, Studio], profile: BrowserContext, tmp_path: Path
) -> None:
    url, studio = real
    page = profile.new_page()
    page.set_default_timeout(SECONDS)
    forget(page, url)
    page.goto(url)
    page.wait_for_selector(READY, state="attached")
    tab(page, "Train")
    page.wait_for_selector("form[data-ready=yes]")
    page.locator("#train_zip").set_input_files(drawn(tmp_path))
    data = page.locator("#train_data")
    expect(data).to_contain_text("8 pictures · 8 captions · 1 problem", timeout=SECONDS)
    expect(data).to_contain_text("broken.png")
    for name, value in {
        "name": "duo",
        "method_data_trigger": "duotone",
        "method_data_resolution": "64",
        "method_steps": "16",
        "method_samples_prompts": "a fox",
        "method_samples_every": "8",
    }.items():
        page.locator(f"#train_{name}").fill(value)
    page.locator("#train_method_model").select_option("tiny")
    page.locator("#train_start").click()
    expect(page.locator("[data-run]")).to_contain_text("finished · 16 steps", timeout=SECONDS)
    expect(page.locator("#train_run .ls-path.ls-line-epoch")).to_be_visible()
    assert page.locator(".ls-sample-step").all_inner_texts() == ["base", "8", "16"]
    views.picture(page, "train-real-finished")
    card = page.locator(".ls-pick-place", has_text="trained in duo")
    expect(card).to_have_count(1)
    expect(card.locator("img")).to_have_attribute("src", re.compile("loras/preview"))
    page.locator("#train_run_actions").get_by_role("button", name="use in prompt").click()
    expect(page.locator(PROMPT)).to_have_value("duotone, <lora:duo:0.8>")
    for name, number in {"steps": 3, "width": 64, "height": 64, "seed": 5}.items():
        set_number(page, name, number)
    generate(page)
    stage = page.locator(STAGE)
    expect(stage).to_have_attribute("data-status", "done", timeout=SECONDS)
    lora = Library(studio.paths).lora("duo")
    (picture,) = (studio.paths.outputs / "txt2img-images").rglob("*.png")
    text = Image.open(picture).text["parameters"]
    assert lora.short_hash and f'Lora hashes: "duo: {lora.short_hash}"' in text
    (record,) = studio.training.runs()
    assert lora.metadata["studio.run"] == record.id
    stage.get_by_role("button", name="trained in duo").click()
    expect(page.locator("#train_run_name")).to_have_text("duo")
    expect(page.locator("#train_run_facts")).to_have_text(re.compile("finished"))
    page.close()
