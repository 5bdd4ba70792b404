"""Parameters that nothing here acts on: what feature each belongs to, and the notes that say so.

A picture made with a feature that this program lacks comes out differently; the reader is told which, and with what values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from studio.infotext.dialects import is_dialect_key

FEATURES: dict[str, tuple[str, ...]] = {
    "hires. fix without its strength and its size": ("Hires ", "First pass size"),
    "picture to begin with": (
        *(
            "Denoising strength",
            "Init image",
            "Image CFG scale",
            "Noise multiplier",
            "Extra noise",
            "Resize mode",
            "Exact steps",
        ),
    ),
    "mask": ("Mask ", "Masked ", "Inpaint area", "Conditional mask weight"),
    "ControlNet": ("ControlNet",),
    "ADetailer": ("ADetailer",),
    "scripts": (
        "Script",
        "X Type",
        "X Values",
        "Y Type",
        "Y Values",
        "Z Type",
        "Z Values",
        "Fixed ",
        "Plot ",
    ),
    "picture that SD upscale enlarged": ("SD upscale",),
    "Fooocus's own parameters": ("Sharpness", "ADM Guidance", "Performance", "Styles", "Base Model", "Fooocus"),
}
"""Feature -> how its parameters begin. A feature that is built takes its keys away by reading them."""

SILENT = frozenset(
    {
        *("Version", "User", "App", "Parser", "Operations", "Pipeline", "Backend", "Created Date", "Created By"),
        *("Model hash", "Model id", "VAE hash", "Face restoration file", "Raw prompt", "Raw negative prompt"),
        *("nsfw", "draft", "quantity", "workflow", "baseModel", "fluxMode", "experimental", "Civitai version"),
    }
)
"""Keys that change no pixels, or are used beside another key."""

NEUTRAL = frozenset({"", "0", "0.0", "false", "none", "off"})
"""Values that say a feature was not used."""
NEUTRAL_VALUES = {
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Conditional mask weight": "1",
    **dict.fromkeys(("Hires sampler", "Hires schedule type", "Hires checkpoint"), "Use same"),
}
"""The same for single keys, by how the value begins."""

SHOWN = 12
_MAX_SHOWN = 60


def unused_notes(pairs: Mapping[str, str], used: Collection[str]) -> list[str]:
    """One sentence for every feature whose parameters are not in `used`, and one for what belongs to none."""
    groups: dict[str, list[str]] = {}
    for key, value in pairs.items():
        if key in used or key in SILENT or is_dialect_key(key) or _neutral(key, value):
            continue
        groups.setdefault(_feature(key), []).append(f"{shortened(key)} {shortened(value)}")
    others = groups.pop("", [])
    notes = [f"There is no {feature} here; not used: {_listed(shown)}." for feature, shown in groups.items()]
    return [*notes, f"Not used here: {_listed(others)}."] if others else notes


def shortened(text: str) -> str:
    """`text` as a note shows it."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}…"


def _feature(key: str) -> str:
    return next((name for name, beginnings in FEATURES.items() if key.startswith(beginnings)), "")


def _neutral(key: str, value: str) -> bool:
    neutral = NEUTRAL_VALUES.get(key)
    return value.strip().casefold() in NEUTRAL or (neutral is not None and value.startswith(neutral))


def _listed(shown: list[str]) -> str:
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return "; ".join(shown[:SHOWN]) + more
