"""Colours that can be read: contrast after WCAG 2.2 AA, in dark and in light, computed from the stylesheet's own variables."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from studio.ui.static import ASSETS
from studio.ui.theme import make_theme

TEXT, OUTLINE = 4.5, 3.0
GROUNDS = ("bg", "panel", "raise", "hover")
PAIRS = {
    "text": (
        *GROUNDS,
        "accent-soft",
        "bad-soft",
        "weight",
        "edit",
        "tag",
        "stage",
        *(f"w{place}" for place in range(6)),
    ),
    "dim": (*GROUNDS, "accent-soft", "weight", "edit", "tag", "stage"),
    "faint": (*GROUNDS, "accent-soft", "stage"),
    "accent": (*GROUNDS, "accent-soft"),
    "ok": GROUNDS,
    "warn": GROUNDS,
    "bad": (*GROUNDS, "bad-soft"),
    "on-go": ("go", "go-hover"),
}
"""Colours of words, and what they stand on somewhere on the page."""
THEMES = ("dark", "light")


def sheet(name: str) -> str:
    return re.sub(r"/\*.*?\*/", "", (ASSETS / name).read_text("utf-8"), flags=re.DOTALL)


def colours(theme: str) -> dict[str, str]:
    """The variables of a theme that are plain colours; light leaves some as dark has them."""
    dark, light = re.findall(r":root(?:\[data-theme=\"light\"\])? \{(.*?)\n\}", sheet("page.css"), re.DOTALL)[:2]
    found = [dict(re.findall(r"--ls-([\w-]+): (#[0-9a-f]{6});", block)) for block in (dark, light)]
    return found[0] if theme == "dark" else {**found[0], **found[1]}


def luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    """What `color-mix` makes of two colours in sRGB."""
    pairs = ((int(one[at : at + 2], 16), int(other[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(first * share + second * (1 - share)):02x}" for first, second in pairs)


def rules() -> Iterator[tuple[str, dict[str, str]]]:
    """Selector and declarations of every rule of both stylesheets, those inside of @media too."""
    for name in ("page.css", "train.css"):
        for selector, body in re.findall(r"([^{};]+)\{([^{}]*)\}", sheet(name)):
            yield selector.strip(), dict(re.findall(r"([\w-]+):\s*([^;]+?)\s*(?:;|$)", body))


def variable(value: str) -> str:
    """The name in a value that is one variable and nothing else."""
    found = re.fullmatch(r"var\(--ls-([\w-]+)\)", value.removesuffix("!important").strip())
    return found[1] if found else ""


@pytest.mark.parametrize("theme", THEMES)
def test_words_can_be_read(theme: str) -> None:
    known = colours(theme)
    pairs = {(word, ground) for word, grounds in PAIRS.items() for ground in grounds}
    for _, declared in rules():
        pair = (variable(declared.get("color", "")), variable(declared.get("background", "")))
        pairs |= {pair} if all(pair) else set()
    found = {f"{word} on {ground}": contrast(known[word], known[ground]) for word, ground in pairs}
    found |= {
        f"text on half {heat}": contrast(known["text"], mixed(known[heat], known["raise"], 0.55))
        for heat in ("warm", "cool")
    }
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < TEXT} == {}


def test_words_are_not_faded() -> None:
    """What is seen through is not counted above."""
    assert [selector for selector, declared in rules() if "font-size" in declared and "opacity" in declared] == []


@pytest.mark.parametrize("theme", THEMES)
def test_empty_checkboxes_can_be_seen(theme: str) -> None:
    known = colours(theme)
    drawn = [value for selector, body in rules() if selector.endswith('input[type="checkbox"]') for value in [body.get("border", "")]]  # fmt: skip
    names = {variable(value.split()[-1]) for value in drawn if value}
    names.add(variable(str(make_theme().checkbox_border_color)))
    assert names == {"check"}
    ratios = {ground: contrast(known["check"], known[ground]) for ground in ("bg", "panel", "raise")}
    assert min(ratios.values()) >= OUTLINE, ratios
