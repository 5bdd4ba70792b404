"""The Train tab: a run from the form to the prompt, curves that follow the folder, and what happens when things go wrong.

The process that trains is the pretended one of `tests.runs.pretend`; for screenshots see `tests.browser.views`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import APIResponse, Page, Route, expect

from studio.schema.training import TrainingConfig
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.runs import (
    CommandDone,
    Measured,
    Noted,
    RunFailed,
    RunFolder,
    StageStarted,
    Validated,
    new_run,
    worker_command,
)
from tests.browser.conftest import Open, Server
from tests.browser.steps import PROMPT, STAGE, done, generate, intercept, tab
from tests.browser.views import DEVICES, VIEWS, look, picture
from tests.library import models
from tests.runs.pretend import configuration, paint, seated, step_done, trainer

RUN, FACTS = "#train_run", "#train_run_facts"
PROMPTS = ["a fox in the snow", "two red hearts", "a boat at night"]
WORDS = ("boat", "cat", "dog", "house", "moon", "tree")


@pytest.fixture(autouse=True)
def training(server: Server) -> Iterator[Path]:
    """No runs at the start, and a data set of six pictures, five captions and a broken file; the processes are pretended ones."""
    server.studio.training._command = trainer(0.02)
    data = server.studio.paths.datasets / "pictures"
    drawn(data)
    yield data
    for record in server.studio.training.runs():
        server.studio.training.stop(record.id)
    deadline = time.monotonic() + 20
    while any(record.state in ("running", "paused") for record in server.studio.training.runs()):
        assert time.monotonic() < deadline
        server.studio.training.look()
        time.sleep(0.05)
    shutil.rmtree(server.studio.paths.runs, ignore_errors=True)
    shutil.rmtree(server.studio.paths.datasets, ignore_errors=True)
    server.studio.training.look()


def drawn(place: Path) -> Path:
    """Six discs, all but the moon with a caption, and a file that is no picture."""
    place.mkdir(parents=True)
    for number, word in enumerate(WORDS):
        picture = Image.new("RGB", (160, 96) if word == "boat" else (128, 128), (40, 40, 120))
        ImageDraw.Draw(picture).ellipse((20 + 5 * number, 20, 90, 90), fill=(220, 60 + 20 * number, 60))
        picture.save(place / f"{word}.png")
        if word != "moon":
            (place / f"{word}.txt").write_text(f"a {word}")
    (place / "broken.png").write_bytes(b"\x89PNG oh")
    return place


def open_tab(page: Page) -> None:
    tab(page, "Train")
    page.wait_for_selector("form[data-ready=yes]")


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"#train_{name}").fill(value)


def written(
    server: Server, steps: int, total: int = 300, stack: ExitStack | None = None, name: str = "duotone"
) -> RunFolder:
    """A run folder as a trainer that lives in this process writes it."""
    config = configuration(Path("/pictures"), name=name, steps=total, samples={"prompts": PROMPTS})
    run = new_run(TrainingConfig.model_validate(config.model_dump()), server.studio.paths.runs)
    if stack is not None:
        stack.enter_context(seated(run))
    run.append(StageStarted(time=time.time(), stage="cache-latents", step=0, total=24))
    run.append(Measured(time=time.time(), stage="train", values={"epoch_steps": 24}))
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


def test_from_the_form_to_the_prompt(open_page: Open, server: Server) -> None:
    page = open_page(expected=("status of 422",))
    open_tab(page)
    expect(page.locator("#train_empty")).to_contain_text("Nothing is trained yet")
    fill(page, "name", "Duo Tone")
    page.locator("#train_start").click()
    expect(page.locator("#train_name_error")).to_contain_text("Duo Tone")
    fill(page, "name", "duotone-style")
    fill(page, "data_path", "datasets/pictures")
    page.locator("#train_data_path").press("Enter")
    expect(page.locator("#train_data")).to_contain_text("6 pictures · 5 captions · 1 problem")
    expect(page.locator("#train_data")).to_contain_text("broken.png")
    expect(page.locator("#train_data")).to_contain_text("1 without caption")
    expect(page.locator(".ls-data-tiles figure")).to_have_count(6)
    page.locator("#train_captioner").select_option("blip")
    expect(page.locator("#train_captioner_says")).to_contain_text("put config.json, model.safetensors")
    expect(page.locator("#train_captioner_go")).to_be_disabled()
    page.locator("#train_captioner").select_option("file-name")
    page.locator("#train_captioner_go").click()
    expect(page.locator("#train_captioner_says")).to_contain_text("1 caption written · 5 kept", timeout=60_000)
    expect(page.locator("#train_data")).to_contain_text("6 pictures · 6 captions")
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
    (server.studio.paths.loras / "duotone-style.safetensors").unlink()


def test_captions_are_edited_in_place_and_a_bad_folder_is_said(open_page: Open, server: Server, tmp_path: Path) -> None:
    page = open_page(expected=("status of 422",))
    open_tab(page)
    folder = drawn(tmp_path / "discs")
    (folder / "raw.cr2").write_bytes(b"raw")
    archive = shutil.make_archive(str(tmp_path / "discs"), "zip", folder)
    page.locator("#train_zip").set_input_files(archive)
    expect(page.locator("#train_data_path")).to_have_value("datasets/discs")
    expect(page.locator(".ls-toast", has_text="1 file of discs.zip stayed out")).to_contain_text("raw.cr2")
    expect(page.locator("#train_data")).to_contain_text("6 pictures · 5 captions · 1 problem")
    expect(page.locator(".ls-data-tiles img").first).to_have_js_property("naturalWidth", 160)
    file = server.studio.paths.datasets / "discs" / "cat.txt"
    page.locator("#train_captions > summary").click()
    area = page.locator(".ls-caption", has_text="cat.png").locator("textarea")
    expect(area).to_have_value("a cat")
    area.fill("a duotone cat")
    area.press("Tab")
    expect(page.locator(".ls-toast.good", has_text="cat.png")).to_be_visible()
    assert file.read_text().strip() == "a duotone cat"
    page.get_by_role("button", name="undo").click()
    expect(area).to_have_value("a cat")
    assert file.read_text().strip() == "a cat"
    # What would else be told only to who points at it, or to nobody: names in lists, the reason of a failure.
    data = page.locator("#train_data")
    shutil.copy(folder / "cat.png", server.studio.paths.datasets / "discs" / "lynx.png")
    wrong = {
        "state": "done",
        "written": 1,
        "kept": 0,
        "problems": ["dog.png: too dark"],
        "problem_count": 3,
        "done": 3,
        "total": 3,
    }
    intercept(page, "**/datasets/captioning", lambda route: route.fulfill(json=wrong))
    page.locator("#train_look").click()
    for head, line in {
        "pictures without a caption": "moon.png",
        "doubles": "cat.png = lynx.png",
        "what went wrong": "too dark",
    }.items():
        data.get_by_text(head, exact=True).click()
        expect(data.get_by_role("listitem").filter(has_text=line)).to_be_visible()
    expect(data.get_by_text("and 2 more")).to_be_visible()
    (server.studio.paths.datasets / "empty").mkdir()
    fill(page, "data_path", "datasets/empty")
    page.locator("#train_look").click()
    expect(data.get_by_role("alert")).to_contain_text("empty holds no data set. Looked for: ")
    expect(data.locator(".ls-data-facts")).to_have_text("")


def test_curves_and_samples_follow_the_folder(
    open_page: Open,
    server: Server,
) -> None:
    with ExitStack() as stack:
        run = written(server, 212, stack=stack)
        page = open_page(theme="dark")
        open_tab(page)
        expect(page.locator(FACTS)).to_contain_text("step 212 / 300")
        expect(page.locator(".ls-sample-row")).to_have_count(4)
        expect(page.locator("#train_run_about")).to_have_text(re.compile(f"LoRA on sprout-v1 · created .* · {run.id}"))
        expect(page.locator(".ls-sample-row").nth(1).locator(".ls-sample")).to_have_count(3)
        assert page.locator(".ls-sample-step").all_inner_texts() == ["base", "100", "200"]
        expect(page.locator("#train_run .ls-chips", has_text="cache latents")).to_be_visible()
        chart = page.locator(".ls-chart")
        chart.hover(position={"x": 300, "y": 100})
        expect(page.locator(".ls-chart-tip")).to_contain_text("smoothed")
        picture(page, "train-dark")
        chart.focus()
        page.keyboard.press("End")
        expect(page.locator(".ls-chart-tip b")).to_have_text("step 212")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".ls-chart-tip b")).to_have_text("step 211")
        expect(page.locator(".ls-path.ls-line-epoch")).to_be_visible()
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
    picture(page, "train-failed-late")


@pytest.mark.slow
def test_wishes_by_buttons_and_keyboard_while_pictures_are_painted(open_page: Open, server: Server) -> None:
    run_id = server.studio.training.create(
        configuration(server.studio.paths.root / "datasets" / "pictures", steps=4000)
    ).id
    page = open_page(expected=("status of 404",))  # a run may be read once more while it is being deleted
    open_tab(page)
    actions = page.locator("#train_run_actions")
    pause = actions.get_by_role("button", name="pause")
    pause.focus()
    page.keyboard.press("Enter")
    expect(page.locator(FACTS)).to_contain_text("pauses")
    actions.get_by_role("button", name="resume").click(timeout=60_000)  # once the process has started and heard of it
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


def test_an_answer_that_comes_late_undoes_no_news(open_page: Open, server: Server) -> None:
    with ExitStack() as stack:
        run = written(server, 50, stack=stack)
        page = open_page()
        open_tab(page)
        actions = page.locator("#train_run_actions")
        held: list[tuple[Route, APIResponse]] = []
        intercept(page, "**/training/runs/*/pause", lambda route: held.append((route, route.fetch())))
        actions.get_by_role("button", name="pause").click()
        run.append(step_done(51))
        expect(page.locator(FACTS)).to_contain_text("step 51")
        ((route, response),) = held
        run.append(CommandDone(time=time.time(), name="paused", step=51))
        expect(page.locator(FACTS)).to_contain_text("pauses")
        assert response.json()["state"] == "running"
        with page.expect_response("**/training/runs/*/pause"):
            route.fulfill(response=response)
        page.wait_for_timeout(300)
        expect(page.locator(FACTS)).to_contain_text("pauses")
        expect(actions.get_by_role("button", name="resume")).to_be_visible()


def test_from_a_picture_one_click_leads_to_the_run_of_its_lora(open_page: Open, server: Server, tmp_path: Path) -> None:
    written(server, 4, name="other")
    run, loras = written(server, 12, name="scarlet"), server.studio.paths.loras
    made = {"scarlet": run.id, "stranger": "stranger-0123456789"}
    for number, (name, run_id) in enumerate(made.items(), 20):
        facts = {"studio.run": run_id, "sshs_model_hash": f"{number:064x}"[::-1]}
        models.save(loras / f"{name}.safetensors", models.LORA, facts, number)
    server.studio.library.refresh()
    try:
        page = open_page()
        generate(page, "a sun <lora:scarlet:0.5> <lora:stranger:0.5> <lora:ink:0.2>")
        done(page, server)
        links = page.locator(STAGE).locator(".ls-trained")
        expect(links).to_have_text(["trained in scarlet", "trained in stranger-0123456789"])
        expect(links.last).to_be_disabled()
        links.last.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".ls-toast.warn")).to_contain_text("not in outputs/runs any more")
        links.first.click()
        expect(page.locator("#train_run_name")).to_have_text("scarlet")
        tab(page, "PNG Info")
        page.locator("#pnginfo_image").set_input_files(server.pictures[-1])
        page.locator(".ls-run", has_text="other").locator(".ls-run-open").dispatch_event("click")
        page.locator("#pnginfo_runs").get_by_role("button", name="trained in scarlet").click()
        expect(page.locator("#train_run_name")).to_have_text("scarlet")
        tab(page, "txt2img")
        places = page.locator(".ls-pick-place")
        expect(places.filter(has_text="ink").locator(".ls-trained")).to_have_count(0)
        server.studio.training.delete(run.id)
        card = places.filter(has=page.locator("[data-trained]")).filter(has_text="scarlet").locator(".ls-trained")
        expect(card).to_be_disabled()
        expect(card).to_have_text(f"trained in {run.id}")
        expect(links.first).to_be_disabled()
        tab(page, "Library")
        page.locator(".ls-gallery .ls-tile").first.click()
        expect(page.locator(".ls-detail .ls-trained").first).to_have_text(f"trained in {run.id}")
        page.locator("#library_loras").click()
        expect(page.locator(".ls-model", has_text="stranger").locator(".ls-trained")).to_be_disabled()
    finally:
        for name in made:
            (loras / f"{name}.safetensors").unlink()
        server.studio.library.refresh()


@pytest.mark.parametrize("device", DEVICES)
def test_looks(open_page: Open, server: Server, device: str) -> None:
    theme, width, height = VIEWS[DEVICES[device][0]]
    page = open_page(theme=theme, width=width, height=height)
    open_tab(page)
    look(page, device, "train-empty")
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
        look(page, device, "train-running")
        page.locator("#train_more > summary").click()
        look(page, device, "train-more")
        page.locator(".ls-run", has_text="pencil").locator(".ls-run-open").click()
        expect(page.locator(f"{RUN} .ls-warning")).to_be_visible()
        look(page, device, "train-failed")


@pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
def test_a_real_run_in_miniature(open_page: Open, server: Server) -> None:
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
