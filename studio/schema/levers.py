"""What makes painting faster, is always on, and can be taken away by name: to find out what a picture owes to it, and what it gains.

Levers that change pictures by more than rounding are no part of this: they are fields of a request, or settings of their own, and off unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from studio.errors import near_matches

LeverName = Literal[
    "one-pass",
    "kept-keys",
    "packing",
    "channels-last",
    "huge-pages",
    "prompt-cache",
    "kept-merges",
    "decoding-beside",
]
LEVERS: Mapping[LeverName, str] = {
    "one-pass": "prompt and negative prompt go through the U-Net together",
    "kept-keys": "keys and values that cross-attention makes of the prompts are computed once for all steps",
    "packing": "weights of large convolutions lie in the order in which a processor's convolutions read them",
    "channels-last": "weights of convolutions in short formats lie with the channels last",
    "huge-pages": "large tensors on a processor lie in huge pages where Linux gives them",
    "prompt-cache": "prompts that were read before are not read again",
    "kept-merges": "weights that LoRAs were merged into stay in memory, so that going back to them computes nothing",
    "decoding-beside": "on CUDA cards the pictures of a batch are decoded while the next batch is denoised",
}
"""Each with what it does."""
ROUNDED_BY = frozenset[LeverName](("one-pass", "packing", "channels-last"))
"""Sums are rounded in another order without these, where they act; the others change no bit."""


def levers(text: str) -> frozenset[LeverName]:
    """Names from a list with commas. Raises `ValueError` that names what is none, and what is allowed."""
    names = [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if name not in LEVERS:
            near = near_matches(name, LEVERS, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name!r} is not one of them; {meant}allowed, with commas between: {', '.join(LEVERS)}")
    return frozenset(name for name in get_args(LeverName) if name in names)


def _checked(text: str) -> str:
    levers(text)
    return text


Levers = Annotated[str, AfterValidator(_checked)]
"""A list of names with commas, empty for none."""
