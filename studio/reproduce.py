"""The reproduce check: paint a picture again from what it says about itself, and say how near that comes and why not nearer.

Three moves: `read_original` takes the file apart, the caller has its request painted like any other, `compare` looks at both.
Causes are read off the two texts: whatever the new picture says otherwise than the old one may be the reason.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.errors import InvalidRequest, StudioError, UnknownName
from studio.infotext import parse_infotext
from studio.infotext.keys import PROGRAM
from studio.prompt.networks import HYPERNETWORK, extract_networks
from studio.schema.parts import BUILT_IN, HiresPass
from studio.schema.request import GenerationRequest, make_request
from studio.upscalers import PLAIN_UPSCALER, find_upscaler
from studio.wording import ModelLookup

if TYPE_CHECKING:
    from studio.evaluation.similarity import Picture
    from studio.infotext import PictureInfo

_SIMILAR = 11
"""Least side in pixels that structural similarity is measured from."""
_NOT_COMPARED = frozenset({"Size-1", "Size-2", "Seed", "User", "TI"})
"""Keys that are fields of the request in every program: were they different, so would be the request. And names that change no pixels."""
_MEANT = {
    "RNG": "GPU", "Clip skip": "1", "Schedule type": "Automatic", "Emphasis": "Original", "Conditional mask weight": "1",
}  # fmt: skip
"""What a text means that does not name these."""


@dataclass(frozen=True)
class Original:
    """A picture to be painted again: its pixels, its text, the request that its text makes, and notes from reading it."""

    pixels: Picture
    infotext: str
    request: GenerationRequest
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reproduction:
    """The outcome. `largest` is the largest difference of 8-bit values; None, like `similarity`, where the sizes differ."""

    equal: bool
    largest: int | None
    similarity: float | None
    infotext: str
    png: bytes = field(repr=False)
    causes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """One sentence."""
        if self.equal:
            return "The same picture: every pixel is equal."
        if self.largest is None:
            return "Another picture: the sizes differ."
        alike = "" if self.similarity is None else f", structural similarity {self.similarity:.4f}"
        return f"Not the same: pixels differ by up to {self.largest} of 255{alike}."


def read_original(info: PictureInfo, data: bytes, library: ModelLookup) -> Original:
    """`info` is what `Studio.read_picture` found in `data`.

    Raises `InvalidRequest` for a picture without generation text, one whose text makes no request, and the sheet of a plot.
    """
    if not info.infotext:
        raise InvalidRequest(
            "This picture carries no generation parameters, so it cannot be painted again.", field="file"
        )
    asked = make_request(info.request)
    if asked.plot is not None:
        raise InvalidRequest("This is the sheet of a plot, many pictures at once: check one of them.", field="file")
    request, missing = with_what_is_here(asked, library)
    return Original(_pixels(data), info.infotext, request, (*info.notes, *missing))


def with_what_is_here(request: GenerationRequest, library: ModelLookup) -> tuple[GenerationRequest, list[str]]:
    """`request` as near as the models of this installation come to it, and a sentence about each that is missing."""
    missing: list[str] = []
    changes: dict[str, Any] = {}
    for name, label, find, instead in (
        ("model", "Checkpoint", library.checkpoint, None),
        ("vae", "VAE", library.vae, "Automatic"),
    ):
        asked = getattr(request, name)
        try:
            find(asked)
        except UnknownName:
            changes[name] = instead
            missing.append(f"{label} {asked!r} is not here: painted with the selected one.")
    if request.hypernetwork:
        try:
            library.hypernetwork(request.hypernetwork)
        except UnknownName:
            changes |= {"hypernetwork": "", "hypernetwork_strength": 1.0}
            missing.append(f"Hypernetwork {request.hypernetwork!r} is not here: painted without it.")
    changes["text_encoders"] = _present(request.text_encoders, "Text encoder", library, missing)
    for part in ("source", "mask"):
        given = getattr(request, part)
        if given and not _is_kept(given.image, library):
            changes |= dict.fromkeys(("source", "mask", "sd_upscale") if part == "source" else ("mask",))
            missing.append(
                f"The {'picture' if part == 'source' else 'mask'} {given.image} is not here: painted without it."
            )
    if request.sd_upscale and "sd_upscale" not in changes:
        upscaler, more = _upscaler_that_is_here(request.sd_upscale.upscaler, library)
        missing += more
        changes["sd_upscale"] = request.sd_upscale.model_copy(update={"upscaler": upscaler})
    if request.refiner:
        try:
            library.checkpoint(request.refiner.checkpoint)
        except UnknownName:
            changes["refiner"] = None
            missing.append(f"Refiner {request.refiner.checkpoint!r} is not here: painted without it.")
    if request.face_restoration:
        try:
            library.face_plan(request.face_restoration, request.code_former_weight)
        except StudioError:
            changes["face_restoration"] = ""
            missing.append(f"Face restorer {request.face_restoration!r} is not here: painted without it.")
    texts = {"prompt": request.prompt, "hires": request.hires.prompt if request.hires else ""}
    for tag in dict.fromkeys(tag for text in texts.values() for tag in extract_networks(text)[1]):
        try:
            if tag.kind == "lora":
                library.lora(tag.name)
            elif tag.kind == HYPERNETWORK:
                library.hypernetwork(tag.name)
        except UnknownName:
            texts = {name: text.replace(str(tag), "") for name, text in texts.items()}
            label = "LoRA" if tag.kind == "lora" else "Hypernetwork"
            missing.append(f"{label} {tag.name!r} is not here: painted without it.")
    if request.hires:
        second, more = _hires_with_what_is_here(request.hires, library)
        missing += more
        changes["hires"] = second.model_copy(update={"prompt": texts["hires"]})
    return request.model_copy(update={**changes, "prompt": texts["prompt"]}), missing


def _present(names: tuple[str, ...], label: str, library: ModelLookup, missing: list[str]) -> tuple[str, ...]:
    """Those of the text encoders that are here; `missing` gets a sentence about each other one."""
    found = []
    for name in names:
        try:
            found.append(name if name == BUILT_IN else library.text_encoder(name).name)
        except UnknownName:
            missing.append(f"{label} {name!r} is not here: painted with the checkpoint's own.")
    return tuple(found)


def _second_modules(part: HiresPass, library: ModelLookup, missing: list[str]) -> dict[str, Any]:
    """VAE and text encoders of the second pass, as far as they are here."""
    encoders = _present(part.text_encoders, "Hires text encoder", library, missing)
    found: dict[str, Any] = {"text_encoders": encoders or ((BUILT_IN,) if part.text_encoders else ())}
    try:
        library.vae(part.vae or "Automatic")
    except UnknownName:
        missing.append(f"Hires VAE {part.vae!r} is not here: painted with the checkpoint's own.")
        found["vae"] = "Automatic"
    return found


def _hires_with_what_is_here(part: HiresPass, library: ModelLookup) -> tuple[HiresPass, list[str]]:
    """The second pass but for its prompt, as `with_what_is_here` does it."""
    upscaler, missing = _upscaler_that_is_here(part.upscaler, library)
    changes: dict[str, Any] = {"upscaler": upscaler, **_second_modules(part, library, missing)}
    try:
        library.checkpoint(part.checkpoint or None)
    except UnknownName:
        missing.append(f"Hires checkpoint {part.checkpoint!r} is not here: both passes painted with the same one.")
        changes["checkpoint"] = ""
    return part.model_copy(update=changes), missing


def _upscaler_that_is_here(name: str, library: ModelLookup) -> tuple[str, list[str]]:
    try:
        find_upscaler(name, library, "upscaler")
    except StudioError:
        return PLAIN_UPSCALER, [f"Upscaler {name!r} is not here: enlarged with {PLAIN_UPSCALER}."]
    return name, []


def _is_kept(image: str, library: ModelLookup) -> bool:
    try:
        library.init_image(image)
    except StudioError:
        return False
    return True


def compare(original: Original, png: bytes, infotext: str) -> Reproduction:
    """`png` and `infotext` are the picture painted from `original.request`."""
    from studio.evaluation.similarity import largest_difference, structural_similarity

    again = _pixels(png)
    if again.shape != original.pixels.shape:
        sizes = f"The picture has {_size(original.pixels)} pixels, its parameters make {_size(again)}."
        return Reproduction(False, None, None, infotext, png, (sizes, *_causes(original, infotext)))
    largest = largest_difference(original.pixels, again)
    if largest == 0:
        return Reproduction(True, 0, 1.0, infotext, png)
    similarity = structural_similarity(original.pixels, again) if min(again.shape[:2]) >= _SIMILAR else None
    causes = _causes(original, infotext) or _unhashed(original.request) or (_unknown(largest),)
    return Reproduction(False, largest, similarity, infotext, png, causes)


def _causes(original: Original, infotext: str) -> tuple[str, ...]:
    """What the two texts do not agree on, in the old one's order, and what reading it already found."""
    old, new = parse_infotext(original.infotext).pairs, parse_infotext(infotext).pairs
    causes = list(original.notes)
    for key in dict.fromkeys((*old, *new)):
        then, now = old.get(key, _MEANT.get(key)), new.get(key, _MEANT.get(key))
        if key in _NOT_COMPARED or then == now or _same_number(then, now):
            continue
        causes.append(_cause(key, then, now))
    return tuple(causes)


def _cause(key: str, then: str | None, now: str | None) -> str:
    if key == "Version" and (then is None or not then.startswith(PROGRAM)):
        return f"The picture was painted by {then or 'another program'}, this one by {now}."
    if then is None:
        return f"{key}: {now} here; the picture does not say."
    if now is None:
        return f"{key}: {then} in the picture; not known or not used here."
    return f"{key}: {then} in the picture, {now} here."


def _unhashed(request: GenerationRequest) -> tuple[str, ...]:
    """What a text names without a hash: the file may be another one."""
    texts = (request.prompt, request.hires.prompt if request.hires else "")
    tags = [tag.name for text in texts for tag in extract_networks(text)[1] if tag.kind == HYPERNETWORK]
    names = dict.fromkeys(name for name in (*tags, request.hypernetwork) if name)
    return tuple(f"Hypernetwork {name!r} here may be another file: the picture knows only its name." for name in names)


def _same_number(then: str | None, now: str | None) -> bool:
    """Whether both are one number written in two ways, such as 7 and 7.0."""
    try:
        return then is not None and now is not None and float(then) == float(now)
    except ValueError:
        return False


def _unknown(largest: int) -> str:
    kernels = "Painted as one of a batch, or on another processor, sums are rounded otherwise."
    return (
        f"The parameters agree. {kernels}"
        if largest <= 2
        else "The parameters agree; the file may have been edited or saved anew with loss."
    )


def _pixels(data: bytes) -> Picture:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
