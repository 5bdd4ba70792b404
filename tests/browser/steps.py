"""What a person does on the page, in one line each."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Server

STAGE = "[data-panel=stage]"
PROMPT = "#txt2img_prompt textarea"
NEGATIVE = "#txt2img_neg_prompt textarea"
GENERATE = "#txt2img_generate"
FRAMES = """async (count) => {
    for (let left = count; left > 0; left--) await new Promise((drawn) => requestAnimationFrame(drawn));
}"""


def number(page: Page, name: str) -> Locator:
    """The number of a field: `steps`, `seed`, `batch_size` ..."""
    return page.locator(f"#txt2img_{name} input[type=number]")


def set_number(page: Page, name: str, value: int | float) -> None:
    number(page, name).fill(str(value))
    number(page, name).press("Tab")


def choose(page: Page, elem_id: str, words: str) -> None:
    """Pick an entry of a drop-down."""
    page.locator(f"#{elem_id} input").click()
    page.locator(f"#{elem_id} [role=option]", has_text=words).first.click()


def unfold(page: Page, elem_id: str) -> None:
    """Open an accordion, and wait until its fields may be used: a frame after it has drawn them Gradio sets their values again."""
    page.locator(f"#{elem_id} > button").click()
    expect(page.locator(f"#{elem_id} input").first).to_be_visible()
    page.evaluate(FRAMES, 4)


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).first.click()


def generate(page: Page, prompt: str | None = None) -> None:
    """Press Generate, and wait until the page says that the job is in the queue."""
    if prompt is not None:
        page.locator(PROMPT).fill(prompt)
    with queued(page):
        page.locator(GENERATE).click()


def queued(page: Page) -> AbstractContextManager[Any]:
    """Waits, when it is left, until the page says of what was done in it that a job is in the queue."""
    return page.expect_response(lambda response: "/gradio_api/" in response.url and response.request.method == "POST")


def done(page: Page, server: Server, status: str = "done") -> None:
    """The newest job is on the stage, and has ended."""
    newest = server.studio.queue.jobs(limit=1)[0].id
    expect(page.locator(STAGE)).to_have_attribute("data-job", str(newest))
    expect(page.locator(STAGE)).to_have_attribute("data-status", status)


def stored(page: Page, words: str) -> AbstractContextManager[Any]:
    """Waits, when it is left, until the server keeps a form in which these words stand; what was typed before may still be on its way."""
    return page.expect_response(
        lambda response: "/form/" in response.url and words in (response.request.post_data or "")
    )


def intercept(page: Page, pattern: str | re.Pattern[str], handler: Callable[[Route], Any]) -> None:
    """`page.route`, from now on: Chromium tells the process of the page only after it has answered, and what that asks for meanwhile goes its way unseen."""
    page.route(pattern, handler)
    probe = "**/studio/v1/state?probe"
    page.route(probe, lambda route: route.fulfill(status=204))
    page.wait_for_function("async () => (await fetch('/studio/v1/state?probe')).status === 204")
    page.unroute(probe)


def drop(page: Page, selector: str, file: Path, kind: str = "image/png", address: str = "") -> bool:
    """Drag a file, with the address that it has, onto an element and let go. Returns whether the page took it, so that the browser does not open it."""
    taken: bool = page.evaluate(
        """([selector, name, kind, data, address]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            if (address) carried.setData("text/uri-list", address);
            carried.items.add(new File([bytes], name, { type: kind }));
            const event = (type) => new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true });
            const target = document.querySelector(selector);
            return ["dragenter", "dragover", "drop"].map((type) => !target.dispatchEvent(event(type))).at(-1);
        }""",
        [selector, file.name, kind, base64.b64encode(file.read_bytes()).decode(), address],
    )
    return taken


def messages(page: Page) -> list[str]:
    return page.locator(".ls-toast").locator("p, li").all_inner_texts()
