"""The main job in a real browser: type, watch it being painted, get the file; queue, refresh, second browser."""

from __future__ import annotations

import io
import re
import zipfile

from PIL import Image
from playwright.sync_api import Page, Route, expect

from studio.schema.parts import Refiner, Variation
from tests.browser.conftest import READY, Open, Server
from tests.browser.steps import (
    GENERATE,
    NEGATIVE,
    PROMPT,
    STAGE,
    choose,
    done,
    generate,
    intercept,
    messages,
    number,
    queued,
    set_number,
    tab,
    unfold,
)


def test_from_prompt_to_file(page: Page, server: Server) -> None:
    server.engine.hold(before=7)
    before = len(server.pictures)
    set_number(page, "steps", 12)
    set_number(page, "seed", 4242)
    page.locator(NEGATIVE).fill("blurry")
    generate(page, "a (red fox:1.2) on a beach")
    expect(page.locator(".ls-meta")).to_contain_text(re.compile(r"step \d+ / 12 · σ [\d.]+"))
    expect(page.locator(".ls-meta")).to_contain_text("it/s")
    expect(page.locator("#txt2img_interrupt")).to_be_enabled()
    expect(page).to_have_title(re.compile(r"^\[\d+%\] "))
    server.engine.go_on()
    done(page, server)
    expect(page).to_have_title("Latent Studio")
    expect(page.locator("#txt2img_interrupt")).to_be_disabled()
    expect(page.locator(".ls-cell:not(.empty)")).to_have_count(12)
    expect(page.locator(".ls-cell.now")).to_contain_text("12")
    assert len(server.pictures) == before + 1
    file = server.pictures[-1]
    assert re.fullmatch(r"\d{5}-4242\.png", file.name)
    info = page.locator("#txt2img_stage .ls-info").inner_text()
    with Image.open(file) as picture:
        assert picture.text["parameters"] == info
    assert info.startswith("a (red fox:1.2) on a beach\nNegative prompt: blurry\nSteps: 12, Sampler: DPM++ 2M")
    shown = page.locator(".ls-picture").evaluate(
        "(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    )
    assert shown == [128, 128]


def test_an_empty_prompt_is_allowed(page: Page, server: Server) -> None:
    generate(page, "")
    done(page, server)
    assert server.engine.runs[-1].positive.text == ""


def test_steps_are_scrubbed_played_and_saved(page: Page, server: Server) -> None:
    set_number(page, "steps", 6)
    generate(page, "a harbour")
    done(page, server)
    urls = page.locator(".ls-cell img").evaluate_all("(all) => all.map((image) => image.dataset.url)")
    assert len(set(urls)) == 6
    page.locator(".ls-cell").nth(1).click()
    expect(page.locator(".ls-badge")).to_have_text("step 2")
    expect(page.locator(".ls-picture")).to_have_attribute("data-url", urls[1])
    page.locator(".ls-scrub input").fill("4")
    expect(page.locator(".ls-steptext")).to_contain_text("4/6 · σ")
    with page.expect_download() as saved:
        page.get_by_role("button", name="save step").click()
    assert saved.value.suggested_filename.endswith("-step-4-0.jpg")
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="open step").click()
    assert opened.value.url.endswith("/0/4/0.jpg")
    page.get_by_role("button", name="play steps").click()
    expect(page.locator(".ls-badge")).to_be_visible()
    expect(page.locator(".ls-steptext")).to_contain_text("6/6")
    page.locator(".ls-strip").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".ls-badge")).to_have_text("step 5")


def test_a_batch_has_its_pictures_and_each_its_strip(page: Page, server: Server) -> None:
    set_number(page, "steps", 5)
    set_number(page, "seed", 10)
    set_number(page, "batch_count", 2)
    set_number(page, "batch_size", 2)
    generate(page, "suns")
    done(page, server)
    tiles = page.locator(".ls-tiles .ls-tile")
    expect(tiles).to_have_count(4)
    seeds, strips = [], set()
    for index in range(4):
        tiles.nth(index).click()
        expect(page.locator(".ls-meta")).to_contain_text(f"image {index + 1} of 4")
        seeds.append(re.search(r"Seed: (\d+)", page.locator("#txt2img_stage .ls-info").inner_text()))
        strips.add(page.locator(".ls-cell img").first.get_attribute("data-url"))
    assert [found and found[1] for found in seeds] == ["10", "11", "12", "13"]
    assert len(strips) == 4
    with page.expect_download() as saved:
        page.get_by_role("button", name="zip").click()
    with zipfile.ZipFile(io.BytesIO(saved.value.path().read_bytes())) as archive:
        assert len(archive.namelist()) == 4
    with page.expect_download() as one:
        page.locator(".ls-actions").get_by_role("button", name="save").click()
    assert one.value.suggested_filename.endswith("-13.png")


def test_refresh_while_it_runs(page: Page, server: Server) -> None:
    server.engine.hold(before=7)
    page.locator(NEGATIVE).fill("fog")
    choose(page, "txt2img_sampling", "Euler a")
    set_number(page, "steps", 40)
    generate(page, "a castle at night")
    expect(page.locator(".ls-cell:not(.empty)").nth(3)).to_be_visible()
    page.locator(NEGATIVE).fill("fog, typed a moment before the refresh")
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(PROMPT)).to_have_value("a castle at night")
    expect(page.locator(NEGATIVE)).to_have_value("fog, typed a moment before the refresh")
    expect(page.locator("#txt2img_sampling input")).to_have_value("Euler a")
    expect(number(page, "steps")).to_have_value("40")
    expect(page.locator(".ls-meta")).to_contain_text("/ 40")
    expect(page.locator(".ls-cell:not(.empty)").first).to_contain_text("1")
    first = page.locator(".ls-cell.now b").inner_text()
    server.engine.go_on()
    done(page, server)
    assert int(first) == 6
    expect(page.locator(".ls-cell:not(.empty)")).to_have_count(40)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("a castle at night")
    expect(page.locator(".ls-cell:not(.empty)")).to_have_count(40)


def test_the_page_comes_up_in_whatever_order_it_is_drawn(page: Page) -> None:
    """The script may be there long before Gradio's parts are."""
    page.locator(PROMPT).fill("a castle at noon")
    page.wait_for_timeout(700)  # what was typed is kept after half a second
    intercept(page, "**/assets/Index-*.js", lambda route: (page.wait_for_timeout(60), route.continue_()))
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(PROMPT)).to_have_value("a castle at noon")


def test_a_second_browser_sees_the_same_job_but_its_own_form(open_page: Open, server: Server) -> None:
    first = open_page()
    server.engine.hold(before=7)
    set_number(first, "steps", 30)
    generate(first, "seen by both")
    expect(first.locator(".ls-meta")).to_contain_text("step")
    second = open_page(other=True)
    expect(second.locator(".ls-meta")).to_contain_text("/ 30")
    expect(second.locator("#txt2img_queue")).to_contain_text("seen by both")
    expect(second.locator(PROMPT)).to_have_value("")
    server.engine.go_on()
    done(second, server)
    shown = second.locator(".ls-picture").get_attribute("data-url") or ""
    expect(first.locator(".ls-picture")).to_have_attribute("data-url", shown)


def test_queue_of_three_with_one_cancelled(page: Page, server: Server) -> None:
    server.engine.hold(before=7)
    set_number(page, "steps", 10)
    for prompt in ("first job", "second job", "third job"):
        generate(page, prompt)
        expect(page.locator("#txt2img_queue")).to_contain_text(prompt)
    expect(page.locator("#ls_queue_count")).to_contain_text("3")
    rows = page.locator(".ls-job.wait")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("third job")
    expect(rows.nth(1).locator(".ls-place")).to_have_text("2")
    page.locator(".ls-job.wait", has_text="second job").get_by_role("button").click()
    expect(rows).to_have_count(1)
    expect(rows.first.locator(".ls-place")).to_have_text("1")
    server.engine.go_on()
    expect(page.locator(".ls-job")).to_have_count(0)
    statuses = {job.request.prompt: job.status for job in server.studio.queue.jobs(limit=3)}
    assert statuses == {"first job": "done", "second job": "cancelled", "third job": "done"}
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("third job")
    page.locator(".ls-recent .ls-tile").nth(1).click()
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("first job")


def test_interrupt_skip_and_a_way_back_to_what_runs(page: Page, server: Server) -> None:
    generate(page, "kept")
    done(page, server)
    server.engine.hold(before=7)
    set_number(page, "batch_count", 3)
    generate(page, "skipped and stopped")
    expect(page.locator(".ls-meta")).to_contain_text("image 1 of 3")
    page.locator("#txt2img_skip").click()
    expect(page.locator(".ls-meta")).to_contain_text("image 2 of 3")
    page.locator(".ls-recent .ls-tile").first.click()
    expect(page.locator("#txt2img_stage .ls-info")).to_contain_text("kept")
    page.get_by_role("button", name="Back to the running job").click()
    expect(page.locator(".ls-meta")).to_contain_text("image 2 of 3")
    page.locator(PROMPT).focus()
    page.keyboard.press("Escape")
    expect(page.locator("#txt2img_interrupt")).to_be_disabled()
    expect(page.locator(".ls-stage")).to_contain_text("Stopped before the first picture")
    done(page, server, "cancelled")


def test_a_wish_to_stop_hits_the_job_it_was_meant_for(page: Page, server: Server) -> None:
    server.engine.hold(before=2)
    set_number(page, "batch_count", 2)
    asked: list[Route] = []
    for prompt in ("first to stop", "second to stop"):
        generate(page, prompt)
    expect(page.locator(".ls-job")).to_have_count(2)
    expect(page.locator(".ls-job.run")).to_contain_text("first to stop")
    expect(page.locator(".ls-meta")).to_contain_text("step 1 /")  # it is on the stage, and held there
    expect(page.locator("#txt2img_skip")).to_be_enabled()
    page.locator(PROMPT).focus()
    expect(page.locator(PROMPT)).to_be_focused()
    keep = re.compile("/(interrupt|cancel|skip)$")
    intercept(page, keep, lambda route: asked.append(route))
    with page.expect_request(keep):
        page.keyboard.press("Alt+Enter")
    with page.expect_request(keep):
        page.keyboard.down("Escape")
    first, second = sorted(server.studio.queue.jobs(active=True), key=lambda job: job.id)
    server.studio.queue.cancel(first.id)
    expect(page.locator(".ls-job.run")).to_contain_text("second to stop")
    for _ in range(4):
        page.keyboard.down("Escape")  # it repeats
    page.keyboard.up("Escape")
    assert len(asked) == 2
    for route in asked:
        route.fulfill(response=route.fetch())  # late
    running = server.studio.queue.running()
    assert running is not None and (running.job.id, running.asked) == (second.id, "none")
    page.unroute(keep)
    page.keyboard.press("Alt+Enter")
    expect(page.locator(".ls-meta")).to_contain_text("image 2 of 2")
    server.engine.go_on()
    done(page, server)


def test_who_stands_in_the_queue_keeps_the_place(page: Page, server: Server) -> None:
    own = "document.activeElement === window.mine"
    server.engine.hold(before=2)
    for prompt in ("runs first", "is taken out", "stays"):
        generate(page, prompt)
    request = server.studio.queue.jobs(limit=1)[0].request
    rows = page.locator(".ls-job.wait")
    expect(rows).to_have_count(2)
    rows.first.get_by_role("button").focus()
    page.evaluate("window.mine = document.activeElement")
    server.studio.submit(request.model_copy(update={"prompt": "comes later"}))
    expect(rows).to_have_count(3)
    assert page.evaluate(own)
    page.keyboard.press("Enter")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("stays")
    expect(rows.first.get_by_role("button")).to_be_focused()
    server.engine.go_on()
    expect(page.locator(".ls-job")).to_have_count(0)
    tile = page.locator(".ls-recent .ls-tile").first
    tile.focus()
    page.evaluate("window.mine = document.activeElement")
    server.studio.submit(request.model_copy(update={"prompt": "comes last"}))
    expect(tile).to_have_attribute("title", re.compile("comes last"))
    assert page.evaluate(own)


def test_a_failed_job_says_why_and_can_be_tried_again(page: Page, server: Server) -> None:
    generate(page, "fail once")
    row = page.locator(".ls-job.bad").first
    expect(row).to_contain_text("too little memory for fail once")
    expect(page.locator(".ls-warning")).to_contain_text("too little memory")
    expect(page.locator(PROMPT)).to_have_value("fail once")
    jobs = len(server.studio.queue.jobs(limit=1000))
    with page.expect_response("**/retry"):
        row.get_by_role("button", name="retry").evaluate("(node) => { node.click(); node.click(); }")
    done(page, server, "failed")
    assert len(server.studio.queue.jobs(limit=1000)) == jobs + 1
    expect(page.locator(".ls-job.bad")).to_have_count(1)
    page.locator(".ls-job.bad").get_by_role("button", name="Put aside").click()
    expect(page.locator(".ls-job")).to_have_count(0)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(STAGE)).to_have_attribute("data-job", re.compile(r"\d"))
    expect(page.locator(".ls-job")).to_have_count(0)


def test_a_finished_picture_takes_the_message_of_a_failure_away(page: Page, server: Server) -> None:
    generate(page, "fail and be forgotten")
    complaint = page.locator(".ls-toast.bad", has_text="too little memory")
    expect(complaint).to_be_visible()
    complaint.hover()  # it stays as long as somebody points at it
    page.locator(PROMPT).fill("a lake")
    with queued(page):
        page.locator(PROMPT).press("Control+Enter")
    done(page, server)
    expect(complaint).to_have_count(0)
    page.locator(".ls-job.bad", has_text="be forgotten").get_by_role("button", name="Put aside").click()


def test_bad_values_get_a_message_and_nothing_is_lost(page: Page, server: Server) -> None:
    jobs = len(server.studio.queue.jobs(limit=1000))
    generate(page, "a fox <lora:unheard-of:1>")
    expect(page.locator(".ls-toast.bad")).to_contain_text("no LoRA named 'unheard-of'")
    expect(page.locator("#txt2img_prompt")).to_have_class(re.compile("ls-wrong"))
    page.locator(PROMPT).fill("x" * 60_000)
    page.locator(GENERATE).click()
    expect(page.locator(".ls-toast.bad", has_text="50,000 characters")).to_be_visible()
    assert len(page.locator(PROMPT).input_value()) == 60_000
    page.locator(PROMPT).fill("still here")
    number(page, "seed").fill("99999999999")
    number(page, "seed").press("Control+Enter")
    expect(page.locator(".ls-toast.bad", has_text="seed = 99999999999")).to_be_visible()
    assert len(server.studio.queue.jobs(limit=1000)) == jobs
    assert messages(page)


def test_the_checkpoint_is_chosen_in_the_row_and_in_the_library(page: Page, server: Server) -> None:
    choose(page, "setting_sd_model_checkpoint", "ash")
    expect(number(page, "width")).to_have_value("512")
    tab(page, "Library")
    page.locator("#library_models").click()
    page.locator(".ls-model", has_text="oak").get_by_role("button", name="use").click()
    tab(page, "txt2img")
    expect(page.locator("#setting_sd_model_checkpoint input")).to_have_value(re.compile("^oak"))
    expect(number(page, "width")).to_have_value("128")
    expect(page.locator(".ls-toast.good")).to_contain_text("oak")
    page.wait_for_timeout(100)
    assert server.studio.settings.sd_model_checkpoint == "oak"


def test_sizes_and_seeds(page: Page, server: Server) -> None:
    page.locator("#txt2img_sizes").get_by_role("button", name="16:9").click()
    expect(number(page, "width")).to_have_value("168")
    expect(number(page, "height")).to_have_value("96")
    page.locator("#txt2img_res_switch_btn").click()
    expect(number(page, "width")).to_have_value("96")
    set_number(page, "steps", 2)
    set_number(page, "seed", 77)
    generate(page, "seeds")
    done(page, server)
    page.locator("#txt2img_random_seed").click()
    expect(number(page, "seed")).to_have_value("-1")
    page.locator("#txt2img_reuse_seed").click()
    expect(number(page, "seed")).to_have_value("77")


def test_a_variation_is_asked_for_and_its_seed_comes_back(page: Page, server: Server) -> None:
    unfold(page, "txt2img_subseed_show")
    for name, value in {"steps": 2, "seed": 7, "batch_size": 2, "subseed": 20, "subseed_strength": 0.5}.items():
        set_number(page, name, value)
    generate(page, "a varied fox")
    done(page, server)
    request = server.studio.queue.jobs(limit=1)[0].request
    assert request.seed == 7
    assert request.variation == Variation(seed=20, strength=0.5)
    page.locator("#txt2img_random_subseed").click()
    expect(number(page, "subseed")).to_have_value("-1")
    page.locator("#txt2img_reuse_subseed").click()
    expect(number(page, "subseed")).to_have_value(re.compile("^2[01]$"))
    set_number(page, "subseed_strength", 0)
    generate(page)
    done(page, server)
    assert server.studio.queue.jobs(limit=1)[0].request.variation is None


def test_a_refiner_is_chosen_and_a_reload_keeps_it(page: Page, server: Server) -> None:
    unfold(page, "txt2img_refiner")
    choose(page, "txt2img_checkpoint", "ash")
    set_number(page, "switch_at", 0.6)
    generate(page, "a fox")
    done(page, server)
    asked = server.studio.queue.jobs(limit=1)[0].request
    assert asked.refiner == Refiner(checkpoint="ash", switch_at=0.6)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    unfold(page, "txt2img_refiner")
    expect(page.locator("#txt2img_checkpoint input")).to_have_value(re.compile("^ash"))
    choose(page, "txt2img_checkpoint", "None")
    generate(page)
    done(page, server)
    assert server.studio.queue.jobs(limit=1)[0].request.refiner is None
