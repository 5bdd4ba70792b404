"""The Train tab: a run from the form to the prompt, curves that follow the folder, and what happens when things go wrong.

The process that trains is the pretended one of `tests.runs.pretend`; screenshots go where `test_looks` puts them.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from studio.schema.training import TrainingConfig
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.runs import Noted, RunFailed, RunFolder, StageStarted, Validated, new_run, worker_command
from tests.browser.conftest import Open, Server
from tests.browser.steps import PROMPT, generate, tab
from tests.browser.test_looks import fits, folder  # noqa: F401 - a fixture
from tests.runs.pretend import configuration, paint, seated, step_done, trainer

RUN, FACTS = "#train_run", "#train_run_facts"
PROMPTS = ["a fox in the snow", "two red hearts", "a boat at night"]
REPORT: dict[str, Any] = {
    "path": "/pictures", "format": "folder", "digest": "d", "pictures": 24, "captions": 22, "problem_count": 1,
    "problems": ["broken.png: the file is truncated."], "notes": [], "sizes": [{"width": 128, "height": 128, "count": 20},
    {"width": 96, "height": 160, "count": 4}], "size_count": 2, "buckets": [{"width": 128, "height": 128, "count": 24}],
    "enlarged": 0, "tokens": {"shortest": 3, "median": 7, "longest": 12, "over_75": 0}, "without_caption": ["moon.png"],
    "without_caption_count": 1, "duplicates": [], "duplicate_count": 0,
    "expectation": {"epochs": 1, "batch": 1, "samples": 24, "steps": 24, "seconds": None, "cache_bytes": 1},
}  # fmt: skip


class DataRoutes:
    """Answers of the routes about data sets, and what they were asked."""

    def __init__(self, page: Page, picture: Path) -> None:
        self.entries = [
            {"name": f"{word}.png", "key": word, "captions": [f"a {word}"], "tokens": 3, "width": 128, "height": 128}
            for word in ("cat", "boat", "house", "moon", "dog", "tree")
        ]
        self.edits: list[dict[str, Any]] = []
        self.picture = picture
        self.refuse = False
        page.route("**/studio/v1/training/datasets**", self.answer)

    def answer(self, route: Route) -> None:
        url, request = route.request.url, route.request
        if "thumbnail" in url:
            route.fulfill(path=self.picture, content_type="image/png")
        elif "inspect" in url and self.refuse:
            error = {"code": "dataset", "message": "There is no picture in /pictures.", "field": "path", "choices": []}
            route.fulfill(status=422, json={"error": error, "detail": error["message"]})
        elif "inspect" in url:
            route.fulfill(json=REPORT)
        elif request.method == "PUT":
            self.edits.append(request.post_data_json)
            route.fulfill(json={"name": request.post_data_json["name"], "former": ["before"]})
        elif "captions" in url:
            route.fulfill(json={"total": len(self.entries), "offset": 0, "entries": self.entries})
        elif "upload" in url:
            route.fulfill(json={"upload": "pictures"})
        else:
            route.fulfill(json=["pictures"])


@pytest.fixture(autouse=True)
def training(server: Server) -> Iterator[Path]:
    """No runs at the start, and a data set that is there; the processes are pretended ones."""
    server.studio.training._command = trainer(0.02)
    data = server.studio.paths.root / "datasets" / "pictures"
    data.mkdir(parents=True, exist_ok=True)
    yield data
    for record in server.studio.training.runs():
        server.studio.training.stop(record.id)
    deadline = time.monotonic() + 20
    while any(record.state in ("running", "paused") for record in server.studio.training.runs()):
        assert time.monotonic() < deadline
        server.studio.training.look()
        time.sleep(0.05)
    shutil.rmtree(server.studio.paths.runs, ignore_errors=True)
    server.studio.training.look()


def open_tab(page: Page) -> None:
    tab(page, "Train")
    page.wait_for_selector("form[data-ready=yes]")


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"#train_{name}").fill(value)


def routes(page: Page, tmp_path: Path) -> DataRoutes:
    picture = tmp_path / "thumb.png"
    Image.linear_gradient("L").convert("RGB").save(picture)
    return DataRoutes(page, picture)


def written(
    server: Server, steps: int, total: int = 300, stack: ExitStack | None = None, name: str = "duotone"
) -> RunFolder:
    """A run folder as a trainer that lives in this process writes it."""
    config = configuration(Path("/pictures"), name=name, steps=total, samples={"prompts": PROMPTS})
    run = new_run(TrainingConfig.model_validate(config.model_dump()), server.studio.paths.runs)
    if stack is not None:
        stack.enter_context(seated(run))
    run.append(StageStarted(time=time.time(), stage="cache-latents", step=0, total=24))
    run.append(StageStarted(time=time.time(), stage="train", step=0, total=total))
    for step in range(steps + 1):
        if step:
            run.append(step_done(step))
        if step % 25 == 0:
            run.append(Validated(time=time.time(), step=step, loss=0.17 / (1 + step / 30) + 0.01, best=True))
        if step % 100 == 0:
            paint(run, step, len(PROMPTS))
    run.log.write_text("reading the data set\n")
    return run


def test_from_the_form_to_the_prompt(open_page: Open, server: Server, tmp_path: Path) -> None:
    page = open_page(expected=("status of 422",))
    data = routes(page, tmp_path)
    open_tab(page)
    expect(page.locator("#train_empty")).to_contain_text("Nothing is trained yet")
    fill(page, "name", "Duo Tone")
    page.locator("#train_start").click()
    expect(page.locator("#train_name_error")).to_contain_text("Duo Tone")
    fill(page, "name", "duotone-style")
    fill(page, "data_path", "datasets/pictures")
    page.locator("#train_data_path").press("Enter")
    expect(page.locator("#train_data")).to_contain_text("24 pictures · 22 captions · 1 problem")
    expect(page.locator("#train_data")).to_contain_text("broken.png: the file is truncated.")
    expect(page.locator(".ls-data-tiles figure")).to_have_count(6)
    fill(page, "method_data_trigger", "duotone style")
    fill(page, "method_steps", "60")
    fill(page, "method_samples_prompts", "a fox\na boat")
    expect(page.locator(".ls-plan")).to_contain_text("60 steps")
    expect(page.locator(".ls-plan")).to_contain_text("passes over the data")
    page.locator("#train_method_steps").press("Control+Enter")
    expect(page.locator(FACTS)).to_contain_text("step ")
    expect(page.locator(f"{RUN} .ls-path.ls-line-smooth")).to_be_visible()
    use = page.locator("#train_run_actions").get_by_role("button", name="use in prompt")
    use.click(timeout=30_000)
    expect(page.locator(PROMPT)).to_have_value("duotone style, <lora:duotone-style:0.8>")
    (record,) = server.studio.training.runs()
    config = server.studio.training.detail(record.id).config
    assert config is not None
    assert config["method"]["samples"]["prompts"] == ["a fox", "a boat"]
    assert config["method"]["network"]["layers"] == "attention+feed-forward+conv"  # the first preset's
    assert config["method"]["data"]["resolution"] == 128  # the base's own
    assert data.edits == []
    (server.studio.paths.loras / "duotone-style.safetensors").unlink()


def test_captions_are_edited_in_place_and_a_bad_folder_is_said(open_page: Open, tmp_path: Path) -> None:
    page = open_page(expected=("status of 422",))
    data = routes(page, tmp_path)
    open_tab(page)
    (tmp_path / "pictures.zip").write_bytes(b"PK")
    page.locator("#train_zip").set_input_files(tmp_path / "pictures.zip")
    expect(page.locator("#train_data_path")).to_have_value("datasets/pictures")
    page.locator("#train_captions > summary").click()
    area = page.locator(".ls-caption textarea").first
    expect(area).to_have_value("a cat")
    area.fill("a duotone cat")
    area.press("Tab")
    expect(page.locator(".ls-toast.good", has_text="cat.png")).to_be_visible()
    page.get_by_role("button", name="undo").click()
    page.wait_for_timeout(100)
    assert [edit["captions"] for edit in data.edits] == [["a duotone cat"], ["before"]]
    data.refuse = True
    fill(page, "data_path", "datasets/empty")
    page.locator("#train_look").click()
    expect(page.locator("#train_data .ls-warning")).to_have_text("There is no picture in /pictures.")


def test_curves_and_samples_follow_the_folder(
    open_page: Open,
    server: Server,
    folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        run = written(server, 212, stack=stack)
        page = open_page(theme="dark")
        routes(page, tmp_path)
        open_tab(page)
        expect(page.locator(FACTS)).to_contain_text("step 212 / 300")
        expect(page.locator(".ls-sample-row")).to_have_count(4)
        expect(page.locator(".ls-sample-row").nth(1).locator(".ls-sample")).to_have_count(3)
        assert page.locator(".ls-sample-step").all_inner_texts() == ["base", "100", "200"]
        expect(page.locator("#train_run .ls-chips", has_text="cache latents")).to_be_visible()
        chart = page.locator(".ls-chart")
        chart.hover(position={"x": 300, "y": 100})
        expect(page.locator(".ls-chart-tip")).to_contain_text("smoothed")
        page.screenshot(path=folder / "train-dark.png")
        chart.focus()
        page.keyboard.press("End")
        expect(page.locator(".ls-chart-tip b")).to_have_text("step 212")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".ls-chart-tip b")).to_have_text("step 211")
        page.get_by_role("button", name="learning rate").click()
        expect(page.locator(".ls-path.ls-line-rate")).to_be_visible()
        page.get_by_role("button", name="log scale").click()
        for step in range(213, 301):
            run.append(step_done(step))
        paint(run, 300, 3)
        run.append(Noted(time=time.time(), message="The validation loss is the lowest so far."))
        expect(page.locator(FACTS)).to_contain_text("step 300 / 300")
        expect(page.locator(".ls-sample-row").nth(1).locator(".ls-sample")).to_have_count(4)
        expect(page.locator(RUN)).to_contain_text("the lowest so far")
        page.locator(".ls-sample-row").nth(1).locator("button").last.click()
        expect(page.locator(".ls-lightbox[open] .ls-lightbox-text")).to_have_text("a fox in the snow, step 300")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".ls-lightbox[open] .ls-lightbox-text")).to_have_text("a fox in the snow, step 200")
        page.keyboard.press("Escape")
        page.reload()
        tab(page, "Train")
        expect(page.locator(FACTS)).to_contain_text("step 300 / 300")
        run.append(RunFailed(time=time.time(), message="cuda:0 ran out of memory at step 300. Lower the batch."))
    expect(page.locator(f"{RUN} .ls-warning")).to_contain_text("ran out of memory")
    page.locator("#train_run details > summary").click()
    expect(page.locator("#train_log")).to_contain_text("reading the data set")
    page.screenshot(path=folder / "train-failed.png")


def test_wishes_by_buttons_and_keyboard_while_pictures_are_painted(
    open_page: Open, server: Server, tmp_path: Path
) -> None:
    run_id = server.studio.training.create(
        configuration(server.studio.paths.root / "datasets" / "pictures", steps=4000)
    ).id
    page = open_page()
    routes(page, tmp_path)
    open_tab(page)
    actions = page.locator("#train_run_actions")
    pause = actions.get_by_role("button", name="pause")
    pause.focus()
    page.keyboard.press("Enter")
    expect(page.locator(FACTS)).to_contain_text("pauses")
    actions.get_by_role("button", name="resume").click()
    expect(actions.get_by_role("button", name="pause")).to_be_visible()
    tab(page, "txt2img")
    generate(page, "a sun")
    expect(page.locator("#txt2img_stage")).to_have_attribute("id", "txt2img_stage")
    tab(page, "Train")
    expect(page.locator(f"[data-run='{run_id}']")).to_be_visible()
    actions.get_by_role("button", name="stop and save").click()
    expect(page.locator(FACTS)).to_contain_text("stopped, can resume", timeout=20_000)
    actions.get_by_role("button", name="duplicate").click()
    expect(page.locator("#train_method_steps")).to_have_value("4000")
    actions.get_by_role("button", name="delete").click()
    expect(page.locator("#train_runs")).to_contain_text("No run yet")


VIEWS = {
    "dark": ("dark", 1440, 960),
    "light": ("light", 1440, 960),
    "tablet": ("dark", 820, 1180),
    "narrow": ("light", 375, 800),
}


@pytest.mark.parametrize("view", VIEWS)
def test_looks(open_page: Open, server: Server, folder: Path, tmp_path: Path, view: str) -> None:  # noqa: F811
    theme, width, height = VIEWS[view]
    page = open_page(theme=theme, width=width, height=height)
    routes(page, tmp_path)
    open_tab(page)
    page.wait_for_timeout(150)
    fits(page)
    page.screenshot(path=folder / f"train-empty-{view}.png", full_page=width < 1000)
    with ExitStack() as stack:
        written(server, 212, stack=stack)
        old = written(server, 140, name="pastel")
        (old.path / "process.json").write_text(json.dumps({"pid": 1, "started": 1.0, "offset": 0}))
        failed = written(server, 40, name="pencil")
        failed.append(RunFailed(time=time.time(), message="3 steps in a row gave no numbers; lower the learning rate."))
        server.studio.training.create(configuration(server.studio.paths.root / "datasets" / "pictures", name="waiting"))
        server.studio.training.look()
        fill(page, "data_path", "datasets/pictures")
        page.locator("#train_data_path").press("Enter")
        expect(page.locator(".ls-data-tiles figure")).to_have_count(6)
        page.locator(".ls-run", has_text="duotone").locator(".ls-run-open").click()
        expect(page.locator(FACTS)).to_contain_text("step 212 / 300")
        expect(page.locator(".ls-sample-row")).to_have_count(4)
        page.wait_for_timeout(300)
        fits(page)
        page.screenshot(path=folder / f"train-running-{view}.png", full_page=True)
        page.locator("#train_more > summary").click()
        fits(page)
        page.screenshot(path=folder / f"train-more-{view}.png", full_page=True)
        page.locator(".ls-run", has_text="pencil").locator(".ls-run-open").click()
        expect(page.locator(f"{RUN} .ls-warning")).to_be_visible()
        page.wait_for_timeout(1300)
        page.screenshot(path=folder / f"train-failed-{view}.png", full_page=width < 1000)


@pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
def test_a_real_run_in_miniature(open_page: Open, server: Server, tmp_path: Path) -> None:
    server.studio.training._command = lambda run, device: worker_command(run, sys.executable, threads=1)
    method = {
        "kind": "judge",
        "data": {"pictures": 24, "unseen": 12, "side": 32},
        "channels": [8, 16],
        "steps": 6,
        "batch": 4,
    }
    run_id = server.studio.training.create(
        TrainingConfig.model_validate({"name": "tiny-judge", "seed": 5, "precision": "fp32", "method": method})
    ).id
    page = open_page()
    routes(page, tmp_path)
    open_tab(page)
    expect(page.locator(f"[data-run='{run_id}']")).to_contain_text("finished", timeout=120_000)
    expect(page.locator(FACTS)).to_contain_text("judge 6 / 6")
    expect(page.locator(".ls-legend")).to_contain_text("loss")
    page.locator("#train_run").get_by_role("button", name="draw", exact=True).click()
    expect(page.locator("#train_run").get_by_role("button", name="draw", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    (record,) = server.studio.training.runs()
    assert Path(record.summary.model, "model.safetensors").is_file()
