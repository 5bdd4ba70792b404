"""The separate text encoders and VAEs of both passes of a picture: looked up, and checked against the checkpoints that they are for.

A text encoder takes the place of the one of the checkpoint whose token vectors are as wide as its own: SDXL has two, 768 and 1280 wide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studio.errors import IncompatibleFile, StudioError, UnknownName
from studio.families import family
from studio.schema.models import ModelInfo
from studio.schema.parts import BUILT_IN, HiresPass
from studio.schema.resolved import HiresPlan, ResolvedRequest
from studio.wording import ModelLookup, usable

FIELD = "text_encoders"
SECOND = "hires.text_encoders"


def find_text_encoders(
    names: Iterable[str], model: ModelInfo, library: ModelLookup, field: str = FIELD
) -> tuple[ModelInfo, ...]:
    """The text encoders called `names`, in the order of those of the checkpoint `model` that they stand for.

    Raises `UnknownModel`, and `IncompatibleFile` for one that cannot be used, does not fit, or fits where another one does.
    """
    try:
        found = [usable(library.text_encoder(name)) for name in names]
    except StudioError as error:
        error.field = field
        raise
    return fitting(found, model, field)


def fitting(encoders: Sequence[ModelInfo], model: ModelInfo, field: str) -> tuple[ModelInfo, ...]:
    """`encoders` in the order of the checkpoint's own, where its file tells their widths. Raises `IncompatibleFile` as `find_text_encoders` does."""
    if not model.text_widths:
        return tuple(encoders)
    places: dict[int, ModelInfo] = {}
    for encoder in encoders:
        place = next((at for at, width in enumerate(model.text_widths) if (width,) == encoder.text_widths), None)
        if place is None:
            own = " and ".join(map(str, model.text_widths))
            hint = f" Choose {BUILT_IN}, which is the checkpoint's own." if field == SECOND else ""
            raise IncompatibleFile(
                f"Text encoder {encoder.name!r} has token vectors {encoder.text_widths[0]} wide; {model.name!r} "
                f"({family(model.family).title}) reads prompts with {own}.{hint}",
                field=field,
            )
        if place in places:
            raise IncompatibleFile(
                f"Text encoders {places[place].name!r} and {encoder.name!r} are both {model.text_widths[place]} wide: only one of them "
                f"can take the place of that of {model.name!r}.",
                field=field,
            )
        places[place] = encoder
    return tuple(places[place] for place in sorted(places))


def second_text_encoders(
    part: HiresPass, first: Sequence[ModelInfo], model: ModelInfo, library: ModelLookup
) -> tuple[ModelInfo, ...]:
    """Those that read the prompts of the second pass with the checkpoint `model`; `first` are those of the first pass. Raises as above."""
    if not part.denoising_strength:
        return tuple(first)
    if part.text_encoders == (BUILT_IN,):
        return ()
    if part.text_encoders:
        return find_text_encoders(part.text_encoders, model, library, SECOND)
    return fitting(first, model, SECOND)


def second_vae(part: HiresPass, first: ModelInfo | None, library: ModelLookup) -> ModelInfo | None:
    """The separate VAE of the second pass, None for the checkpoint's own. Raises `UnknownModel` and `IncompatibleFile`."""
    if not part.vae or not part.denoising_strength:
        return first
    try:
        found = library.vae(part.vae)
        return usable(found) if found else None
    except StudioError as error:
        error.field = "hires.vae"
        raise


def sorted_modules(request: Mapping[str, Any], library: ModelLookup) -> dict[str, Any]:
    """`request`, whose text encoders may be names of VAEs too, as Forge lists them: each name where it belongs, as it is called here.

    What is not here stays a text encoder, and will be told of. A VAE that the request names itself goes ahead of one in the list.
    """
    found = dict(request)
    if found.get("text_encoders"):
        found["text_encoders"], vae = _sorted(found["text_encoders"], library)
        if vae and found.get("vae") in (None, "", "Automatic"):
            found["vae"] = vae
    part = found.get("hires") or {}
    if part.get("text_encoders"):
        names, vae = _sorted(part["text_encoders"], library)
        found["hires"] = {**part, "text_encoders": names or (BUILT_IN,), **({"vae": vae} if vae else {})}
    return found


def _sorted(names: Iterable[str], library: ModelLookup) -> tuple[tuple[str, ...], str]:
    """The text encoders among `names`, and a VAE, "" where there is none."""
    encoders: list[str] = []
    vae = ""
    for name in names:
        if name == BUILT_IN:
            continue
        with contextlib.suppress(UnknownName):
            encoders.append(library.text_encoder(name).name)
            continue
        try:
            found = library.vae(name)
        except UnknownName:
            encoders.append(name)
        else:
            vae = found.name if found else vae  # Automatic and None are no files
    return tuple(dict.fromkeys(encoders)), vae


def second_names(plan: HiresPlan, resolved: ResolvedRequest) -> tuple[str, tuple[str, ...]]:
    """VAE and text encoders of a second pass as a request names them: as in the first is empty, so that equal pictures come of equal requests."""
    vae = plan.vae.name if plan.vae else "Automatic"
    encoders: tuple[str, ...] = tuple(encoder.name for encoder in plan.text_encoders) or (BUILT_IN,)
    return (
        "" if _paths(plan.vae) == _paths(resolved.vae) else vae,
        () if _paths(*plan.text_encoders) == _paths(*resolved.text_encoders) else encoders,
    )


def _paths(*models: ModelInfo | None) -> list[str | None]:
    return [model.path if model else None for model in models]
