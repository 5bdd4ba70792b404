"""Generation text inside pictures: the `parameters` chunk of a PNG, the EXIF user comment of JPEG, WebP and AVIF, a GIF's comment.

NovelAI's, ComfyUI's and Fooocus's own metadata is turned into A1111's text.
Pictures come from anywhere; `studio.infotext.opening` opens them. A text may have `MAX_INFOTEXT` characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from studio.errors import DamagedFile
from studio.infotext.comfyui import comfyui_infotext
from studio.infotext.encode import PARAMETERS
from studio.infotext.exif import comfyui_graph, user_comment
from studio.infotext.fooocus import fooocus_infotext
from studio.infotext.novelai import novelai_infotext
from studio.infotext.opening import guarded, open_picture
from studio.infotext.read import MAX_INFOTEXT, parse_infotext
from studio.infotext.stealth import hidden_text

MAX_ITEM = 100_000
"""Characters of any other text in a picture that are shown."""
_NO_TEXT = frozenset(
    {"exif", "icc_profile", "photoshop", "transparency", "background", "chromaticity", "extension", "xmp"}
)


@dataclass(frozen=True)
class PictureInfo:
    """What a picture file says about itself.

    `infotext` is None where there is no generation text; `items` is other text in the file, untrusted, by its name;
    `request` and `notes` are those of `ParsedInfotext`. `width` and `height` in pixels.
    """

    infotext: str | None
    items: dict[str, str]
    width: int
    height: int
    format: str
    request: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_picture(
    data: bytes, loras: Mapping[str, str] | None = None, embeddings: Mapping[str, str] | None = None
) -> PictureInfo:
    """Find and parse the generation text in a picture file; `loras` and `embeddings` as in `parse_infotext`.

    Text is looked for where programs write it, then hidden in the pixels (which decodes them). Raises `DamagedFile` for a
    file that is no picture of the known formats, too large, or broken before its text.
    """
    image = open_picture(data)
    with image:
        text, notes = _written(image)
        if text is None and image.format == "PNG":
            guarded(image.load)  # chunks behind the pixels are read only now
            text, notes = _written(image)
            text = text or _hidden(image)
        items = _items(image)
        size = (image.width, image.height, image.format or "")
    if text is None:
        return PictureInfo(None, items, *size, notes=notes or ["The picture holds no generation text."])
    if len(text) > MAX_INFOTEXT:
        message = f"The picture holds {len(text):,} characters of generation text; at most {MAX_INFOTEXT:,} are read."
        raise DamagedFile(message, field="image")
    parsed = parse_infotext(text, loras, embeddings)
    return PictureInfo(text, items, *size, request=parsed.request, notes=[*notes, *parsed.notes])


def _written(image: Image.Image) -> tuple[str | None, list[str]]:
    """Text from the places that are made for it, and notes about where it comes from."""
    parameters = image.info.get(PARAMETERS)
    if isinstance(parameters, str):
        return fooocus_infotext(parameters) or str(parameters), []
    if image.info.get("Software") == "NovelAI":
        return novelai_infotext(image.info, image.width, image.height), []
    graph = image.info.get("prompt")
    if image.info.get("exif"):
        comment = user_comment(image)
        if comment is not None:
            return fooocus_infotext(comment) or comment, []
        graph = graph or comfyui_graph(image)
    if isinstance(graph, str) and graph.lstrip().startswith("{"):
        return comfyui_infotext(graph, image.width, image.height)
    comment = image.info.get("comment")
    if image.format == "GIF" and isinstance(comment, bytes):
        return comment.decode("utf-8", "replace"), []
    return None, []


def _hidden(image: Image.Image) -> str | None:
    """Text in the pixels; NovelAI hides its metadata there too, as one JSON object."""
    text = hidden_text(image)
    if text is None or not text.startswith("{"):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return novelai_infotext(found, image.width, image.height) or text


def _items(image: Image.Image) -> dict[str, str]:
    """Other text in the file."""
    items: dict[str, str] = {}
    for key, value in image.info.items():
        if key == PARAMETERS or key in _NO_TEXT or not isinstance(value, (str, bytes)):
            continue
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        items[str(key)] = text if len(text) <= MAX_ITEM else f"{text[:MAX_ITEM]}…"
    return items
