"""Answers that come late, twice, in another order or not at all: what the page shows and keeps then."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from playwright.sync_api import APIResponse, Page, Route, expect

from studio.ui.static import assets_url
from tests.browser.conftest import READY, Open, Server
from tests.browser.painter import scene
from tests.browser.steps import GENERATE, PROMPT, STAGE, done, drop, generate, intercept, stored, tab
from tests.browser.test_img2img import begin_with, canvas_share, stroke


class Held:
    """Answers of one route, kept back until they are let go."""

    def __init__(self, page: Page, pattern: str) -> None:
        self.page, self.pattern = page, pattern
        self.answers: list[tuple[Route, APIResponse]] = []
        intercept(page, pattern, self._take)

    def _take(self, route: Route) -> None:
        self.answers.append((route, route.fetch()))

    def wait(self, count: int = 1) -> None:
        """Until so many were asked for."""
        deadline = time.monotonic() + 20
        while len(self.answers) < count:
            assert time.monotonic() < deadline
            self.page.wait_for_timeout(20)

    def let_go(self, *order: int) -> None:
        """Give the answers out, in this order, and ask for more in the usual way."""
        for number in order:
            route, response = self.answers[number]
            with self.page.expect_event("requestfinished", lambda request, url=route.request.url: request.url == url):
                route.fulfill(response=response)
        self.page.unroute(self.pattern, self._take)
        self.page.wait_for_timeout(200)


def picture_with(text: str, file: Path) -> Path:
    carried = PngImagePlugin.PngInfo()
    carried.add_text("parameters", text)
    Image.fromarray(scene(64, 64, 7).astype(np.uint8)).save(file, pnginfo=carried)
    return file


def test_what_is_typed_while_the_server_is_away_is_there_after_a_reload(open_page: Open) -> None:
    page = open_page(expected=("ERR_FAILED",))
    page.locator(PROMPT).fill("a boat")
    with stored(page, "a boat at night"):
        page.locator(PROMPT).fill("a boat at night")
    intercept(page, "**/form/*", lambda route: route.abort())
    with page.expect_event("requestfailed", lambda request: "in the morning" in (request.post_data or "")):
        page.locator(PROMPT).fill("a boat in the morning")
    page.unroute("**/form/*")
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(PROMPT)).to_have_value("a boat in the morning")
    assert (
        page.evaluate("Object.keys(sessionStorage).filter((key) => key.includes('unsent'))") == []
    )  # taken once, it is not sent again


def test_a_form_that_was_not_answered_goes_on(open_page: Open, server: Server) -> None:
    """Gradio would hear nothing more of the form, and load the page again as soon as the server is back."""
    page = open_page(expected=("ERR_FAILED", "502", "ERR_CONNECTION"))
    page.evaluate("window.mark = 'the same page'")
    page.locator(PROMPT).fill("a boat")
    intercept(page, "**/gradio_api/**", lambda route: route.abort())
    page.locator(GENERATE).click()
    expect(page.locator(".ls-toast.bad")).to_have_text(
        re.compile("The server does not answer. What stands in the form")
    )
    page.locator("#refresh_sd_model_checkpoint").click()
    page.locator(PROMPT).fill("a boat at night")
    page.unroute("**/gradio_api/**")
    intercept(page, "**/gradio_api/run/**", lambda route: route.fulfill(status=502, body="<html>Bad Gateway</html>"))
    page.locator(GENERATE).click()
    expect(page.locator(".ls-toast.bad", has_text="The server, or a proxy before it, answered 502")).to_be_visible()
    expect(page.locator(".toast-body")).to_have_count(0)  # Gradio's own
    page.unroute("**/gradio_api/run/**")
    with stored(page, "a boat in the morning"):
        page.locator(PROMPT).fill("a boat in the morning")
    generate(page)
    done(page, server)
    assert server.studio.queue.jobs(limit=1)[0].request.prompt == "a boat in the morning"
    expect(page.locator(".ls-toast.bad")).to_have_count(0)
    assert page.evaluate("window.mark") == "the same page"


def test_a_job_that_fails_before_its_answer_comes_is_told_of(open_page: Open, server: Server) -> None:
    """The answer takes away the messages of before, and with them it took that of its own job."""
    page = open_page()
    held = Held(page, "**/gradio_api/run/**")
    page.locator(PROMPT).fill("fail at once")
    page.locator(GENERATE).click()
    held.wait()
    complaint = page.locator(".ls-toast.bad", has_text="too little memory for fail at once")
    expect(complaint).to_be_visible()
    held.let_go(0)
    done(page, server, "failed")
    expect(complaint).to_have_count(1)


def test_a_form_that_comes_late_is_waited_for(open_page: Open, server: Server) -> None:
    page = open_page(expected=("ERR_FAILED",))
    with stored(page, "a boat at night"):
        page.locator(PROMPT).fill("a boat at night")
    browser = page.evaluate("localStorage.getItem('latent-studio-browser')")
    held: list[Route] = []
    intercept(page, "**/gradio_api/run/**", lambda route: held.append(route))
    page.reload()
    expect(page.locator(".ls-toast.wait")).to_have_text("The form is still being fetched…")
    form = page.locator("#txt2img_settings")
    assert form.evaluate("(node) => node.inert")
    held.pop().abort()
    again = page.get_by_role("button", name="load the page again")
    expect(again).to_be_visible()
    expect(page.locator(".ls-toast.wait")).to_have_count(0)
    assert form.evaluate("(node) => node.inert")
    again.click()
    expect(page.locator(".ls-toast.wait")).to_be_visible()
    held.pop().continue_()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(PROMPT)).to_have_value("a boat at night")
    expect(page.locator(".ls-toast.wait")).to_have_count(0)
    assert not form.evaluate("(node) => node.inert")
    saved = server.studio.load_form(browser)
    assert saved is not None and saved["prompt"] == "a boat at night"


STREAMS = """async ([url, broken]) => {
    const api = await import(url);
    const own = window.fetch;
    const body = () => new ReadableStream({ start: (to) => broken ? to.error(new TypeError("network error")) : to.close() });
    window.fetch = async () => new Response(body());
    const said = ({ status, message }) => [status, message];
    const asked = [api.sketch({}, () => {}), ...(broken ? [api.state(), api.picture("x")] : [])];
    const told = await Promise.all(asked.map((each) => each.then(() => "no error", said)));
    window.fetch = own;
    return told;
}"""


def test_answers_that_break_off_are_said_to_be_none(open_page: Open) -> None:
    page = open_page(expected=("502",))
    offline = [0, "The server does not answer. Is it still running?"]
    url = f"{assets_url()}/api.js"
    assert page.evaluate(STREAMS, [url, True]) == [offline] * 3
    assert page.evaluate(STREAMS, [url, False]) == [offline]
    intercept(page, "**/studio/v1/sketch", lambda route: route.fulfill(status=502, body="<html>Bad Gateway</html>"))
    page.locator("#txt2img_live_switch").click()
    words = page.locator(".ls-livewords")
    expect(words).to_have_text("The server, or a proxy before it, answered 502. Try again; its log says more.")
    page.unroute("**/studio/v1/sketch")
    intercept(page, "**/studio/v1/sketch", lambda route: route.fulfill(body='{"type": "started"}\n'))
    page.locator(PROMPT).fill("a boat")
    expect(words).to_have_text(offline[1])


def test_a_server_that_forgot_the_login_is_told_apart_from_one_that_is_away(open_page: Open, server: Server) -> None:
    page = open_page(expected=("401",))
    page.locator(PROMPT).fill("a boat")
    jobs = len(server.studio.queue.jobs(limit=1000))
    for pattern in ("**/studio/v1/**", "**/gradio_api/**"):
        intercept(
            page,
            pattern,
            lambda route: route.fulfill(status=401, json={"error": {"code": "login", "message": "Log in."}}),
        )
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")  # the stream is let go ...
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")  # ... and taken up again
    expect(page.locator(".ls-worker")).to_have_text("logged out")
    link = page.locator("#ls_login")
    expect(link).to_have_attribute("href", "login?next=/")
    page.locator(PROMPT).fill("a boat at night")
    page.locator("#txt2img_generate").click()
    expect(page.locator(".ls-toast", has_text="asks for a login")).to_be_visible()
    for pattern in ("**/studio/v1/**", "**/gradio_api/**"):
        page.unroute(pattern)
    expect(page.locator(".ls-worker")).to_contain_text("ready")
    expect(link).to_be_hidden()
    assert len(server.studio.queue.jobs(limit=1000)) == jobs
    generate(page)
    done(page, server)
    assert server.studio.queue.jobs(limit=1)[0].request.prompt == "a boat at night"


def test_the_newest_picture_is_the_one_that_is_read(page: Page, tmp_path: Path) -> None:
    first, second = (
        picture_with(f"{words}\nSteps: 4, Sampler: Euler, Seed: 5", tmp_path / f"{words[-3:]}.png")
        for words in ("a fox", "a cow")
    )
    tab(page, "PNG Info")
    held = Held(page, "**/picture-info")
    page.locator("#pnginfo_image").set_input_files(first)
    held.wait(1)
    page.locator("#pnginfo_image").set_input_files(second)
    held.wait(2)
    held.let_go(1, 0)
    expect(page.locator("#pnginfo_text")).to_contain_text("a cow")
    tab(page, "txt2img")
    held = Held(page, "**/picture-info")
    drop(page, "#txt2img_prompt", first)
    held.wait(1)
    drop(page, "#txt2img_prompt", second)
    held.wait(2)
    held.let_go(1, 0)
    expect(page.locator(PROMPT)).to_have_value("a cow")


def told(name: str, folder: Path) -> Path:
    """A picture whose text says that it began with the kept picture `name`."""
    return picture_with(f"a moon\nSteps: 4, Denoising strength: 0.5, Init image: {name}", folder / f"{name}.png")


def test_a_mask_stays_with_its_picture(open_page: Open, server: Server, tmp_path: Path) -> None:
    page = open_page(expected=("ERR_FAILED",))
    sun, moon = tmp_path / "sun.png", tmp_path / "moon.png"
    Image.fromarray(scene(160, 120, 7).astype(np.uint8)).save(sun)
    Image.fromarray(scene(120, 160, 8).astype(np.uint8)).save(moon)
    other = server.studio.library.init_images.keep(moon.read_bytes()).name
    begin_with(page, sun)
    held = Held(page, "**/init-images?mask=true")
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    held.wait(1)
    drop(page, "#txt2img_prompt", told(other, tmp_path))
    expect(page.locator(PROMPT)).to_have_value("a moon")
    held.let_go(0)
    head = page.locator("[data-panel=source] .ls-source-head")
    expect(head).to_contain_text("120×160")
    assert canvas_share(page) == 0
    expect(head).not_to_contain_text("mask")
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    expect(head).to_contain_text("mask")
    # A picture that does not come: what was painted on the one before cannot be taken back into it, and Generate does not wait for that.
    third = server.studio.library.init_images.keep((tmp_path / f"{other}.png").read_bytes()).name
    intercept(page, f"**/init-images/{third}.png", lambda route: route.abort())
    drop(page, "#txt2img_prompt", told(third, tmp_path))
    expect(page.locator(".ls-source-said")).to_be_visible()
    page.locator(".ls-source-drop").focus()
    page.keyboard.press("Control+z")
    generate(page, "a boat")
    done(page, server)
    request = server.studio.queue.jobs(limit=1)[0].request
    assert request.source is not None
    assert (request.source.image, request.mask) == (third, None)


def test_older_pictures_asked_for_twice_come_once(page: Page, server: Server) -> None:
    tab(page, "Library")
    expect(page.locator("[data-panel=library] header")).to_contain_text(re.compile("no pictures yet|shown"))
    images = server.studio.queue.images(limit=3)
    records = [image.model_dump(mode="json") for image in images] or [{}]
    pages = [[{**records[0], "id": 1000 - at, "url": "/studio/v1/images/0.png", "infotext": str(at)} for at in part]
             for part in (range(48), range(48, 60))]  # fmt: skip
    intercept(page, "**/studio/v1/images/0/small", lambda route: route.fulfill(status=204))
    intercept(page, "**/studio/v1/images?*", lambda route: route.fulfill(json=pages["before" in route.request.url]))
    page.get_by_role("button", name="refresh").click()
    tiles = page.locator(".ls-gallery .ls-tile")
    expect(tiles).to_have_count(48)
    page.unroute("**/studio/v1/images?*")
    intercept(page, "**/studio/v1/images?*", lambda route: route.fulfill(json=pages[1]))
    page.get_by_role("button", name="older pictures").evaluate("(node) => { node.click(); node.click(); }")
    expect(tiles).to_have_count(60)
    page.wait_for_timeout(200)
    expect(tiles).to_have_count(60)
    # Scrolling is no return to the tab: nothing is read, and nothing is lost. A return brings what is new and takes what was deleted.
    page.unroute("**/studio/v1/images?*")
    changed = [{**pages[0][0], "id": 1001, "infotext": "newest"}, *pages[0][:3], *pages[0][4:48]]
    asked: list[str] = []
    intercept(
        page, "**/studio/v1/images?*", lambda route: (asked.append(route.request.url), route.fulfill(json=changed))
    )
    page.set_viewport_size({"width": 800, "height": 500})
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("[data-panel=library] header")).not_to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator("[data-panel=library] header")).to_be_in_viewport()
    page.wait_for_timeout(200)
    expect(tiles).to_have_count(60)
    assert asked == []
    tab(page, "txt2img")
    tab(page, "Library")
    expect(tiles.first).to_have_attribute("title", "newest")
    expect(page.get_by_role("listitem").filter(has=page.get_by_title("3", exact=True))).to_have_count(0)
    expect(page.get_by_role("listitem").filter(has=page.get_by_title("59", exact=True))).to_have_count(1)
    expect(tiles).to_have_count(60)


def test_keys_that_are_held_down_queue_one_job(page: Page, server: Server) -> None:
    page.locator(PROMPT).fill("a boat")
    jobs = len(server.studio.queue.jobs(limit=1000))
    page.keyboard.down("Control")
    for _ in range(4):
        page.keyboard.down("Enter")  # the second and later ones repeat
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    done(page, server)
    page.wait_for_timeout(200)
    assert len(server.studio.queue.jobs(limit=1000)) == jobs + 1
    expect(page.locator(PROMPT)).to_have_value("a boat")
    chip = page.locator("[data-panel=sizes] button").nth(1)
    chip.focus()
    page.keyboard.press("Enter")
    expect(chip).to_have_attribute("aria-pressed", "true")
    expect(chip).to_be_focused()
    server.engine.hold(2)
    generate(page, "a fox")
    expect(page.locator(STAGE)).to_have_attribute("data-status", "running")
    page.locator(".ls-recent button").first.click()
    back = page.get_by_role("button", name="Back to the running job")
    back.focus()
    page.keyboard.press("Enter")
    expect(page.locator(STAGE)).to_have_attribute("data-status", "running")
    expect(page.locator(".ls-lightbox[open]")).to_have_count(0)
    server.engine.go_on()
