"""The step timeline in a real browser: a step in full quality, a branch from it, the chip, and the way it came."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import READY, Open, Server
from tests.browser.steps import GENERATE, PROMPT, STAGE, done, drop, generate, intercept, number, set_number, tab
from tests.browser.views import DEVICES, VIEWS, look

CHIP = ".ls-branch-chip"
INFO = "#txt2img_stage .ls-info"


def painted(page: Page, server: Server, prompt: str, steps: int = 8, *, first: int = 1) -> None:
    """A picture, of whose steps those from `first` on can be seen."""
    set_number(page, "steps", steps)
    generate(page, prompt)
    done(page, server)
    expect(page.locator(".ls-cell:not(.empty)")).to_have_count(steps + 1 - first)


def at_step(page: Page, step: int) -> None:
    page.locator(".ls-cell").nth(step - 1).click()
    expect(page.locator(".ls-badge")).to_contain_text(f"step {step}")


def branch(page: Page, step: int) -> None:
    at_step(page, step)
    page.get_by_role("button", name="branch from here").click()
    expect(page.locator(CHIP)).to_contain_text(f"Branch from step {step} of picture #")


def test_a_step_is_decoded_in_full(page: Page, server: Server) -> None:
    painted(page, server, "a lighthouse")
    expect(page.get_by_role("button", name="full quality")).to_be_hidden()  # the finished picture is
    at_step(page, 3)
    preview = page.locator(".ls-picture").get_attribute("src")
    page.get_by_role("button", name="full quality").click()
    expect(page.locator(".ls-badge")).to_have_text("step 3 · full quality")
    assert page.locator(".ls-picture").get_attribute("src") != preview
    shown = page.locator(".ls-picture").evaluate(
        "(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    )
    assert shown == [128, 128]
    expect(page.get_by_role("button", name="full quality")).to_be_hidden()
    with page.expect_download() as saved:
        page.get_by_role("button", name="save step").click()
    assert saved.value.suggested_filename.endswith("-step-3-0.png")
    at_step(page, 2)
    expect(page.locator(".ls-badge")).to_have_text("step 2")
    expect(page.get_by_role("button", name="full quality")).to_be_visible()


def test_latents_that_are_gone_are_said(open_page: Open, server: Server) -> None:
    page = open_page(expected=("404",))
    painted(page, server, "a pier")
    at_step(page, 3)
    job = server.studio.queue.jobs(limit=1)[0].id
    (server.studio.paths.latents / str(job) / "0-3.safetensors").unlink()
    page.get_by_role("button", name="full quality").click()
    expect(page.locator(".ls-toast.bad")).to_contain_text("step 3 of batch 0 of job")


def test_a_job_that_is_quicker_than_the_answer_is_shown(page: Page, server: Server) -> None:
    """Its events may come before the page knows that it was Generate that made it."""
    painted(page, server, "a pier")
    at_step(page, 3)  # an older step is looked at: jobs of others must not push it aside

    def late(route: Route) -> None:
        answer = route.fetch()
        server.studio.queue.wait(server.studio.queue.jobs(limit=1)[0].id, 10)
        page.wait_for_timeout(500)
        route.fulfill(response=answer)

    intercept(page, "**/gradio_api/run/predict", late)
    painted(page, server, "a pier at night")


def test_a_branch_from_a_step(page: Page, server: Server) -> None:
    set_number(page, "seed", 77)
    painted(page, server, "a red fox, on a beach")
    origin = page.locator(INFO).inner_text()
    branch(page, 5)
    expect(number(page, "seed")).to_have_value("77")
    set_number(page, "cfg_scale", 4)
    painted(page, server, "a blue fox", first=6)
    run = server.engine.runs[-1]
    assert run.branch is not None
    assert (run.branch.step, run.branch.text, run.cfg_scale, run.seeds) == (5, origin, 4, (77,))
    assert server.engine.kept[-1].split()[3] == b"5"
    info = page.locator(INFO).inner_text()
    assert "Branch step: 5, Branch origin: " in info
    expect(page.locator(".ls-lineage")).to_contain_text(
        re.compile(r"step 5 of #\d+ “a red fox, on a beach” · DPM\+\+ 2M · 8 steps")
    )
    page.locator(".ls-lineage button").click()
    expect(page.locator(INFO)).to_have_text(origin)
    expect(page.locator(".ls-lineage")).to_be_hidden()


def test_a_branch_is_left_by_click_and_by_keyboard(page: Page, server: Server) -> None:
    painted(page, server, "a harbour")
    branch(page, 2)
    page.locator(CHIP).get_by_role("button").click()
    expect(page.locator(CHIP)).to_have_count(0)
    branch(page, 3)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(CHIP)).to_contain_text("Branch from step 3 of picture #")
    page.locator(CHIP).get_by_role("button", name=re.compile("Leave the branch")).focus()
    page.keyboard.press("Enter")
    expect(page.locator(CHIP)).to_have_count(0)
    generate(page, "a quay")
    done(page, server)
    assert server.engine.runs[-1].branch is None
    page.wait_for_timeout(700)
    page.reload()
    page.wait_for_selector(READY, state="attached")
    expect(page.locator(PROMPT)).to_have_value("a quay")
    expect(page.locator(CHIP)).to_have_count(0)


def test_what_a_branch_cannot_change_is_refused(page: Page, server: Server) -> None:
    painted(page, server, "a mill")
    branch(page, 2)
    before = len(server.engine.runs)
    set_number(page, "width", 192)
    page.locator(GENERATE).click()
    expect(page.locator(".ls-toast.bad")).to_contain_text("width of the picture it leaves, 128, and cannot have 192")
    expect(page.locator("#txt2img_width.ls-wrong")).to_be_visible()
    assert len(server.engine.runs) == before


def test_a_branched_picture_brings_its_branch_along(page: Page, server: Server) -> None:
    painted(page, server, "a heron")
    branch(page, 4)
    painted(page, server, "a stork", first=5)
    file = server.pictures[-1]
    wanted = server.engine.runs[-1]
    page.locator(CHIP).get_by_role("button").click()
    expect(page.locator(CHIP)).to_have_count(0)
    tab(page, "PNG Info")
    page.locator("#pnginfo_image").set_input_files(file)
    expect(page.locator(".ls-pnginfo-result")).to_contain_text("step 4 of “a heron”")
    page.locator("#pnginfo_send").click()
    expect(page.locator(CHIP)).to_contain_text("Branch from step 4 of picture #")
    page.locator(CHIP).get_by_role("button").click()
    drop(page, "#txt2img_prompt", file)
    expect(page.locator(CHIP)).to_contain_text("Branch from step 4 of picture #")
    generate(page)
    done(page, server)
    again = server.engine.runs[-1]
    assert again.branch is not None and wanted.branch is not None
    assert (again.positive, again.branch) == (wanted.positive, wanted.branch)
    drop(page, "#txt2img_prompt", server.pictures[-3])
    expect(page.locator(CHIP)).to_have_count(0)


def test_an_interrupted_picture_can_be_branched_from(page: Page, server: Server) -> None:
    server.engine.hold(before=7)
    set_number(page, "steps", 30)
    generate(page, "a slow tide")
    expect(page.locator(".ls-cell:not(.empty)").nth(4)).to_be_visible()
    page.locator("#txt2img_interrupt").click()
    done(page, server, "cancelled")
    server.engine.go_on()
    at_step(page, 3)
    page.get_by_role("button", name="branch from here").click()
    expect(page.locator(CHIP)).to_contain_text("Branch from step 3 of “a slow tide”")
    generate(page, "a fast tide")
    done(page, server)
    run = server.engine.runs[-1]
    assert run.branch is not None and run.branch.origin.positive.text == "a slow tide"


@pytest.mark.parametrize("device", DEVICES)
def test_looks(open_page: Open, server: Server, device: str) -> None:
    theme, width, height = VIEWS[DEVICES[device][0]]
    page = open_page(theme=theme, width=width, height=height)
    painted(page, server, "a lighthouse on a cliff, evening light, flat colours", 14)
    at_step(page, 6)
    look(page, device, "timeline-1-step")
    page.get_by_role("button", name="full quality").click()
    expect(page.locator(".ls-badge")).to_contain_text("full quality")
    look(page, device, "timeline-2-full")
    page.get_by_role("button", name="branch from here").click()
    expect(page.locator(CHIP)).to_be_visible()
    look(page, device, "timeline-3-chip")
    painted(page, server, "a lighthouse in a storm", 14, first=7)
    branch(page, 9)
    painted(page, server, "a lighthouse in a snowstorm", 14, first=10)
    expect(page.locator(".ls-lineage li")).to_have_count(2)
    expect(page.locator(STAGE)).to_have_attribute("data-status", "done")
    look(page, device, "timeline-4-lineage")
