"""Whether two contenders paint the same: a time counts only beside its error against float32 diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Limits:
    """The largest relative L2 error of one U-Net pass, and the largest (None: any) and mean difference of pictures, of 255."""

    unet: float
    largest: int | None
    mean: float


FULL = Limits(1e-4, 1, 1.0)
"""float32. Programs that cut to 8 bits instead of rounding differ by 1 everywhere."""
SHORT = Limits(2e-2, None, 16.0)
"""bfloat16 and float16. U-Nets with random weights amplify rounding from step to step, so single pixels say nothing about a short format."""


@dataclass(frozen=True)
class Proof:
    """What a contender answered: its number format, one U-Net pass float32 [2, C, h, w], and the pictures uint8 [N, H, W, 3] of one batch
    (none: bare calls); and which torch it has, which need not be ours.
    """

    dtype: str
    unet: Array
    pictures: Array
    torch: str

    @classmethod
    def read(cls, answer: Mapping[str, Any], file: Path) -> Proof:
        """From what a contender's process answered and wrote."""
        with np.load(file) as found:
            return cls(answer["dtype"], found["unet"], found["pictures"], answer["torch"])


class Unequal(Exception):
    """A contender does not paint what it should; the message says by how much."""


def compare(found: Proof, reference: Proof) -> dict[str, Any]:
    """The errors of `found`, its number format and its torch. Raises `Unequal` when an error is above its limit."""
    limits = FULL if found.dtype == "float32" else SHORT
    wanted = reference.unet.astype(np.float64)
    if found.unet.shape != wanted.shape:
        raise Unequal(f"its U-Net gives {found.unet.shape} instead of {wanted.shape}")
    error = float(np.linalg.norm(found.unet - wanted) / np.linalg.norm(wanted))
    facts: dict[str, Any] = {
        "dtype": found.dtype,
        "torch": found.torch,
        "unet_rel_l2": float(f"{error:.2g}"),
        "unet_allowed": limits.unet,
    }
    if not error <= limits.unet:
        raise Unequal(f"one pass of its U-Net is {error:.2g} off (relative L2), {limits.unet:g} is allowed")
    if not found.pictures.size:
        return facts
    if found.pictures.shape != reference.pictures.shape:
        raise Unequal(f"its pictures are {found.pictures.shape} instead of {reference.pictures.shape}")
    apart = np.abs(found.pictures.astype(int) - reference.pictures.astype(int))
    largest, mean = int(apart.max()), float(apart.mean())
    if mean > limits.mean or (limits.largest is not None and largest > limits.largest):
        allowed = f"{limits.mean:g} on average" if limits.largest is None else f"{limits.largest} and {limits.mean:g}"
        raise Unequal(f"its picture is up to {largest} of 255 off, {mean:.2f} on average; {allowed} are allowed")
    return {**facts, "picture_max_difference": largest, "picture_mean_difference": round(mean, 2),
            "picture_max_allowed": limits.largest, "picture_mean_allowed": limits.mean}  # fmt: skip
