"""Live: the form is painted while one types, the newest wins, nothing is kept, and jobs go first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.conftest import READY, Open, Server
from tests.browser.steps import GENERATE, PROMPT, STAGE, choose, done, generate, intercept, messages, number, set_number

SWITCH = "#txt2img_live_switch"
WORDS = ".ls-livewords"
LIVE = ".ls-livecover img"
STEPS = "#txt2img_live_steps"


def asked(page: Page) -> list[dict[str, Any]]:
    """The bodies of the questions for live pictures, as they are sent."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/studio/v1/sketch"):
            bodies.append(json.loads(request.post_data or "{}"))

    page.on("request", note)
    return bodies


def switch_on(page: Page, prompt: str = "a sun") -> str:
    """Type, switch Live on, and wait for the first picture; its source."""
    page.locator(PROMPT).fill(prompt)
    page.locator(SWITCH).click()
    expect(page.locator(SWITCH)).to_have_attribute("aria-pressed", "true")
    return another(page, "")


def another(page: Page, than: str) -> str:
    """Wait until another finished picture is shown; its source."""
    expect(page.locator(STAGE)).to_have_attribute("data-live", "")
    expect(picture(page)).not_to_have_attribute("src", than)
    return picture(page).get_attribute("src") or ""


def picture(page: Page) -> Locator:
    """The live picture, unless it is a step of one that is still being painted."""
    return page.locator(".ls-livecover:not(.rough) > img[src^='blob:']")


def test_typing_and_sliders_paint_and_nothing_is_kept(page: Page, server: Server) -> None:
    before = len(server.studio.queue.jobs(limit=1000)), len(server.pictures)
    first = switch_on(page)
    assert page.locator(LIVE).evaluate("(image) => image.naturalWidth") > 0
    expect(page.locator(".ls-livecaption")).to_contain_text("live · 6 steps · ")
    expect(page.locator(".ls-livemeta")).to_contain_text("DPM++ 2M · SGM Uniform")
    page.locator(PROMPT).press_sequentially(" over a beach")
    second = another(page, first)
    set_number(page, "cfg_scale", 9)
    third = another(page, second)
    page.locator("#txt2img_cfg_scale input[type=range]").press("ArrowLeft")
    fourth = another(page, third)
    choose(page, "txt2img_sampling", "UniPC")
    another(page, fourth)
    expect(page.locator(".ls-livemeta")).to_contain_text("UniPC · SGM Uniform")
    assert server.engine.runs[-1].positive.text == "a sun over a beach"
    assert server.engine.runs[-1].steps == 6
    assert (len(server.studio.queue.jobs(limit=1000)), len(server.pictures)) == before
    expect(page.locator("#ls_queue_count b")).to_have_text("0")


def test_the_seed_is_drawn_once_and_the_die_draws_another(page: Page) -> None:
    bodies = asked(page)
    expect(number(page, "seed")).to_have_value("-1")
    first = switch_on(page)
    seed = number(page, "seed").input_value()
    assert seed != "-1"
    page.locator(PROMPT).fill("a moon")
    second = another(page, first)
    assert {body["seed"] for body in bodies} == {int(seed)}
    page.locator("#txt2img_random_seed").click()
    another(page, second)
    expect(number(page, "seed")).not_to_have_value(seed)
    expect(number(page, "seed")).not_to_have_value("-1")
    assert {body["seed"] for body in bodies} == {int(seed), int(number(page, "seed").input_value())}


def test_fast_typing_asks_seldom_and_what_does_not_matter_asks_nothing(page: Page) -> None:
    first = switch_on(page)
    bodies = asked(page)
    text = ", with some clouds and three small boats"
    page.locator(PROMPT).press_sequentially(text, delay=20)
    another(page, first)
    assert 0 < len(bodies) < len(text) / 2
    page.wait_for_timeout(500)
    assert bodies[-1]["prompt"] == f"a sun{text}"
    count = len(bodies)
    set_number(page, "steps", 33)
    set_number(page, "batch_count", 2)
    choose(page, "txt2img_scheduler", "Karras")
    page.wait_for_timeout(500)
    assert len(bodies) == count


def test_live_steps(page: Page, server: Server) -> None:
    first = switch_on(page)
    page.locator(STEPS).press("ArrowRight")
    page.locator(STEPS).press("ArrowRight")
    page.locator(STEPS).press("ArrowRight")
    another(page, first)
    expect(page.locator(".ls-livecaption")).to_contain_text("live · 8 steps")
    assert server.engine.runs[-1].steps == 8
    expect(page.locator("#ls_live output")).to_have_text("8")


def test_switched_off_it_asks_nothing_and_the_stage_is_back(page: Page, server: Server) -> None:
    generate(page, "a sun")
    done(page, server)
    switch_on(page)
    expect(page.locator(".ls-info")).to_be_hidden()
    bodies = asked(page)
    page.keyboard.press("Alt+l")
    expect(page.locator(SWITCH)).to_have_attribute("aria-pressed", "false")
    expect(page.locator(LIVE)).to_be_hidden()
    expect(page.locator("#ls_live")).to_be_hidden()
    expect(page.locator(".ls-info")).to_be_visible()
    page.locator(PROMPT).fill("a moon")
    page.wait_for_timeout(600)
    assert bodies == []


def test_it_is_remembered_in_this_browser(page: Page, server: Server) -> None:
    switch_on(page, "a sun")
    page.locator(STEPS).press("ArrowLeft")
    page.wait_for_timeout(700)  # the form is kept after half a second
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(SWITCH)).to_have_attribute("aria-pressed", "true")
    another(page, "")
    expect(page.locator(".ls-livecaption")).to_contain_text("live · 5 steps")
    assert server.engine.runs[-1].positive.text == "a sun"


def test_a_late_picture_is_not_shown_over_a_newer(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if json.loads(route.request.post_data or "{}")["prompt"] == "late":
            held.append(route)
        else:
            route.continue_()

    intercept(page, "**/studio/v1/sketch", hold)
    first = switch_on(page)
    page.locator(PROMPT).fill("late")
    while not held:
        page.wait_for_timeout(50)
    page.locator(PROMPT).fill("newest")
    newest = another(page, first)
    with page.expect_response("**/studio/v1/sketch") as answer:
        held[0].continue_()
    assert '"type":"image"' in answer.value.text(), "the late one was painted all the same"
    page.wait_for_timeout(300)
    assert picture(page).get_attribute("src") == newest


def test_a_newer_change_stops_what_is_painted(page: Page, server: Server) -> None:
    first = switch_on(page)
    server.engine.hold(before=2, prompt="stopped")
    bodies = asked(page)
    page.locator(PROMPT).fill("stopped")
    expect(page.locator("#ls_live .ls-dot")).to_have_class("ls-dot busy")
    page.locator(PROMPT).fill("newest")
    another(page, first)
    page.wait_for_timeout(300)
    assert [body["prompt"] for body in bodies] == ["stopped", "newest"]
    assert server.engine.runs[-1].positive.text == "newest"


def test_steps_of_a_slow_picture_are_shown(page: Page, server: Server) -> None:
    switch_on(page)
    server.engine.step_seconds = 1.0  # steps of a quick picture are not shown
    server.engine.hold(before=3)
    page.locator(PROMPT).fill("a slow sun")
    expect(page.locator(".ls-livecover.rough img")).to_be_visible()
    expect(page.locator(WORDS)).to_contain_text("step 2 / 6")
    server.engine.step_seconds = 0.01
    server.engine.go_on()
    expect(page.locator(".ls-livecover.rough")).to_have_count(0)
    expect(picture(page)).to_be_visible()


def test_generate_paints_the_whole_picture_and_it_stays(page: Page, server: Server) -> None:
    first = switch_on(page)
    seed = number(page, "seed").input_value()
    server.engine.hold(before=7)
    page.locator(PROMPT).fill("kept")
    page.get_by_role("button", name="keep").click()
    expect(page.locator(LIVE)).to_be_hidden()
    server.engine.go_on()
    done(page, server)
    newest = server.studio.queue.jobs(limit=1)[0]
    assert (newest.request.prompt, newest.request.steps, str(newest.request.seed)) == ("kept", 20, seed)
    page.wait_for_timeout(500)
    expect(page.locator(LIVE)).to_be_hidden()
    expect(page.locator(".ls-info")).to_contain_text("kept")
    page.locator(PROMPT).fill("after that")
    another(page, first)


def test_live_waits_while_a_job_runs(page: Page, server: Server) -> None:
    switch_on(page)
    server.engine.hold(before=7)
    page.locator(GENERATE).click()
    expect(page.locator(STAGE)).to_have_attribute("data-status", "running")
    page.locator(PROMPT).fill("a moon")
    expect(page.locator(WORDS)).to_have_text("waits for the queue")
    expect(page.locator(LIVE)).to_be_hidden()
    server.engine.go_on()
    another(page, "")
    assert [run.positive.text for run in server.engine.runs[-2:]] == ["a sun", "a moon"]


LATE = """
const listen = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (type, told, ...rest) {
  const late = (message) => setTimeout(() => told(message), /"type": ?"finished"/.test(message.data) ? 2500 : 0);
  return listen.call(this, type, type === "job" ? late : told, ...rest);
};
"""


def test_a_picture_is_shown_though_the_page_does_not_know_yet_that_the_job_is_done(page: Page, server: Server) -> None:
    """Live pictures and what happens to jobs come by two ways, and either may be the faster."""
    page.add_init_script(LATE)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    first = switch_on(page)
    server.engine.hold(before=7)
    page.locator(GENERATE).click()
    expect(page.locator(STAGE)).to_have_attribute("data-status", "running")
    page.locator(PROMPT).fill("a moon")
    expect(page.locator(WORDS)).to_have_text("waits for the queue")
    server.engine.go_on()
    another(page, first)
    expect(page.locator(STAGE)).to_have_attribute("data-status", "done")
    expect(page.locator(STAGE)).to_have_attribute("data-live", "")


def test_what_is_wrong_is_said_in_place_and_not_as_a_message(open_page: Open) -> None:
    page = open_page(expected=("400 (Bad Request)", "404 (Not Found)"))
    first = switch_on(page)
    page.locator(PROMPT).fill("a sun <lora:nobody:1>")
    expect(page.locator(WORDS)).to_contain_text("There is no LoRA named 'nobody'")
    expect(page.locator(".ls-livecover")).to_have_class("ls-livecover stale")
    page.locator(PROMPT).fill("fail")
    expect(page.locator(WORDS)).to_contain_text("too little memory")
    page.locator(PROMPT).fill("a moon")
    another(page, first)
    expect(page.locator(".ls-livecover")).to_have_class("ls-livecover")
    assert messages(page) == []


def test_the_live_picture_is_enlarged_and_follows(page: Page) -> None:
    first = switch_on(page)
    page.locator(LIVE).click()
    enlarged = page.locator("dialog[open] img")
    expect(enlarged).to_have_attribute("src", first)
    page.keyboard.press("Escape")
    expect(enlarged).to_have_count(0)


@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits(open_page: Open, width: int) -> None:
    page = open_page(width=width)
    switch_on(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [page.locator(place).bounding_box() for place in (GENERATE, "#txt2img_interrupt", "#txt2img_skip", SWITCH)]
    tops = {round(box["y"]) for box in boxes if box}
    heights = {round(box["height"]) for box in boxes if box}
    assert (len(boxes), len(tops), len(heights)) == (4, 1, 1), "one row of one height"
