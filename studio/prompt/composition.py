"""Prompts put together with AND: `a cat :1.2 AND a dog`. AUTOMATIC1111's language (Liu et al. 2022, arXiv:2206.01714).

AND is a word of its own, in capitals. Each part may end in `:weight`, which may be negative and is 1 otherwise; guidance then is the sum over
the parts, out = uncond + Σ weight · scale · (part - uncond). A weight at the end of a prompt without AND counts too.
"""

from __future__ import annotations

import re

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"[-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)")


def split_composition(text: str) -> list[tuple[str, float]]:
    """(text, weight) of each part, in order; at least one. White space at the end of a part is cut."""
    return [_weighted(part) for part in _AND.split(text)]


def _weighted(part: str) -> tuple[str, float]:
    text, colon, weight = part.rpartition(":")
    if colon and _WEIGHT.fullmatch(weight.strip()):
        return text.rstrip(), float(weight)
    return part.rstrip(), 1.0
