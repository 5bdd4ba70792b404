"""Every text of the vectors, from whatever program, is read in the page and shown as the reader understands it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, TimeoutError, expect

from tests.browser.conftest import Server
from tests.browser.steps import NEGATIVE, PROMPT, drop, messages
from tests.vector_files import load_json

VECTORS = load_json("infotext.json")
TEXTS: list[str] = [case["text"] for case in (*VECTORS["texts"], *VECTORS["create"])]
READABLE = re.compile(r"(^|\s)Steps:\s*\d+\s*,")
"""What the page takes for parameters in the prompt; anything else is no text to read, but may be dropped as a file."""
NUMBERS = ("steps", "cfg_scale", "seed", "width", "height")
SHOWN = """(names) => ({
    prompt: document.querySelector("#txt2img_prompt textarea").value,
    negative_prompt: document.querySelector("#txt2img_neg_prompt textarea").value,
    sampler: document.querySelector("#txt2img_sampling input").value,
    ...Object.fromEntries(names.map((name) => [name, Number(document.querySelector(`#txt2img_${name} input[type=number]`).value)])),
})"""
EQUAL = f"""([names, wanted]) => {{
    const shown = ({SHOWN})(names);
    return Object.entries(wanted).every(([name, value]) => shown[name] === value);
}}"""


def expected(server: Server, text: str) -> dict[str, Any]:
    """What the form must show: the fields of the text that can be seen, lines ending as a text area ends them."""
    request = server.studio.read_infotext(text).request
    names = ("prompt", "negative_prompt", "sampler", *NUMBERS)
    found = {name: request[name] for name in names if name in request}
    return {
        name: re.sub(r"\r\n?", "\n", value) if isinstance(value, str) else float(value) for name, value in found.items()
    }


@pytest.mark.slow
def test_vectors_are_shown_as_they_are_read(page: Page, server: Server, tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        wanted = expected(server, text)
        page.locator(NEGATIVE).fill("of the text before")  # or a text that stays as it is typed would be taken for read
        if READABLE.search(text):
            page.locator(PROMPT).fill(text)
            page.locator("#paste").click()
        else:
            page.locator(PROMPT).fill("of the text before")
            file = tmp_path / f"{number}.txt"
            file.write_text(text, encoding="utf-8", newline="")
            drop(page, PROMPT, file, "text/plain")
        try:
            page.wait_for_function(EQUAL, arg=[NUMBERS, wanted])
        except TimeoutError:
            assert page.evaluate(SHOWN, NUMBERS) == wanted, text
        expect(page.locator(".ls-toast.bad")).to_have_count(0)
    assert messages(page)
