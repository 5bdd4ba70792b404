"""Styles: named texts that are put around a prompt, or behind it. AUTOMATIC1111's rules and results.

    a style with `{prompt}`     "photo of {prompt}, 8k" on "a cat": "photo of a cat, 8k"
    any other                   "masterpiece" on "a cat": "a cat, masterpiece"

Comments are taken out of prompt and styles before they meet, so that a comment never swallows a style.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from studio.errors import InvalidRequest
from studio.prompt.comments import strip_comments
from studio.schema.parts import MAX_PROMPT

PLACEHOLDER = "{prompt}"
SEPARATOR = ", "


@dataclass(frozen=True)
class Style:
    """A style by name. Either text may be empty: it then changes nothing."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""


def apply_styles(prompt: str, styles: Iterable[str]) -> str:
    """`prompt` with the texts of `styles` merged in, one after the other; white space at both ends is cut.

    Raises `InvalidRequest` when the result has more than `MAX_PROMPT` characters: placeholders multiply.
    """
    prompt = strip_comments(prompt).strip()
    for style in styles:
        prompt = _merged(prompt, strip_comments(style).strip())
    return prompt.strip()


def extract_style(style: str, prompt: str) -> tuple[bool, str]:
    """Whether the text `style` is in `prompt`, and the prompt without it (unchanged where it is not)."""
    text, inside = style.strip(), prompt.strip()
    before, placeholder, after = text.partition(PLACEHOLDER)
    if not placeholder:
        if not inside.endswith(text):
            return False, prompt
        return True, inside[: len(inside) - len(text)].removesuffix(SEPARATOR)
    long_enough = len(inside) >= len(before) + len(after)
    if not (long_enough and inside.startswith(before) and inside.endswith(after)):
        return False, prompt
    return True, inside[len(before) : len(inside) - len(after)]


def recognise_styles(prompt: str, negative: str, styles: Iterable[Style]) -> tuple[str, str, tuple[str, ...]]:
    """Prompt and negative prompt without the styles that were merged into them, and the names in the order of merging.

    A style counts only where merging it again gives back the very same texts. Each is found at most once.
    """
    left = [style for style in styles if style.prompt.strip() or style.negative_prompt.strip()]
    names: list[str] = []
    while (found := _last_merged(prompt, negative, left)) is not None:
        style, prompt, negative = found
        left.remove(style)
        names.append(style.name)
    return prompt, negative, tuple(reversed(names))


def _last_merged(prompt: str, negative: str, styles: Iterable[Style]) -> tuple[Style, str, str] | None:
    for style in styles:
        without = [_without(text, part) for text, part in ((prompt, style.prompt), (negative, style.negative_prompt))]
        if without[0] is not None and without[1] is not None:
            return style, without[0], without[1]
    return None


def _without(prompt: str, style: str) -> str | None:
    """`prompt` before `style` was merged into it; None when that cannot have been."""
    found, rest = extract_style(strip_comments(style), prompt)
    return rest if found and apply_styles(rest, [style]) == prompt else None


def _merged(prompt: str, style: str) -> str:
    places = style.count(PLACEHOLDER)
    length = len(style) + places * (len(prompt) - len(PLACEHOLDER)) if places else len(prompt) + len(style)
    if length > MAX_PROMPT:
        message = f"With its styles the prompt has {length:,} characters; {MAX_PROMPT:,} are possible."
        raise InvalidRequest(message, field="styles")
    if places:
        return style.replace(PLACEHOLDER, prompt)
    return SEPARATOR.join(part for part in (prompt.strip(), style) if part)
