"""Reading generation text: AUTOMATIC1111's form, and what other programs make of it.

The last line holds the parameters if at least three `Key: value` pairs are found in it; else the whole text is the prompt.
A key is a word character and at least one more of word, space, '-' or '/'; a value is a quoted string, or JSON, or what
stands before the next comma. Everything here is linear in the length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.infotext.dialects import implied_pairs, named_embeddings, named_loras, unnamed_resources
from studio.infotext.embeddings import with_embeddings
from studio.infotext.fields import request_fields
from studio.infotext.keys import TEMPLATE_KEYS, TEXT_KEYS
from studio.infotext.legacy import modernise
from studio.infotext.loras import repoint_loras, with_loras
from studio.infotext.quote import quote, unquote
from studio.prompt.wildcards import literal
from studio.schema.parts import MAX_ORIGIN, MAX_PROMPT

MAX_INFOTEXT = 10 * MAX_PROMPT + 2 * MAX_ORIGIN + 20_000
"""Characters of text that are taken out of a picture: the two longest prompts there can be, in quotes those of a second pass, what they
were drawn from and what the picture was branched from, and room for parameters."""
NEGATIVE = "Negative prompt:"
FEWEST_PAIRS = 3
SHOWN_RESOURCES = 12

_KEY_CHARACTERS = re.compile(r"[\w \-/]*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])+"')
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_ONE_LINE = re.compile(r"[^,\s]\s+(?=Steps: \d)")
_WHITE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_JSON_STARTS = ("{", "[")
MAX_BROKEN_JSON = 32
"""After so many values of one line that begin like JSON and are none, no more are tried: every attempt may read the whole line."""


@dataclass(frozen=True)
class ParsedInfotext:
    """What a text says.

    `prompt` is as AUTOMATIC1111 reads it, with a tag for the hypernetwork that `Hypernet` names; `request` has that in its own fields.
    `pairs` are its parameters under AUTOMATIC1111's keys, a size as `Size-1` and `Size-2`. `request` are fields of
    `GenerationRequest`, only those that the text decides; parameters that were left at their default are among them.
    `notes` are sentences for the user about what was adjusted or cannot be used.
    """

    prompt: str
    negative_prompt: str
    pairs: dict[str, str]
    request: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def parse_infotext(
    text: str, loras: Mapping[str, str] | None = None, embeddings: Mapping[str, str] | None = None
) -> ParsedInfotext:
    """Take generation text apart. Any text is accepted, and nothing raises; one without parameters is a prompt.

    `loras` is short hash -> name of the LoRAs that are here: tags in `request["prompt"]` whose hash the text tells are
    pointed at the file with that hash, and LoRAs that it names outside the prompt get a tag. `embeddings` is word -> short hash, "" while it is not
    known, of the embeddings that are here: words in both prompts whose hash the text tells become the local ones. Where there are parameters the
    prompts of the request are those that painted the picture, so what would draw wildcards and choices in them is escaped.
    `request["model"]` is `name [hash]` where the text has both. A prompt that no request can hold is left out of `request`,
    with a note.
    """
    lines, last = _split(text.replace("\0", "").encode("utf-8", "replace").decode())
    prompt, negative = _prompts(lines)
    pairs = _keyed(last)
    fields: dict[str, Any] = {}
    notes: list[str] = []
    painted = (prompt, negative)
    if pairs:
        told = prompt
        prompt, pairs = modernise(prompt, negative, pairs)
        fields, notes = request_fields({**implied_pairs(pairs), **pairs})
        named, words = named_loras(pairs), named_embeddings(pairs)
        second = _second_prompts(fields)
        local, more = with_loras(told, named, loras or {}, tagged_too=second[0])
        painted, renamed = with_embeddings((local, negative), words, embeddings or {})
        painted = (literal(painted[0]), literal(painted[1]))
        if any(second):
            tags = {lora.name: lora.digits for lora in named if lora.name}
            pointed, _ = with_embeddings(
                (repoint_loras(second[0], tags, loras or {}), second[1]), words, embeddings or {}
            )
            fields["hires"].update(prompt=literal(pointed[0]), negative_prompt=literal(pointed[1]))
        notes += [*more, *renamed]
        if others := unnamed_resources(pairs):
            shown = "; ".join(others[:SHOWN_RESOURCES]) + ("; …" if len(others) > SHOWN_RESOURCES else "")
            notes.append(f"Made with models that Civitai names without a hash, so they cannot be found here: {shown}.")
    request = {"prompt": painted[0], "negative_prompt": painted[1], **fields}
    for name in ("prompt", "negative_prompt"):
        if len(request[name]) > MAX_PROMPT:
            label = name.replace("_", " ")
            notes.append(f"The {label} has {len(request.pop(name)):,} characters; {MAX_PROMPT:,} are possible.")
    return ParsedInfotext(prompt, negative, pairs, request, notes)


def _second_prompts(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt and negative prompt that the second pass has for itself, each "" where there is none."""
    part = fields.get("hires") or {}
    return part.get("prompt", ""), part.get("negative_prompt", "")


def find_pairs(line: str) -> list[tuple[str, str]]:
    """All `Key: value` pairs of a line in order; quoted values still quoted."""
    pairs: list[tuple[str, str]] = []
    position, broken = 0, 0
    while (colon := line.find(":", position)) >= 0:
        key = _key(line[position:colon])
        if not key:
            position = colon + 1
            continue
        white = _WHITE.match(line, colon + 1)
        start = white.end() if white else colon + 1
        end = _whole_end(line, start, broken < MAX_BROKEN_JSON)
        broken += end is None and line[start : start + 1] in _JSON_STARTS
        if end is None or line[end : end + 1] not in ("", ","):
            comma = line.find(",", start)
            end = comma if comma >= 0 else len(line)
        pairs.append((key, line[start:end]))
        position = end + 1
    return pairs


def _split(text: str) -> tuple[list[str], str]:
    """The lines of the prompts, and the line of parameters ("" if there is none)."""
    *lines, last = _templates_inside(text.strip().split("\n"))
    cut = None if last.startswith("Steps:") else _ONE_LINE.search(last)
    if cut and len(find_pairs(last[cut.end() :])) >= FEWEST_PAIRS:  # SD.Next's form: all in one line
        head, separator, negative = last[: cut.end()].partition(f" {NEGATIVE}")
        return [*lines, head, *([NEGATIVE + negative] if separator else [])], last[cut.end() :]
    if len(find_pairs(last)) >= FEWEST_PAIRS:
        return lines, last
    return [*lines, last], ""


def _templates_inside(lines: list[str]) -> list[str]:
    """`lines` with sd-dynamic-prompts' templates, which are lines after the parameters, as parameters like all others."""
    starts = tuple(f"{key}:" for key in TEMPLATE_KEYS)
    cut = next(
        (at for at, line in enumerate(lines) if line.startswith(starts) and lines[at - 1].startswith("Steps:")), 0
    )
    if not cut or len(find_pairs(lines[cut - 1])) < FEWEST_PAIRS:
        return lines
    templates: list[str] = []
    for line in lines[cut:]:
        if line.startswith(starts) or not templates:
            templates.append(line)
        else:
            templates[-1] += f"\n{line}"
    pairs = (template.split(":", 1) for template in templates)
    return [*lines[: cut - 1], ", ".join([lines[cut - 1], *(f"{key}: {quote(text.strip())}" for key, text in pairs)])]


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt. Lines are stripped; empty ones at the beginning are dropped."""
    sinks: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in lines:
        line = line.strip()
        if line.startswith(NEGATIVE):
            negative, line = True, line[len(NEGATIVE) :].strip()
        sink = sinks[negative]
        if line or sink:
            sink.append(line)
    return "\n".join(sinks[0]), "\n".join(sinks[1])


def _keyed(line: str) -> dict[str, str]:
    """The pairs of a line by key, unquoted, sizes taken apart. Keys without a value are dropped; the last of two wins."""
    pairs: dict[str, str] = {}
    for key, raw in find_pairs(line):
        if not raw:
            continue
        value = unquote(raw)
        size = None if key in TEXT_KEYS else _SIZE.fullmatch(value)
        if size:
            pairs[f"{key}-1"], pairs[f"{key}-2"] = size.groups()
        else:
            pairs[key] = value
    return pairs


def _key(text: str) -> str:
    """The key that ends `text`, or "". It begins with a word character and has two at least."""
    run = _KEY_CHARACTERS.match(text[::-1])
    key = text[len(text) - run.end() :] if run else ""
    key = key.lstrip(" -/")
    return key if len(key) >= 2 else ""


def _whole_end(line: str, start: int, try_json: bool) -> int | None:
    """Where a quoted text, or a JSON object or list, that begins at `start` ends; None when there is none."""
    quoted = _QUOTED.match(line, start)
    if quoted:
        return quoted.end()
    if not try_json or line[start : start + 1] not in _JSON_STARTS:
        return None
    try:
        return _DECODER.raw_decode(line, start)[1]
    except (ValueError, RecursionError):
        return None
