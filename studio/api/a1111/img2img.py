"""POST img2img, and what its body has of its own: the picture to begin with and its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from fastapi import APIRouter

from studio.api.a1111.bodies import Img2ImgBody
from studio.api.a1111.lists import upscaler_names
from studio.api.a1111.names import (
    MASK_FIELDS,
    MASK_OVERRIDES,
    NUMBERED,
    SOURCE_FIELDS,
    SOURCE_OVERRIDES,
    TOKEN_MERGING,
)
from studio.api.a1111.painting import ImagesAnswer, context_of, painted
from studio.api.a1111.pictures import decoded
from studio.api.a1111.scripts import IMG2IMG_AXES
from studio.api.a1111.translate import Context, Dialect, Order, Refusal, Said, translate
from studio.api.a1111.upscale_script import is_sd_upscale, upscale_call
from studio.api.common import StudioDep
from studio.app import Studio
from studio.errors import DamagedFile, InvalidRequest, NotFound
from studio.schema.resolved import InitImage
from studio.schema.source import NAME_DIGITS
from studio.upscalers import ON_PIXELS

router = APIRouter()

MASK_DEFAULTS = {"content": "fill", "area": "Only masked", "padding": 0}
"""Where A1111's API begins elsewhere than its page, its texts and our requests."""
ANY_PICTURE = "0" * NAME_DIGITS
"""Stands for the pictures of a text that names none, until those of the body take their place."""


class Keeper(Protocol):
    """What keeps pictures; see `studio.library.init_images.InitImages`."""

    def keep(self, data: bytes) -> InitImage:
        """A picture."""

    def keep_mask(self, data: bytes) -> InitImage:
        """A mask."""


@router.post("/img2img")
async def img2img(studio: StudioDep, body: Img2ImgBody) -> ImagesAnswer:
    """Paint from a picture, or a masked part of it anew. Answers as txt2img; `parameters` shows pictures where `include_init_images` says so."""

    def understand() -> Order:
        context = replace(context_of(studio), read_infotext=lambda text: _told(studio, text))
        return img2img_order(body, context, studio.library.init_images, upscaler_names(studio.library.upscalers()))

    answer = await painted(studio, body, understand)
    if not body.include_init_images:
        answer.parameters |= {"init_images": None, "mask": None}
    return answer


def _told(studio: Studio, text: str) -> dict[str, Any]:
    """The fields of a request in a text. A1111's name no pictures, so that they alone make no `source`: here the pictures are given."""
    parsed = studio.read_infotext(text)
    if "Denoising strength" in parsed.pairs and not parsed.request.keys() & {"source", "hires"}:
        parsed = studio.read_infotext(f"{text.rstrip()}, Init image: {ANY_PICTURE}, Mask image: {ANY_PICTURE}")
    return parsed.request


def img2img_order(body: Img2ImgBody, context: Context, keeper: Keeper, upscalers: Sequence[str] = ON_PIXELS) -> Order:
    """Understand a body of img2img; its pictures are kept on the way. `upscalers` are those that a script may number.

    Raises `NotFound` where it has no picture, `InvalidRequest` and `DamagedFile` naming A1111's field, `StorageError`.
    """
    if not body.init_images:
        raise NotFound("Init image not found", field="init_images")
    if len(body.init_images) > 1:
        raise InvalidRequest(
            f"init_images: {len(body.init_images)} pictures at once are not available in this version. Send one each call.",
            field="init_images",
        )
    return translate(body, context, Dialect(_REFUSED, IMG2IMG_AXES, lambda said: _own_parts(said, keeper, upscalers)))


_REFUSED: tuple[Refusal, ...] = (
    ("latent_mask", bool, "a mask of its own for latents is not available in this version. Send mask."),
)


def _own_parts(said: Said, keeper: Keeper, upscalers: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    source = _part(said, "source", SOURCE_FIELDS, SOURCE_OVERRIDES)
    mask = _mask(said) if said.given.get("mask") else None
    source["image"] = _kept(said.given["init_images"][0], "init_images", keeper.keep)
    if mask is not None:
        mask["image"] = _kept(said.given["mask"], "mask", keeper.keep_mask)
    parts: dict[str, Any] = {"source": source, "mask": mask, "hires": None}
    if is_sd_upscale(said.given.get("script_name")):
        parts["sd_upscale"] = upscale_call(said.given.get("script_args") or (), upscalers)
    if said.overrides.get(TOKEN_MERGING) and not said.overrides.get("token_merging_ratio"):
        parts["token_merging_ratio"] = said.overrides[TOKEN_MERGING]
    return parts, _warnings(said)


def _warnings(said: Said) -> list[str]:
    warnings = []
    if said.data.get("hires"):
        warnings.append("The infotext's second pass was ignored: img2img has none.")
    return warnings


def _mask(said: Said) -> dict[str, Any]:
    """The mask's values without its picture. Raises `InvalidRequest` for a blur that differs between the directions."""
    usual = {} if "infotext" in said.given else MASK_DEFAULTS
    part = usual | _part(said, "mask", MASK_FIELDS, MASK_OVERRIDES)
    if "mask_blur" in said.given:
        return part
    known = part.get("blur", 4)
    across, down = said.given.get("mask_blur_x", known), said.given.get("mask_blur_y", known)
    if across != down:
        raise InvalidRequest(
            f"mask_blur_x = {across} and mask_blur_y = {down} are not possible: both should be the same. Send mask_blur.",
            field="mask_blur_x",
        )
    return part | {"blur": across}


def _part(said: Said, part: str, fields: dict[str, str], overrides: dict[str, str]) -> dict[str, Any]:
    """A part as the infotext tells it, then the settings, then the fields."""
    values = dict(said.data.get(part) or {})
    values |= {ours: said.overrides[theirs] for theirs, ours in overrides.items() if theirs in said.overrides}
    return values | {
        ours: _meaning(theirs, said.given[theirs]) for theirs, ours in fields.items() if theirs in said.given
    }


def _meaning(name: str, value: Any) -> Any:
    """What a number of A1111's stands for."""
    meanings = NUMBERED.get(name)
    if meanings is None:
        return value
    if not 0 <= value < len(meanings):
        allowed = ", ".join(f"{number} ({meaning})" for number, meaning in enumerate(meanings))
        raise InvalidRequest(f"{name} = {value} is not possible: should be one of {allowed}.", field=name)
    return meanings[value]


def _kept(text: str, field: str, keep: Callable[[bytes], InitImage]) -> str:
    """The name a picture is kept under."""
    try:
        return keep(decoded(text, field)).name
    except DamagedFile as error:
        raise DamagedFile(f"{field}: {error.message}", field=field) from None
