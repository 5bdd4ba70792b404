"""The prompt inspector: opened by button and key, follows the typing, strip and suggestions work, text stays text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import EVIL, Open, Server
from tests.browser.steps import NEGATIVE, PROMPT, choose, intercept, set_number
from tests.browser.views import picture

PANEL = "#ls_inspector"
ABOUT = f"{PANEL} .ls-about"
SEGMENT = f"{PANEL} .ls-segment"


@pytest.fixture(scope="module", autouse=True)
def wildcards(server: Server) -> None:
    server.studio.paths.wildcards.mkdir(parents=True, exist_ok=True)
    (server.studio.paths.wildcards / "colour.txt").write_text("red\nblue\n")


def inspect(page: Page, prompt: str, negative: str = "") -> Locator:
    """Type, and open the inspector."""
    page.locator(PROMPT).fill(prompt)
    page.locator(NEGATIVE).fill(negative)
    page.locator("#txt2img_inspect").click()
    return page.locator(PANEL)


def tokens(page: Page) -> Locator:
    return page.locator(f"{PANEL} .ls-token:not(.mark)")


def test_opened_by_button_and_key_and_asks_nothing_while_closed(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "prompt/inspect" in request.url else None)
    page.locator(PROMPT).fill("a fox")
    page.wait_for_timeout(600)
    expect(page.locator(PANEL)).to_be_hidden()
    assert page.locator("#txt2img_inspector").bounding_box() is None, "a closed inspector takes no room"
    page.locator(PROMPT).press("Alt+i")
    expect(page.locator(PANEL)).to_be_visible()
    expect(page.locator("#txt2img_inspect")).to_have_attribute("aria-expanded", "true")
    expect(tokens(page)).to_have_text(["a", "fox"])
    page.locator("#txt2img_inspect").click()
    expect(page.locator(PANEL)).to_be_hidden()
    assert len(asked) == 1


def test_tokens_chunks_and_weights_follow_the_typing(page: Page) -> None:
    inspect(page, "a ((red)) fox [faint] BREAK an owl")
    expect(tokens(page)).to_have_text(["a", "red1.21", "fox", "faint0.91", "an", "owl"])
    expect(page.locator(f"{PANEL} .ls-chunk header")).to_have_text(["Chunk 14/75", "Chunk 22/75"])
    expect(page.locator(f"{PANEL} .ls-token.mark")).to_have_text(["BREAK", "71 padding", "73 padding"])
    warm, plain, cool = (
        tokens(page).nth(place).evaluate("(node) => getComputedStyle(node).backgroundColor") for place in (1, 0, 3)
    )
    assert len({warm, plain, cool}) == 3
    expect(tokens(page).nth(1)).to_have_attribute("title", "red · weight 1.21 · token 2 of 4")
    page.locator(PROMPT).press_sequentially(" flies")
    expect(tokens(page)).to_have_count(7)
    page.locator(PROMPT).fill("fox " * 80)
    expect(page.locator(ABOUT)).to_have_text("80 tokens in 2 chunks")
    page.locator(PROMPT).fill("")
    expect(page.locator(ABOUT)).to_have_text("no words: a chunk of padding")


def test_both_prompts(page: Page) -> None:
    panel = inspect(page, "a fox", "ugly, <lora:x>")
    expect(tokens(page)).to_have_text(["a", "fox"])
    panel.get_by_role("tab", name="Prompt", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(panel.get_by_role("tab", name="Negative prompt")).to_be_focused()
    expect(tokens(page)).to_have_text(["ugly", ","])
    expect(panel.locator(".ls-notes")).to_contain_text("Tags in the negative prompt")


def test_the_strip_over_the_steps(page: Page) -> None:
    set_number(page, "steps", 10)
    inspect(page, "a [red:blue:0.5] fox AND snow, [sun|moon] :0.5")
    rows = page.locator(f"{PANEL} .ls-wording-row:not(.ls-scale)")
    expect(rows).to_have_count(2)
    expect(rows.locator(".ls-wording-weight")).to_have_text(["×1", "×0.5"])
    expect(rows.first.locator(".ls-segment")).to_have_text(["red", "blue"])
    widths = [box["width"] for node in rows.first.locator(".ls-segment").all() if (box := node.bounding_box())]
    assert widths[0] / widths[1] == pytest.approx(6 / 4, rel=0.02)
    expect(tokens(page)).to_have_text(["a", "red", "fox"])
    rows.first.locator(".ls-segment").nth(1).hover()
    expect(tokens(page)).to_have_text(["a", "blue", "fox"])
    page.locator(PROMPT).hover()
    expect(tokens(page)).to_have_text(["a", "red", "fox"])
    rows.first.locator(".ls-segment").nth(0).click()
    page.locator(PROMPT).hover()
    page.keyboard.press("ArrowRight")
    expect(page.locator(ABOUT)).to_have_text("part 1, weight 1 · steps 7–10 of 10 · “blue” · 3 tokens in 1 chunk")
    page.keyboard.press("ArrowDown")
    expect(tokens(page)).to_have_text(["snow", ",", "moon"])
    expect(page.locator(f"{SEGMENT}[aria-pressed=true]")).to_have_count(1)
    assert page.locator(f"{SEGMENT}[tabindex='0']").count() == 1, "one stop for Tab"
    choose(page, "txt2img_sampling", "DPM2 a")
    expect(page.locator(f"{PANEL} header .ls-faint").first).to_have_text("10 steps, 20 model calls")


def test_unknown_names_are_red_and_can_be_mended(page: Page) -> None:
    panel = inspect(page, "🦊 a __colur__ fox <lora:inc:0.8> <lora:ink:1.1> (x:1.2.3)")
    wrong = panel.locator(".ls-mentions .wide")
    expect(wrong).to_have_count(3)
    expect(panel.get_by_role("tab", name="Prompt 3", exact=True)).to_be_visible()
    expect(panel.locator(".ls-mention.lora")).to_have_text(["<lora:ink:1.1>"])
    expect(panel).to_contain_text("There is no LoRA named 'inc'. Did you mean 'ink'?")
    wrong.locator(".ls-mention", has_text="1.2.3").click()
    selected = "(node) => node.value.slice(node.selectionStart, node.selectionEnd)"
    assert page.locator(PROMPT).evaluate(selected) == "1.2.3"
    panel.get_by_role("button", name="use colour").click()
    panel.get_by_role("button", name="use ink").first.click()
    expect(page.locator(PROMPT)).to_have_value("🦊 a __colour__ fox <lora:ink:0.8> <lora:ink:1.1> (x:1.2.3)")
    expect(wrong).to_have_count(1)
    expect(panel.locator(".ls-mention.wildcard")).to_have_text(["__colour__2 lines"])


def test_a_file_that_was_added_is_seen_after_looking_for_new_ones(page: Page, server: Server) -> None:
    panel = inspect(page, "a __weather__")
    expect(panel.locator(".ls-mention.wrong")).to_have_count(1)
    added = server.studio.paths.wildcards / "weather.txt"
    added.write_text("rain\n")
    page.locator("#refresh_sd_model_checkpoint").click()
    expect(panel.locator(".ls-mention.wrong")).to_have_count(0)
    expect(tokens(page)).to_have_text(["a", "rain"])
    added.unlink()


def test_what_is_drawn_is_shown(page: Page) -> None:
    panel = inspect(page, "a {red|blue} fox")
    expect(panel.locator(".ls-drawn")).to_contain_text("Drawn by the seed, which is open; for example: a ")
    set_number(page, "seed", 5)
    expect(panel.locator(".ls-drawn")).to_contain_text("Drawn by the seed: a ")


def test_text_stays_text(page: Page) -> None:
    panel = inspect(page, f"{EVIL} <lora:{EVIL.replace('=', '')} [<b>x</b>:<i>y</i>:0.5] __<u>__")
    expect(panel.locator(".ls-chunk").first).to_be_visible()
    expect(panel.locator(".ls-segment")).to_have_count(2)
    assert panel.locator("img, b b, i, u").count() == 0
    assert page.evaluate("window.hit") is None


def test_a_late_answer_to_an_old_question_is_dropped(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if json.loads(route.request.post_data or "{}")["prompt"] == "first":
            held.append(route)
        else:
            route.continue_()

    intercept(page, "**/prompt/inspect", hold)
    inspect(page, "first")
    page.wait_for_timeout(300)
    page.locator(PROMPT).fill("second")
    expect(tokens(page)).to_have_text(["second"])
    held[0].continue_()
    page.wait_for_timeout(400)
    expect(tokens(page)).to_have_text(["second"])
    expect(page.locator(PANEL)).not_to_have_attribute("aria-busy", "true")


def test_what_the_server_refuses_is_said(open_page: Open) -> None:
    page = open_page(expected=("503",))
    answer: dict[str, Any] = {"error": {"code": "engine", "message": "Out of order.", "field": None, "choices": []}}
    intercept(page, "**/prompt/inspect", lambda route: route.fulfill(status=503, json=answer))
    inspect(page, "a fox")
    expect(page.locator(f"{PANEL} .ls-inspector-trouble")).to_have_text("Out of order.")
    page.unroute("**/prompt/inspect")
    page.locator(PROMPT).fill("an owl")
    expect(tokens(page)).to_have_text(["an", "owl"])
    expect(page.locator(f"{PANEL} .ls-inspector-trouble")).to_be_hidden()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_an_embedding_is_one_chip_and_one_that_does_not_fit_is_red(open_page: Open, theme: str) -> None:
    page = open_page(theme=theme)
    panel = inspect(page, r"a fox, (soft \(v2\):1.3) and grand light")
    chip = panel.locator(".ls-token.embedding")
    expect(chip).to_have_text(["soft (v2)×31.3"])
    expect(chip).to_have_attribute("title", "embedding soft (v2) · 3 vectors · weight 1.3 · tokens 4–6 of 9")
    expect(page.locator(ABOUT)).to_have_text("9 tokens in 1 chunk")
    expect(panel.locator(".ls-token.mark")).to_have_text(["66 padding"])
    expect(panel.locator(".ls-mention.embedding")).to_have_text([r"soft \(v2\)3 vectors"])
    expect(panel.locator(".ls-mentions .wide")).to_contain_text("Embedding 'grand' was made for Stable Diffusion XL")
    panel.locator(".ls-mention.embedding").click()
    selected = "(node) => node.value.slice(node.selectionStart, node.selectionEnd)"
    assert page.locator(PROMPT).evaluate(selected) == r"soft \(v2\)"
    colour = chip.evaluate("(node) => getComputedStyle(node).borderLeftColor")
    assert colour != tokens(page).first.evaluate("(node) => getComputedStyle(node).borderLeftColor")
    picture(panel, f"embedding-{theme}")


def test_vectors_in_the_padding_are_shown(page: Page) -> None:
    panel = inspect(page, "fox " * 58 + r", soft \(v2\) " + "owl " * 14)
    expect(panel.locator(".ls-token.mark.embedding")).to_have_text(["soft (v2) in the padding×3"])
    expect(panel.locator(".ls-chunk").nth(1).locator(".ls-token:not(.mark)")).to_have_text(["!"] * 3 + ["owl"] * 14)


def test_it_is_open_again_after_a_reload(page: Page) -> None:
    inspect(page, "a fox")
    expect(tokens(page)).to_have_text(["a", "fox"])
    page.wait_for_timeout(800)  # the form is kept
    page.reload()
    expect(page.locator("#txt2img_inspect")).to_have_attribute("aria-expanded", "true")
    expect(tokens(page)).to_have_text(["a", "fox"])
    page.locator("#txt2img_inspect").click()
    page.reload()
    expect(page.locator("#txt2img_inspect")).to_have_attribute("aria-expanded", "false")
    expect(page.locator(PANEL)).to_be_hidden()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_it_fits_a_phone(open_page: Open, theme: str) -> None:
    page = open_page(width=375, height=800, theme=theme)
    inspect(page, "a __colur__ " + "unbelievably " * 90 + "x" * 300 + " [a|b] <lora:inc:0.8> AND " + "[c:d:3]" * 6)
    expect(page.locator(f"{PANEL} .ls-chunk").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    chunks = page.locator(f"{PANEL} .ls-chunklist")
    assert chunks.evaluate("(node) => node.scrollHeight > node.clientHeight && node.scrollWidth <= node.clientWidth")
