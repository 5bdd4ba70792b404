"""A request that was read out of a picture or a text, in the words of this installation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio.encoders import sorted_modules
from studio.errors import StudioError
from studio.prompt.styles import Style, recognise_styles
from studio.upscalers import find_upscaler

if TYPE_CHECKING:
    from studio.library import Library


def in_local_words(request: Mapping[str, Any], library: Library) -> dict[str, Any]:
    """`request` with the names that things have here; what is not here stays as it was written.

    Styles that were merged into the prompts are taken out of them and named; `name [hash]` of checkpoints and VAE, and
    A1111's names of upscalers, become names of the library.
    """
    found = dict(request)
    with contextlib.suppress(StudioError):
        found |= _with_styles(found, library.styles.styles())
    found = sorted_modules(found, library)
    for field, find in (("model", library.checkpoint), ("vae", library.vae)):
        with contextlib.suppress(StudioError):
            info = find(found[field]) if found.get(field) else None
            found[field] = info.name if info else found.get(field)
    for part in ("refiner", "hires"):
        if (found.get(part) or {}).get("checkpoint"):
            with contextlib.suppress(StudioError):
                info = library.checkpoint(found[part]["checkpoint"])
                found[part] = {**found[part], "checkpoint": info.name}
    if (found.get("hires") or {}).get("vae"):
        with contextlib.suppress(StudioError):
            vae = library.vae(found["hires"]["vae"])
            found["hires"] = {**found["hires"], "vae": vae.name if vae else "Automatic"}
    for part in ("hires", "sd_upscale"):
        if (found.get(part) or {}).get("upscaler"):
            with contextlib.suppress(StudioError):
                upscaler, _ = find_upscaler(found[part]["upscaler"], library, f"{part}.upscaler")
                found[part] = {**found[part], "upscaler": upscaler.name}
    return {key: value for key, value in found.items() if key in request or key == "styles"}


def _with_styles(request: Mapping[str, Any], styles: Sequence[Style]) -> dict[str, Any]:
    """The prompts without the styles that are merged into them, and the names of these.

    Styles act on both passes, so where the second one has prompts of its own they must be merged into those too.
    """
    prompt, negative, names = recognise_styles(request.get("prompt", ""), request.get("negative_prompt", ""), styles)
    part = request.get("hires") or {}
    own = {name: part[name] for name in ("prompt", "negative_prompt") if part.get(name)}
    if own:
        texts = (
            own.get("prompt", request.get("prompt", "")),
            own.get("negative_prompt", request.get("negative_prompt", "")),
        )
        *second, too = recognise_styles(*texts, styles)
        if too != names:
            return {}
        bare = dict(zip(("prompt", "negative_prompt"), second, strict=True))
        if not all(bare[name].strip() for name in own):  # a prompt that is left empty would be the first pass's
            return {}
        part = {**part, **{name: bare[name] for name in own}}
    if not names:
        return {}
    return {"prompt": prompt, "negative_prompt": negative, "styles": names, **({"hires": part} if own else {})}
