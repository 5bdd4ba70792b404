"""NovelAI's PNG metadata as AUTOMATIC1111 text: prompt in `Description`, parameters as JSON in `Comment`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.errors import UnknownName
from studio.samplers.table import find_sampler


def novelai_infotext(info: Mapping[Any, Any], width: int, height: int) -> str | None:
    """The text of a picture of `width` x `height` pixels, or None where the metadata is not as expected.

    Lines are indented as A1111 has them; readers strip them. Clip skip 2 and ENSD 31337 are what NovelAI ran with.
    """
    try:
        comment = json.loads(info["Comment"])
        sampler = _sampler(comment["sampler"])
        values = f"CFG scale: {comment['scale']}, Seed: {comment['seed']}, Size: {width}x{height}"
        lines = [
            str(info["Description"]),
            f"Negative prompt: {comment['uc']}",
            f"Steps: {comment['steps']}, Sampler: {sampler}, {values}, Clip skip: 2, ENSD: 31337",
        ]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return "\n    ".join(lines)


def _sampler(name: Any) -> str:
    try:
        return find_sampler(str(name)).name
    except UnknownName:
        return "Euler a"
