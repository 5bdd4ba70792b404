"""A request that was read out of a picture or a text, in the words of this installation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.prompt.styles import recognise_styles

if TYPE_CHECKING:
    from studio.library import Library


def in_local_words(request: Mapping[str, Any], library: Library) -> dict[str, Any]:
    """`request` with the names that things have here; what is not here stays as it was written.

    Styles that were merged into the prompts are taken out of them and named; `name [hash]` of checkpoint, refiner and VAE
    become names of the library.
    """
    found = dict(request)
    with contextlib.suppress(StudioError):
        texts = (found.get("prompt", ""), found.get("negative_prompt", ""))
        prompt, negative, names = recognise_styles(*texts, library.styles.styles())
        if names:
            found.update(prompt=prompt, negative_prompt=negative, styles=names)
    for field, find in (("model", library.checkpoint), ("vae", library.vae)):
        with contextlib.suppress(StudioError):
            info = find(found[field]) if found.get(field) else None
            found[field] = info.name if info else found.get(field)
    if found.get("refiner"):
        with contextlib.suppress(StudioError):
            info = library.checkpoint(found["refiner"]["checkpoint"])
            found["refiner"] = {**found["refiner"], "checkpoint": info.name}
    return {key: value for key, value in found.items() if key in request or key == "styles"}
