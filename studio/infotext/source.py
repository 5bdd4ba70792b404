"""A picture to begin with, and its mask, in generation text: AUTOMATIC1111's keys for what it records, and keys of our own for the rest.

A1111 writes how the picture was used, and at most a hash of it; so a text of its own cannot be painted again without that picture. Our
`Init image` and `Mask image` name the kept pictures (`studio.library.init_images`); `Resize mode` and `Exact steps` are ours too.
"""

from __future__ import annotations

from collections.abc import Mapping

from studio.infotext.keys import MASK_KEYS, SOURCE_KEYS
from studio.infotext.unused import shortened
from studio.schema.resolved import ResolvedRequest
from studio.schema.source import Mask, Source

NOT_MASKED = "Inpaint not masked"
PICTURE_KEYS = (*SOURCE_KEYS, "Init image hash", *MASK_KEYS)
"""All that a text without a second pass says of a picture to begin with. The hash says nothing that its name does not."""


def source_pairs(resolved: ResolvedRequest) -> dict[str, object]:
    """The pairs of picture and mask, in A1111's order, except the strength and the hash, which stand further ahead."""
    source, mask = resolved.source, resolved.mask
    if source is None:
        return {}
    usual, pairs = Source(), dict[str, object]()
    if mask is not None:
        pairs |= {
            "Mask mode": NOT_MASKED if mask.inverted else None,
            "Mask blur": mask.blur,
            "Inpaint area": mask.area if mask.area != Mask().area else None,
            "Masked area padding": mask.padding if mask.area == "Only masked" else None,
            "Masked content": mask.content if mask.content != Mask().content else None,
            "Mask rounding": None if mask.rounding else False,
        }
    pairs |= {
        "Noise multiplier": source.noise_multiplier if source.noise_multiplier != usual.noise_multiplier else None,
        "Extra noise": resolved.extra_noise or None,
        "Resize mode": source.resize_mode if source.resize_mode != usual.resize_mode else None,
        "Exact steps": True if source.exact_steps else None,
        "Init image": source.image.name,
        "Mask image": mask.image.name if mask else None,
    }
    return {key: value for key, value in pairs.items() if value is not None}


def picture_is_missing(pairs: Mapping[str, str]) -> str | None:
    """A sentence, where a text without a second pass tells that the picture began with another one and does not name a kept one."""
    if "Denoising strength" not in pairs or "Init image" in pairs:
        return None
    told = "; ".join(f"{key} {shortened(pairs[key])}" for key in PICTURE_KEYS if key in pairs)
    return f"It began with another picture (img2img), which its text does not hold: choose that one to paint it again. Not used: {told}."
