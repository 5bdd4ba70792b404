"""The Train tab when answers come late, out of their order or not at all: what is shown is what was asked for last, and nothing typed is lost."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from studio.schema.training import TrainingConfig
from studio.training.runs import RunFolder, StageStarted, new_run
from studio.ui.static import assets_url
from tests.browser import test_training
from tests.browser.conftest import Open, Server
from tests.browser.steps import intercept
from tests.browser.test_training import RUN, WORDS, drawn, fill, open_tab, written
from tests.runs.pretend import configuration, step_done

training = test_training.training
DATA, CAPTIONS, INSPECT = "#train_data", "#train_captions > summary", "**/datasets/inspect"


class Held:
    """The next answer from an address, kept back until it is let go."""

    def __init__(self, page: Page, url: str | re.Pattern[str]) -> None:
        self.page = page
        self.answers: list[tuple[Route, APIResponse]] = []
        self.taken = False
        intercept(page, url, self._take)

    def _take(self, route: Route) -> None:
        if self.taken:
            route.fallback()
            return
        self.taken = True
        self.answers.append((route, route.fetch()))

    def arrives(self) -> None:
        until(self.page, lambda: bool(self.answers))

    def let_go(self, **changes: Any) -> None:
        """The page gets it now, and does with it what it does."""
        ((route, response),) = self.answers
        with self.page.expect_response(lambda answered: answered.request == route.request):
            route.fulfill(response=response, **changes)
        self.page.wait_for_timeout(300)


def until(page: Page, comes_true: Any) -> None:
    deadline = time.monotonic() + 20
    while not comes_true():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


def choose(page: Page, path: str, says: str = "") -> None:
    """Name a data set, and wait for these words about it."""
    fill(page, "data_path", path)
    page.locator("#train_data_path").press("Enter")
    if says:
        expect(page.locator(DATA)).to_contain_text(says)


def captions_of(page: Page, name: str) -> Locator:
    return page.locator(".ls-caption", has_text=name).locator("textarea")


def test_of_a_data_set_only_what_was_asked_last_is_shown(open_page: Open, training: Path) -> None:
    others = drawn(training.parent / "others")
    for word in WORDS:
        (others / f"{word}.txt").write_text(f"another {word}")
    for number in range(20):
        Image.new("RGB", (64, 64), (10 * number, 0, 0)).save(others / f"more-{number:02}.png")
    page = open_page(expected=("status of 404", "status of 422", "ERR_FAILED"))
    open_tab(page)
    captions_stay_with_their_data_set(page, training, others)
    pages_of_captions_come_in_order_and_typed_ones_stay(page, others)
    reports_come_in_order(page)
    a_captioner_that_is_gone_is_not_waited_for(page)


def captions_stay_with_their_data_set(page: Page, first: Path, second: Path) -> None:
    held = [Held(page, re.compile(f"/captions.*pictures.*limit={limit}")) for limit in (6, 24)]
    choose(page, "datasets/pictures", "6 pictures · 5 captions")
    page.locator(CAPTIONS).click()
    for each in held:
        each.arrives()
    choose(page, "datasets/others", "26 pictures")
    page.locator(CAPTIONS).click()
    cat = captions_of(page, "cat.png")
    expect(cat).to_have_value("another cat")
    for each in held:
        each.let_go()
    expect(cat).to_have_value("another cat")
    expect(page.locator(".ls-data-tiles figcaption").first).to_have_text("another boat")
    cat.fill("mine")
    cat.press("Tab")
    saved = page.locator(".ls-toast.good", has_text="cat.png")
    saved.hover()  # so that it stays
    assert (second / "cat.txt").read_text().strip() == "mine"
    choose(page, "datasets/pictures", "6 pictures · 5 captions")
    with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.url.endswith("/captions")):
        saved.get_by_role("button", name="undo").click()
    assert (second / "cat.txt").read_text().strip() == "another cat"
    assert (first / "cat.txt").read_text().strip() == "a cat"


def pages_of_captions_come_in_order_and_typed_ones_stay(page: Page, folder: Path) -> None:
    choose(page, "datasets/others", "26 pictures")
    page.locator(CAPTIONS).click()
    place = page.locator("#train_captions .ls-actions .ls-faint")
    expect(place).to_have_text("1–24 of 26")
    on = page.locator("#train_captions").get_by_role("button", name="on", exact=True)
    on.click()
    expect(place).to_have_text("25–26 of 26")
    page.locator("#train_captions").get_by_role("button", name="back").click()
    expect(place).to_have_text("1–24 of 26")
    late = Held(page, re.compile("/captions.*offset=24"))
    on.click()
    late.arrives()
    page.locator(CAPTIONS).click()
    with page.expect_response(re.compile("/captions.*offset=0&limit=24")):
        page.locator(CAPTIONS).click()
    late.let_go()
    expect(place).to_have_text("1–24 of 26")
    cat = captions_of(page, "cat.png")
    for batch, leaves_first in (("2", False), ("3", True)):
        late = Held(page, re.compile("/captions.*offset=0&limit=24"))
        fill(page, "method_batch", batch)  # the data set is read again, and its captions with it
        late.arrives()
        cat.fill(f"mine {batch}")
        if leaves_first:
            cat.press("Tab")
            expect(page.locator(".ls-toast.good", has_text="cat.png")).to_be_visible()
        late.let_go()
        expect(cat).to_have_value(f"mine {batch}")
        if not leaves_first:
            expect(cat).to_be_focused()
        cat.press("Tab")
        until(page, lambda words=f"mine {batch}": (folder / "cat.txt").read_text().strip() == words)
        page.locator(".ls-toast").get_by_role("button", name="Close").first.click()


def reports_come_in_order(page: Page) -> None:
    held = Held(page, INSPECT)
    choose(page, "datasets/nothing")
    held.arrives()
    choose(page, "datasets/others", "26 pictures")
    held.let_go()
    expect(page.locator(DATA)).to_contain_text("26 pictures")
    expect(page.locator(f"{DATA} .ls-warning")).to_have_count(0)
    held = Held(page, INSPECT)
    page.locator("#train_look").click()
    held.arrives()
    with page.expect_response(INSPECT):
        page.locator("#train_look").click()
    held.let_go(json={**held.answers[0][1].json(), "pictures": 99})
    expect(page.locator(DATA)).to_contain_text("26 pictures")
    held = Held(page, "**/datasets/upload?name=bad.zip")
    page.locator("#train_zip").set_input_files({"name": "bad.zip", "mimeType": "application/zip", "buffer": b"no ZIP"})
    held.arrives()
    with page.expect_response(INSPECT):
        page.locator("#train_look").click()
    held.let_go()
    expect(page.locator(".ls-toast.bad")).to_be_visible()
    expect(page.locator(DATA)).to_contain_text("26 pictures")
    held = Held(page, "**/training/estimate")
    fill(page, "method_steps", "61")
    held.arrives()
    with page.expect_response("**/training/estimate"):
        fill(page, "method_steps", "62")
    held.let_go(status=200, json={"training": 99_000_000_000, "loading": 98_000_000_000})
    expect(page.locator(".ls-plan")).to_contain_text("62 steps")
    expect(page.locator(".ls-plan")).not_to_contain_text("99.0 GB")


def a_captioner_that_is_gone_is_not_waited_for(page: Page) -> None:
    """The server is away for a moment, and has begun anew when it is back: it knows of no captions being written."""
    running = {"path": "x", "captioner": "file-name", "state": "running", "done": 1, "total": 26}
    away, asked = True, 0

    def answer(route: Route) -> None:
        nonlocal asked
        if route.request.method == "POST":
            route.fulfill(json=running)
            return
        asked += 1
        if away:
            route.abort()
        else:
            route.fulfill(body="null", content_type="application/json")

    intercept(page, "**/datasets/captioning", answer)
    page.locator("#train_captioner_go").click()
    until(page, lambda: asked >= 2)
    expect(page.locator("#train_captioner_says")).to_have_text("1 of 26 pictures …")
    away = False
    expect(page.locator("#train_captioner_says")).to_have_text("")
    expect(page.locator("#train_captioner_go")).to_be_enabled()
    page.wait_for_timeout(1500)  # the data set is read again
    before = asked
    page.wait_for_timeout(1500)
    assert asked == before


def test_of_runs_only_what_was_asked_last_is_shown(open_page: Open, server: Server, training: Path) -> None:
    with ExitStack() as stack:
        run = written(server, 212, stack=stack)
        plain = configuration(Path("/pictures"), name="plain")
        other = new_run(TrainingConfig.model_validate(plain.model_dump()), server.studio.paths.runs)
        other.append(StageStarted(time=time.time(), stage="train", step=0, total=300))
        other.append(step_done(1))
        other.log.write_text("another log\n")
        waiting = server.studio.training.create(configuration(training, name="waiting"))
        page = open_page(expected=("ERR_FAILED", "status of 404", "status of 422"))
        open_tab(page)
        look_at(page, "duotone")
        expect(page.locator(".ls-sample-row")).to_have_count(4)
        stages_come_in_order(page)
        logs_and_samples_stay_with_their_run(page, run)
        the_form_is_of_the_run_that_was_duplicated_last(page, run)
        a_run_that_was_deleted_does_not_come_back(page, waiting.id)


def look_at(page: Page, name: str) -> None:
    page.locator("#train_runs .ls-run", has_text=name).locator(".ls-run-open").click()
    expect(page.locator("#train_run_name")).to_have_text(name)


def stages_come_in_order(page: Page) -> None:
    stages = page.locator(f"{RUN} .ls-chips").first
    held = Held(page, "**/curves?stage=cache-latents")
    stages.get_by_role("button", name="cache latents").click()
    held.arrives()
    stages.get_by_role("button", name="train").click()
    held.let_go()
    expect(stages.get_by_role("button", name="train")).to_have_attribute("aria-pressed", "true")


def logs_and_samples_stay_with_their_run(page: Page, run: RunFolder) -> None:
    log, log_box = page.locator("#train_log"), page.locator(f"{RUN} details > summary")
    held = Held(page, f"**/{run.id}/log")
    log_box.click()
    held.arrives()
    look_at(page, "plain")
    expect(page.locator("#train_samples")).to_be_hidden()
    log_box.click()
    expect(log).to_have_text("another log")
    held.let_go()
    expect(log).to_have_text("another log")
    intercept(page, "**/log", lambda route: route.abort())
    log_box.click()
    log_box.click()
    expect(page.locator(".ls-toast.bad", has_text="does not answer")).to_be_visible()


def the_form_is_of_the_run_that_was_duplicated_last(page: Page, run: RunFolder) -> None:
    duplicate = page.locator("#train_run_actions").get_by_role("button", name="duplicate")
    look_at(page, "duotone")
    held = Held(page, f"**/training/runs/{run.id}")
    duplicate.click()
    held.arrives()
    look_at(page, "plain")
    duplicate.click()
    expect(page.locator("#train_name")).to_have_value("plain")
    held.let_go()
    expect(page.locator("#train_name")).to_have_value("plain")


def a_run_that_was_deleted_does_not_come_back(page: Page, run_id: str) -> None:
    look_at(page, "waiting")
    actions, rows = page.locator("#train_run_actions"), page.locator("#train_runs .ls-run")
    held = Held(page, f"**/{run_id}/stop")
    actions.get_by_role("button", name="take out").click()
    held.arrives()
    actions.get_by_role("button", name="delete").click()
    expect(rows).to_have_count(2)
    held.let_go()
    expect(rows).to_have_count(2)


def test_a_form_is_kept_though_it_is_wrong_or_left_or_the_server_was_away(open_page: Open, server: Server) -> None:
    page = open_page(expected=("status of 422", "ERR_FAILED"))
    open_tab(page)
    browser = page.evaluate("localStorage.getItem('latent-studio-browser')")

    def kept() -> dict[str, Any]:
        return (server.studio.load_form(f"{browser}-train") or {}).get("values", {})

    page.locator("#train_kind").select_option("scratch")
    page.locator("#train_more > summary").click()
    fill(page, "method_unet_channels", "64 128")
    page.locator("#train_start").click()
    expect(page.locator("#train_method_unet_channels_error")).to_contain_text("'64 128' is not possible")
    until(page, lambda: kept().get("method", {}).get("unet", {}).get("channels") == ["64 128"])
    fill(page, "method_unet_channels", "64, 128")
    fill(page, "method_unet_attention", "true")
    page.locator("#train_start").click()
    expect(page.locator(".ls-more-fields .ls-bad:visible")).to_contain_text("attention names 1 levels, channels 2")
    intercept(page, "**/form/*-train", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        fill(page, "name", "while-away")
    page.unroute("**/form/*-train")
    written(server, 1)  # news of a run shows that the server is there
    until(page, lambda: kept()["name"] == "while-away")
    fill(page, "name", "left-at-once")
    page.goto(f"{server.url}{assets_url()}/favicon.png")
    until(page, lambda: kept()["name"] == "left-at-once")
