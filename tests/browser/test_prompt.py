"""The prompt fields: weights, LoRA tags, counters, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from studio.ui.static import assets_url
from tests.browser.conftest import READY, Server, forget
from tests.browser.steps import NEGATIVE, PROMPT, done, generate, set_number, tab, unfold


@pytest.fixture(scope="module")
def page(profile: BrowserContext, server: Server) -> Iterator[Page]:
    """One page for all tests here: they leave nothing behind but text."""
    server.settle()
    opened = profile.new_page()
    opened.set_viewport_size({"width": 1440, "height": 960})
    forget(opened, server.url)
    opened.goto(server.url)
    opened.wait_for_selector(READY, state="attached")
    yield opened
    opened.close()


# Text with the selection in [brackets of this kind: ⟨ ⟩], key presses (+ up, - down), text and selection afterwards.
WEIGHTS = [
    ("a re⟨⟩d fox", "+", "a (⟨red⟩:1.1) fox"),
    ("a re⟨⟩d fox", "-", "a (⟨red⟩:0.9) fox"),
    ("a ⟨red fox⟩ runs", "++", "a (⟨red fox⟩:1.2) runs"),
    ("a ⟨red ⟩fox", "+", "a (⟨red⟩:1.1) fox"),
    ("a (r⟨⟩ed:1.1) fox", "+", "a (⟨red⟩:1.2) fox"),
    ("a (r⟨⟩ed:1.1) fox", "-", "a ⟨red⟩ fox"),
    ("a (r⟨⟩ed:1.1) fox", "--", "a (⟨red⟩:0.9) fox"),
    ("((a:1.2) r⟨⟩ed:1.4)", "+", "(⟨(a:1.2) red⟩:1.5)"),
    ("(a:0.1⟨⟩)", "--", "(⟨a⟩:0)"),
    (r"smile \(em⟨⟩oji\)", "+", r"smile \((⟨emoji⟩:1.1)\)"),
    ("fox <lora:in⟨⟩k:0.8>", "+", "fox ⟨<lora:ink:0.85>⟩"),
    ("fox <lora:in⟨⟩k:0.8>", "--", "fox ⟨<lora:ink:0.7>⟩"),
    ("<lora:ink⟨⟩>", "-", "⟨<lora:ink:0.95>⟩"),
    ("<lora:ink:0.5:1⟨⟩>", "+", "⟨<lora:ink:0.55:1>⟩"),
    ("<lora:ink:0@0,1⟨⟩@0.5:hr=0.2@1>", "+", "⟨<lora:ink:0.05@0,1.05@0.5:hr=0.25@1>⟩"),
    ("fo⟨⟩x <lora:ink:1>", "+", "(⟨fox⟩:1.1) <lora:ink:1>"),
    ("狐⟨⟩狸", "+", "(⟨狐狸⟩:1.1)"),
    ("a,⟨⟩ b", "+", "a,⟨⟩ b"),
    (" ⟨⟩ ", "+", " ⟨⟩ "),
    ("⟨⟩", "+", "⟨⟩"),
]


@pytest.mark.parametrize("before, keys, after", WEIGHTS)
def test_ctrl_up_and_down_weigh_words(page: Page, before: str, keys: str, after: str) -> None:
    start, end = before.index("⟨"), before.index("⟩") - 1
    field = page.locator(PROMPT)
    field.fill(before.replace("⟨", "").replace("⟩", ""))
    field.evaluate("(node, [start, end]) => { node.focus(); node.setSelectionRange(start, end); }", [start, end])
    for key in keys:
        page.keyboard.press("Control+ArrowUp" if key == "+" else "Control+ArrowDown")
    text, start, end = field.evaluate("(node) => [node.value, node.selectionStart, node.selectionEnd]")
    shown = text[:start] + "⟨" + text[start:end] + "⟩" + text[end:]
    assert shown == after


def test_weights_and_tags_are_coloured_as_text(page: Page) -> None:
    page.locator(PROMPT).fill("a (red:1.2) fox <lora:ink:0.8> & <b>bold</b>")
    marks = page.locator("#txt2img_prompt .ls-back mark")
    expect(marks).to_have_text(["(red:1.2)", "<lora:ink:0.8>"])
    assert page.locator("#txt2img_prompt .ls-back b").count() == 0
    page.locator(PROMPT).fill("plain")
    expect(marks).to_have_count(0)
    page.locator(PROMPT).fill(r"[cat:dog:0.5] AND a [red|blue] hat BREAK [plain] \[a|b\] sand")
    expect(marks).to_have_text(["[cat:dog:0.5]", "AND", "[red|blue]", "BREAK"])


def test_token_counter(page: Page) -> None:
    counter = page.locator("#txt2img_prompt .ls-counter")
    page.locator(PROMPT).fill("a red fox on a beach")
    expect(counter).to_have_text("6/75")
    page.locator(PROMPT).fill("fox " * 80)
    expect(counter).to_have_text("80/150")
    page.locator(PROMPT).fill("")
    expect(counter).to_have_text("0/75")


def test_lora_cards_put_tags_in_and_out(page: Page) -> None:
    field, cards = page.locator(PROMPT), page.locator(".ls-lora")
    field.fill("a fox")
    expect(cards).to_have_count(5)
    page.locator("#txt2img_lora_search").fill("past")
    expect(cards).to_have_count(1)
    cards.first.click()
    expect(field).to_have_value("a fox <lora:styles/pastel:0.8>")
    expect(cards.first).to_have_attribute("aria-pressed", "true")
    cards.first.click()
    expect(field).to_have_value("a fox")
    expect(cards.first).to_have_attribute("aria-pressed", "false")
    page.locator("#txt2img_lora_search").fill("")
    expect(cards).to_have_count(5)


def test_embedding_cards_put_words_in_and_out(page: Page) -> None:
    field, negative, cards = page.locator(PROMPT), page.locator(NEGATIVE), page.locator(".ls-embedding")
    field.fill("a fox")
    negative.fill("")
    expect(cards).to_have_count(3)
    useless = cards.and_(page.locator("[aria-disabled]"))
    expect(useless).to_have_attribute("title", re.compile("pickle file"))
    useless.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".ls-toast.warn")).to_contain_text("pickle file")
    expect(field).to_have_value("a fox")
    page.locator("#txt2img_embedding_search").fill("soft")
    expect(cards).to_have_count(1)
    expect(cards).to_have_attribute("title", re.compile("SD 1, 3 vectors"))
    field.focus()
    cards.click()
    expect(field).to_have_value(r"a fox, soft \(v2\)")
    expect(page.locator("#txt2img_prompt .ls-counter")).to_have_text("6/75")
    expect(cards).to_have_attribute("aria-pressed", "true")
    cards.click()
    expect(field).to_have_value("a fox")
    expect(cards).to_have_attribute("aria-pressed", "false")
    negative.focus()
    cards.click()
    expect(negative).to_have_value(r"soft \(v2\)")
    for typed, left in [
        (r"blurry, (SOFT \(V2\):1.2), dark", "blurry, dark"),
        (r"soft \(v2\), dark", "dark"),
        (r"<lora:soft \(v2\):1> a soft \(v2\)", r"<lora:soft \(v2\):1> a"),
        (r"((soft \(v2\):1.1), blurry)", "(, blurry)"),
    ]:
        negative.fill(typed)
        expect(cards).to_have_attribute("aria-pressed", "true")
        cards.click()
        expect(negative).to_have_value(left)
    negative.fill("soft (v2)")
    expect(page.locator("#txt2img_neg_prompt .ls-counter")).to_have_text("3/75")
    expect(cards).to_have_attribute("aria-pressed", "false")
    negative.fill("")
    page.locator("#txt2img_embedding_search").fill("")


TOGGLED = [
    ("soft" + " " * 20_000 + "x", " " * 20_000 + "x"),
    ("a" + " " * 20_000 + "soft", "a"),
    ("soft " * 10_000 + "<x>", " <x>"),
    ("(" * 20_000 + "soft", "(" * 20_000),
    ("soft : " + "1" * 20_000 + " x", " : " + "1" * 20_000 + " x"),
]
"""Prompts, and what is left of them without the word `soft`; each in the time that it takes to read it."""


def test_a_word_is_taken_out_of_whatever_stands_around_it(page: Page) -> None:
    toggled = page.evaluate(
        "async ([url, texts]) => { const { toggleWord } = await import(url); return texts.map((text) => toggleWord(text, 'soft')); }",
        [f"{assets_url()}/weights.js", [text for text, _ in TOGGLED]],
    )
    assert toggled == [left.lstrip() for _, left in TOGGLED]


def test_keys_that_write_a_letter_switch_nothing(page: Page) -> None:
    """Option with L writes @ on a German Mac and ł on a Polish one."""
    switch = page.locator("#txt2img_live_switch")
    press = """(node, [code, key]) => node.dispatchEvent(
        new KeyboardEvent("keydown", { code, key, altKey: true, bubbles: true, cancelable: true }))"""
    for key, on in (("@", "false"), ("ł", "false"), ("¬", "true"), ("l", "false"), ("д", "true"), ("L", "false")):
        written = page.locator(PROMPT).evaluate(press, ["KeyL", key])
        assert written == (key in "@ł")
        expect(switch).to_have_attribute("aria-pressed", on)
    inspect = page.locator("#txt2img_inspect")
    for key, open_ in (("ī", "false"), ("ˆ", "true"), ("Dead", "false")):
        page.locator(PROMPT).evaluate(press, ["KeyI", key])
        expect(inspect).to_have_attribute("aria-expanded", open_)


def test_an_embedding_of_another_family_is_told(page: Page, server: Server) -> None:
    server.settle()
    generate(page, "a grand fox, soft \\(v2\\)")
    grand, soft = (page.locator(".ls-embedding", has_text=name) for name in ("grand", "soft"))
    expect(soft).to_have_attribute("aria-pressed", "true")
    expect(grand).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".ls-toast", has_text="'grand' was made for Stable Diffusion XL")).to_be_visible()
    done(page, server)


def test_keys(page: Page, server: Server) -> None:
    server.settle()
    server.engine.hold(before=7)
    set_number(page, "batch_count", 2)
    page.locator(PROMPT).fill("by keys")
    page.locator(PROMPT).press("Control+Enter")
    expect(page.locator(".ls-meta")).to_contain_text("image 1 of 2")
    page.keyboard.press("Alt+Enter")
    expect(page.locator(".ls-meta")).to_contain_text("image 2 of 2")
    page.locator("#txt2img_sampling input").click()
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    assert server.studio.queue.running() is not None, "Escape closes the list first"
    page.locator(PROMPT).press("Escape")
    done(page, server, "cancelled")
    server.engine.go_on()
    expect(page).to_have_title("Latent Studio")
    page.locator(PROMPT).press("Escape")


def test_the_enlarged_picture(page: Page, server: Server) -> None:
    server.settle()
    set_number(page, "steps", 2)
    set_number(page, "batch_count", 1)
    set_number(page, "batch_size", 2)
    frame = page.locator(".ls-stage")
    generate(page, "fail to be seen")
    done(page, server, "failed")
    expect(frame).to_have_role("group")  # children of a button are not read out
    assert "This one did not work out" in frame.aria_snapshot()
    assert "enlarge" not in frame.aria_snapshot()
    page.locator(PROMPT).fill("two gulls")
    page.locator(PROMPT).press("Control+Enter")
    tiles = page.locator(".ls-tiles .ls-tile")
    expect(tiles).to_have_count(2)
    done(page, server)
    assert 'img "two gulls"' in frame.aria_snapshot()
    # One stop of the Tab key each, and arrow keys: the pictures of the job, and the steps.
    expect(page.locator(".ls-tiles [tabindex='0']")).to_have_count(1)
    page.locator(".ls-tiles .now").focus()
    page.keyboard.press("End")
    expect(tiles.last).to_be_focused()
    expect(tiles.last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    expect(tiles.first).to_be_focused()
    expect(tiles.first).to_have_attribute("tabindex", "0")
    strip = page.locator(".ls-strip")
    strip.focus()
    page.keyboard.press("Home")
    expect(page.locator(".ls-badge")).to_have_text("step 1")
    expect(page.locator(f"#{strip.get_attribute('aria-activedescendant')}")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("End")
    expect(page.locator(".ls-badge")).to_be_hidden()
    frame.get_by_role("button", name="enlarge").click()
    expect(page.locator("dialog.ls-lightbox")).to_be_visible()
    page.keyboard.press("Escape")
    frame.click()
    large = page.locator("dialog.ls-lightbox")
    expect(large).to_be_visible()
    first = large.locator("img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(large.locator("img")).not_to_have_attribute("src", str(first))
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()


def test_everything_can_be_named_and_reached(page: Page) -> None:
    """Every button and field that can be seen has a name, and Tab goes from the prompt to Generate."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, [role=button]")]
            .filter((node) => node.offsetParent && !node.closest("[aria-hidden=true]"))
            .filter((node) => !(node.innerText?.trim() || node.getAttribute("aria-label") || node.title || node.placeholder
                || node.labels?.length))
            .map((node) => node.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    head = page.locator("#txt2img_subseed_show > button")
    expect(head).to_have_attribute("aria-expanded", "false")
    unfold(page, "txt2img_subseed_show")
    expect(head).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#txt2img_settings [data-said]:not([data-said=''])")).to_have_count(0)
    set_number(page, "subseed_strength", 0.5)
    head.click()
    expect(head).to_have_accessible_name(re.compile("Extra.*1 changed"))
    unfold(page, "txt2img_subseed_show")
    set_number(page, "subseed_strength", 0)
    expect(head).to_have_attribute("data-said", "")
    expect(page.locator("#txt2img_settings button.label-wrap:not([aria-expanded])")).to_have_count(0)
    tab(page, "Library")
    page.locator("#library_pictures").focus()
    page.keyboard.press("ArrowRight")
    chosen = page.locator("#library_models")
    expect(chosen).to_be_focused()
    expect(chosen).to_have_attribute("aria-selected", "true")
    expect(page.locator("[data-panel=library] [role=tab][tabindex='0']")).to_have_count(1)
    expect(page.get_by_role("tabpanel", name="Checkpoints")).to_be_visible()
    page.keyboard.press("Home")
    assert page.locator("button[role=listitem]").count() == 0
    tab(page, "txt2img")
    page.locator(PROMPT).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "txt2img_generate"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert re.match("solid|auto", outline)
